"""Numbers of the inner optimizer: weight decay, decays of moments, eps and clipping, by window.

Each is a tunable by itself, whose key is its name, so that it has a slice of η and windows of its
own. All move multiplicatively from what the recipe says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from metatune.artefact.sections import optimizer as sections
from metatune.hypergrad.shapes import Scalar, StepLike
from metatune.recipe import schema
from metatune.recipe.faults import Fault, RecipeError
from metatune.tunables import optimizer_groups
from metatune.tunables.groups import Groups, group
from metatune.tunables.hyper import Hyper, Rates, Setting, Tunable
from metatune.tunables.shapes import Slices
from metatune.tunables.used import Used
from metatune.tunables.windows import window_of

PATH: Final = "tune.optimizer"
DECAYS: Final = "inner.optimizer.decay"


def multiplied(start: float, logs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`start exp η`: positive."""
    return start * jnp.exp(logs)


def remembered(start: float, logs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """β whose odds `β / (1 - β)` are those of `start` times exp η: between 0 and 1.

    >>> round(float(remembered(0.9, jnp.log(11.0))), 4)
    0.99
    """
    # So written that it is `start` exactly where η is zero.
    return start * jnp.exp(logs) / (1 + start * jnp.expm1(logs))


FORMS: Final[Mapping[str, Callable[[float, Float[Array, "..."]], Float[Array, "..."]]]] = {
    "weight_decay": multiplied,
    "momentum": remembered,
    "b1": remembered,
    "b2": remembered,
    "eps": multiplied,
    "clip_norm": multiplied,
}


@dataclass(frozen=True, eq=False)
class OptimizerField:
    """A number of the optimizer, `FORMS[key](start, η[window of t])`.

    Attributes:
        key: its name.
        start: what the recipe says.
        groups: parameters that share it, of those that have it; None where all have one.
        windows: how many windows.
        steps: horizon of the inner training.
        starts: a further factor of each parameter's, a tree like the parameters, None where they
            don't have it; None for none.
    """

    key: str
    start: float
    groups: Groups | None
    windows: int
    steps: int
    starts: PyTree[float] | None = None

    def initial(self) -> Float[Array, "{self.windows} groups"]:
        """Zeros; one group where all parameters have one number."""
        count = 1 if self.groups is None else len(self.groups.labels)
        return jnp.zeros((self.windows, count), jnp.float32)

    def apply(
        self, eta: Float[Array, "{self.windows} groups"], step: StepLike, hyper: Hyper
    ) -> Hyper:
        """Sets this number, of each parameter by itself where it has groups."""
        logs = eta[window_of(step, self.windows, self.steps)]
        form = FORMS[self.key]
        if self.groups is None:
            value = form(self.start, logs[0])
        else:
            # Parameters of no group have index -1: the last entry, which leaves what it was.
            value = _spread(form(self.start, jnp.append(logs, 0.0)), self.groups, hyper)
        if self.starts is not None:
            value = jax.tree.map(lambda own, factor: own * factor, self.starts, value)
        return hyper._replace(optimizer={**(hyper.optimizer or {}), self.key: value})

    def penalty(self, eta: Float[Array, "{self.windows} groups"]) -> Scalar:
        """None."""
        return jnp.zeros((), eta.dtype)


@dataclass(frozen=True, eq=False)
class GroupedField:
    """A number of optimizers side by side, of each by itself: `FORMS[key](start, η[window of t])`.

    Attributes:
        key: its name.
        starts: what the recipe says by its name in each of them, `groups[0].b1`.
        windows: how many windows.
        steps: horizon of the inner training.
    """

    key: str
    starts: Mapping[str, float]
    windows: int
    steps: int

    def initial(self) -> Float[Array, "{self.windows} optimizers"]:
        """Zeros."""
        return jnp.zeros((self.windows, len(self.starts)), jnp.float32)

    def apply(
        self, eta: Float[Array, "{self.windows} optimizers"], step: StepLike, hyper: Hyper
    ) -> Hyper:
        """Sets this number of each of them."""
        logs = eta[window_of(step, self.windows, self.steps)]
        form = FORMS[self.key]
        found = {
            name: form(start, logs[at]) for at, (name, start) in enumerate(self.starts.items())
        }
        return hyper._replace(optimizer={**(hyper.optimizer or {}), **found})

    def penalty(self, eta: Float[Array, "{self.windows} optimizers"]) -> Scalar:
        """None."""
        return jnp.zeros((), eta.dtype)


def _spread(values: Float[Array, "{groups.size+1}"], groups: Groups, hyper: Hyper) -> Rates:
    """The value of each parameter's group, with the parameter's rank; None where it has none."""

    def of(
        index: Int[np.ndarray | np.generic, "..."] | None, rate: Float[Array, "..."]
    ) -> Float[Array, "..."] | None:
        if index is None:
            return None
        chosen = values[index]
        return chosen.reshape(chosen.shape + (1,) * (rate.ndim - chosen.ndim))

    return jax.tree.map(of, groups.index, hyper.learning_rate, is_leaf=lambda node: node is None)


def build(
    spec: schema.OptimizerFieldsSpec, setting: Setting
) -> tuple[OptimizerField | GroupedField, ...]:
    """The tunables of a recipe's `tune.optimizer`; none before the optimizer is known.

    Raises:
        RecipeError: no parameter decays, or a regular expression matches none that does.
    """
    if setting.optimizer is None:
        return ()
    entries = schema.TuneSpec(optimizer=spec).entries()
    return tuple(_field(key, settings, setting) for key, _, settings in entries)


def _field(
    key: str, settings: schema.TunedFieldSpec | schema.WeightDecaySpec, setting: Setting
) -> OptimizerField | GroupedField:
    optimizer, groups, starts = setting.optimizer, None, None
    side_by_side = isinstance(optimizer, schema.GroupsSpec)
    if isinstance(settings, schema.WeightDecaySpec):
        if not jax.tree.leaves(setting.decaying):
            problem, cure = "no parameter decays", f"take it out, or set {DECAYS}: all"
            raise RecipeError("tune", [Fault(f"{PATH}.{key}", settings.per, problem, cure)])
        groups = group(setting.decaying, settings.per, f"{PATH}.{key}.per")
    if side_by_side and groups is not None:
        starts = optimizer_groups.per_leaf(optimizer, setting.names, key)
        starts = jax.tree.map(
            lambda leaf, own: None if leaf is None else own,
            setting.decaying,
            starts,
            is_leaf=lambda node: node is None,
        )
        return OptimizerField(key, 1.0, groups, settings.windows, setting.steps, starts)
    if side_by_side and key != "clip_norm":
        own = optimizer_groups.starts(optimizer, setting.names, setting.shapes, key)
        if not own:
            problem = f"no parameter of {optimizer_groups.PATH} follows a {key} above 0"
            fault = Fault(f"{PATH}.{key}", asdict(settings), problem, "take it out")
            raise RecipeError("tune", [fault])
        return GroupedField(key, own, settings.windows, setting.steps)
    start = getattr(optimizer, key)
    return OptimizerField(key, start, groups, settings.windows, setting.steps)


def section(tunables: Sequence[Tunable], eta: Slices, used: Used) -> sections.Optimizer:
    """The optimizer, and what was tuned of it as every step used it."""
    settings = _settings(used.optimizer)
    if isinstance(used.optimizer, schema.GroupsSpec):
        groups = zip(used.optimizer.groups, used.members, strict=True)
        settings["groups"] = [
            {"match": each.match, **_settings(each.alone), **members} for each, members in groups
        ]
        for each in settings["groups"]:
            del each["clip_norm"]  # of all together
    return sections.Optimizer(settings, used.decayed, _schedules(used))


def _settings(optimizer: schema.InnerOptimizerSpec) -> dict[str, Any]:  # plain JSON values
    """The numbers of an optimizer that an artefact holds."""
    return {
        key: value
        for key, value in asdict(optimizer).items()
        if key not in ("learning_rate", "schedule", "decay")
    }


def _schedules(used: Used) -> sections.OptimizerSchedules | None:
    numbers = used.trajectory.optimizer
    if not numbers:
        return None
    values = {key: curve for key, curve in numbers.items() if not isinstance(curve, Mapping)}
    found = numbers.get("weight_decay")
    decay = found if isinstance(found, Mapping) else {}
    kept, schedule = used.scheduled([*values.values(), *decay.values()])
    return sections.OptimizerSchedules(
        values={name: curve[kept] for name, curve in values.items()},
        weight_decay={name: curve[kept] for name, curve in decay.items()} or None,
        **schedule,
    )
