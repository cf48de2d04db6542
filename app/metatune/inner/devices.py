"""The devices that a recipe's trainings lie on: what it asks for, or what there is."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from math import gcd
from typing import Final, Literal

import jax
from jax.tree_util import Partial

from metatune.data import Batch, Part
from metatune.hypergrad import State
from metatune.hypergrad.problem import Batches
from metatune.hypergrad.shapes import OptState, Params
from metatune.inner.optimizers import InnerOptimizer
from metatune.models import LanguageModel, Layout, abstract_mesh_of, mesh_of
from metatune.recipe import schema
from metatune.recipe.batch_sizes import held_out_batches, training_batch
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.phases import resolved as phases_of
from metatune.tunables import Hyper
from metatune.tunables.shapes import Slices

PATH: Final = "devices"
Wanted = schema.DevicesSpec | Literal["auto"]


def layout_of(
    recipe: schema.Recipe, model: LanguageModel, elsewhere: bool = False
) -> Layout | None:
    """How the trainings of a recipe lie on devices; None for one device.

    Args:
        recipe: the recipe.
        model: its language model.
        elsewhere: on devices that this process needn't have, instead of its own.

    Raises:
        RecipeError: of several processes some would have nothing to do.
    """
    spec = resolved(recipe)
    if not elsewhere and jax.process_count() > 1 and spec.count != jax.device_count():
        raise RecipeError("recipe", (_idle(recipe.devices, spec),))
    if spec.count == 1:
        return None
    of_mesh = abstract_mesh_of if elsewhere else mesh_of
    return Layout(of_mesh(spec.data, spec.fsdp, spec.tensor, spec.members), model.config.transposed)


def resolved(recipe: schema.Recipe) -> schema.DevicesSpec:
    """The mesh of a recipe: of `auto`, as many devices as divide all batches, as `data`.

    One, where estimators or a population spread over the devices by themselves, and where training
    is done elsewhere.
    """
    if recipe.devices != "auto":
        return recipe.devices
    if recipe.trainer is not None or _spread(recipe.outer):
        return schema.DevicesSpec()
    sizes = [training_batch(recipe.data, recipe.inner)[1], *held_out_batches(recipe.outer).values()]
    return schema.DevicesSpec(data=gcd(jax.device_count(), *sizes))


def _idle(wanted: Wanted, spec: schema.DevicesSpec) -> Fault:
    """Of several processes, a mesh that isn't of all of their devices."""
    count, processes = jax.device_count(), jax.process_count()
    value = wanted if wanted == "auto" else asdict(wanted)
    return Fault(
        PATH,
        value,
        f"is a mesh of {spec.count} of the {count} devices of {processes} processes; must be of "
        "all of them",
        "choose axes of which the product is that, and batches that data x fsdp divides; what "
        "spreads over devices by itself (forward, forward_gradient, a population in one program, "
        "an external trainer) is for one process unless its mesh is named",
    )


def share(layout: Layout | None) -> Part:
    """The rows of every batch that this process reads: all, of one process."""
    return Part() if layout is None or jax.process_count() == 1 else Part(*layout.share())


def over_processes(layout: Layout | None, batches: Callable[[int], Batch]) -> Batches:
    """Batches of which this process reads its share, whole for programs of all processes.

    Args:
        layout: how states lie.
        batches: of `share`.
    """
    if layout is None or jax.process_count() == 1:
        return batches
    return lambda step: layout.of_shares(batches(step))


def _spread(outer: schema.OuterSpec) -> bool:
    """Whether directions or members are spread over devices, each with whole trainings."""
    if outer.population is not None and outer.population.vmap:
        return True
    kinds = schema.ForwardSpec | schema.ForwardGradientSpec
    return any(isinstance(phase.estimator, kinds) for phase in phases_of(outer))


def faults(devices: Wanted, model: LanguageModel, elsewhere: bool = False) -> Iterator[Fault]:
    """A fault for a mesh that isn't there, and for each axis that doesn't divide what it cuts.

    Args:
        devices: the recipe's section.
        model: the language model.
        elsewhere: whether this process needn't have the devices.
    """
    if devices == "auto":
        return
    here, value = jax.device_count(), asdict(devices)
    if devices.count > here and not elsewhere:
        kind = jax.local_devices()[0].platform
        problem = f"asks for {devices.count} devices; this process has {here} ({kind})"
        yield Fault(PATH, value, problem, "lower an axis, or leave it out for what there is")
    for axis, name, size in _cut(model):
        parts = getattr(devices, axis)
        if parts > 0 and size % parts:
            more = -(-size // parts) * parts
            problem = f"doesn't divide the model's {name}, {size}"
            cure = f"choose a divisor of it, or a model with {more}"
            yield Fault(f"{PATH}.{axis}", parts, problem, cure)


def _cut(model: LanguageModel) -> Iterable[tuple[str, str, int]]:
    """What is cut over an axis of the mesh, its name in a config, and its size."""
    config = model.config
    return (
        ("fsdp", "hidden_size", config.hidden_size),
        ("tensor", "num_attention_heads", config.num_attention_heads),
        ("tensor", "num_key_value_heads", config.num_key_value_heads),
        ("tensor", "intermediate_size", config.intermediate_size),
        ("tensor", "vocab_size", config.vocab_size),
        *(
            [("tensor", "moe_intermediate_size", config.experts.intermediate_size)]
            if config.experts and config.dense
            else []
        ),
    )


def kept_in_place(optimizer: InnerOptimizer, layout: Layout | None) -> InnerOptimizer:
    """An optimizer whose states stay where they rest, step by step, and so their derivatives.

    Args:
        optimizer: any.
        layout: how states lie; None for one device.
    """
    if layout is None:
        return optimizer

    def update(
        grads: Params, opt_state: OptState, params: Params, hyper: Hyper
    ) -> tuple[Params, OptState]:
        params, opt_state = optimizer.update(grads, opt_state, params, hyper)
        return layout.kept(params, params), layout.kept(opt_state, params)

    return optimizer._replace(update=update)


def started_in_place(
    hook: Callable[[Slices, State], State] | None, layout: Layout | None
) -> Callable[[Slices, State], State] | None:
    """The start of a problem, as of `initialisation.hook`, likewise."""
    if hook is None or layout is None:
        return hook

    def start(hook: Callable[[Slices, State], State], eta: Slices, state: State) -> State:
        begun = hook(eta, state)
        return State(*layout.kept(begun, begun.params))

    return Partial(start, hook)
