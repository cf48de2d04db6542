"""The tuned optimizer for Levanter's configuration, as `optimizer: {type: tuned}`.

    python metatune_levanter.py --config_path config.yaml

trains by `levanter.main.train_lm`; a training of your own imports this module before it reads its
configuration.
"""

import difflib
import functools
import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from haliax.nn import Linear  # pyright: ignore[reportMissingImports]
from levanter.optim import OptimizerConfig  # pyright: ignore[reportMissingImports]
from levanter.utils.jax_utils import leaf_key_paths  # pyright: ignore[reportMissingImports]

TUNED = Path(__file__).with_name("tuned.json")

STEP_TOLERANCE = 1e-6  # of a step: a knot k/T times a total T may miss k by rounding
KINDS = ("adamw", "sgd", "adamh", "muon", "muonh")
MUON = ("muon", "muonh")  # of matrices; of all else Adam
NUMBER = re.compile(r"(?<=\.)(\d+)\.")  # of a layer, in the name of a parameter


@OptimizerConfig.register_subclass("tuned")
@dataclass(frozen=True)
class TunedConfig(OptimizerConfig):
    """The tuned optimizer; the fields of `OptimizerConfig` have no effect."""

    def build(self, num_train_steps: int) -> optax.GradientTransformation:
        """The optimizer over the updates of the training."""
        return optimizer(num_train_steps)


class Numbers(NamedTuple):
    """What a leaf of the model has: one of each, or one for each of its stacked layers.

    Attributes:
        rates: at the knots, absolute, [knots] or [layers, knots].
        decay: weight decay, a number or [layers].
        optimizer: the number of its optimizer, of several side by side.
        turned: whether it keeps its norm.
        orthogonal: whether its momentum is made orthogonal.
        stacked: whether it is that of all layers.
    """

    rates: np.ndarray
    decay: Any
    optimizer: int
    turned: bool
    orthogonal: bool
    stacked: bool


def optimizer(total_steps: int, *, path: Path = TUNED) -> optax.GradientTransformation:
    """Clipping, moments, weight decay, and the rate of each parameter at each update.

    Args:
        total_steps: updates of the training.
        path: the tuned.json.

    Raises:
        ValueError: a total below 1, or rates of another optimizer; from its `init`, a parameter
            of the model without a curve, a curve without a parameter, or one whose momentum is
            made orthogonal and that is no linear layer.
    """
    settings = _read(path)["optimizer"]
    if total_steps < 1:
        raise ValueError(f"total_steps {total_steps}: must be 1 or above")
    each = settings.get("groups", [settings])
    kinds = [own["kind"] for own in each]
    if other := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"{path}: holds rates of {other[0]}, none of {', '.join(KINDS)}")

    def decay(*of: str) -> optax.GradientTransformation:
        def add(updates: Any, params: Any) -> Any:
            def decayed(u: Any, p: Any, own: Numbers) -> Any:
                return u + _wide(own.decay, p) * p if kinds[own.optimizer] in of else u

            return _by_leaf(decayed, path, updates, params)

        return optax.stateless(add)

    norm, parts = settings["clip_norm"], [decay("sgd")]  # that of SGD goes into its momentum
    if norm is not None:
        parts.insert(0, optax.clip_by_global_norm(norm))
    moments: dict[Hashable, Any] = {2 * at: _moments(own) for at, own in enumerate(each)}
    moments |= {2 * at + 1: _orthogonal(own) for at, own in enumerate(each) if own["kind"] in MUON}
    if len(moments) == 1:
        parts.append(moments[0])
    else:
        labels = functools.partial(
            _by_leaf, lambda leaf, own: 2 * own.optimizer + own.orthogonal, path
        )
        parts.append(optax.partition(moments, labels))
    parts += [decay("adamw", "adamh", "muon", "muonh"), _by_rate(total_steps, path)]
    if {"adamh", "muonh"} & set(kinds):
        parts = [*parts[:-1], _as_long(path), parts[-1], _turned(path)]
    # Levanter gives the loss as well.
    return optax.with_extra_args_support(optax.chain(*parts))


def _moments(settings: Mapping[str, Any]) -> optax.GradientTransformation:
    if settings["kind"] == "sgd":
        return optax.trace(settings["momentum"], nesterov=settings["nesterov"])
    return optax.scale_by_adam(**{key: settings[key] for key in ("b1", "b2", "eps", "eps_root")})


def _orthogonal(settings: Mapping[str, Any]) -> optax.GradientTransformation:
    """Muon's direction of matrices; MuonH's is as long as the matrix, whatever comes of this."""
    muonh = settings["kind"] == "muonh"
    direction = optax.contrib.scale_by_muon(
        ns_steps=settings["newton_schulz_steps"],
        beta=0.0 if muonh else settings["momentum"],
        eps=settings["eps"],
        nesterov=settings["nesterov"] and not muonh,
        weight_dimension_numbers=_axes,
    )
    if muonh:
        momentum = optax.trace(settings["momentum"], nesterov=settings["nesterov"])
        return optax.chain(momentum, direction)

    def scale(updates: Any, params: Any = None) -> Any:
        def scaled(update: Any, axes: Any) -> Any:
            inputs = math.prod(update.shape[at] for at in axes.reduction_axis)
            outputs = math.prod(update.shape[at] for at in axes.output_axis)
            return max(1.0, outputs / inputs) ** 0.5 * update

        return jax.tree.map(scaled, updates, _axes(updates))

    return optax.chain(direction, optax.stateless(scale))


def _axes(tree: Any) -> Any:
    """Inputs and outputs of each matrix of a tree that has no other leaves."""
    return jax.tree.unflatten(jax.tree.structure(tree), _layouts(tree))


def _layouts(tree: Any) -> list[optax.contrib.MuonDimensionNumbers | None]:
    """Of each leaf, which axes are the inputs and the outputs of its linear layer.

    Levanter has several of each, those of heads and their size say: together they are the matrix of
    the checkpoint. Others are those of stacked layers. None for what isn't a linear layer's matrix.
    """
    found = []
    for module in jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Linear)):
        if not isinstance(module, Linear):
            found.append(None)
            continue
        for part in jax.tree.leaves(module, is_leaf=lambda node, own=module: node is own.weight):
            if part is not module.weight:
                found.append(None)
            elif jax.tree.leaves(part):  # none where it is of another optimizer
                found.append(_layout(module))
    return found


def _layout(layer: Any) -> optax.contrib.MuonDimensionNumbers:
    names = [axis.name for axis in layer.weight.axes]

    def places(axes: Any) -> tuple[int, ...]:
        several = (axes,) if hasattr(axes, "name") else axes
        return tuple(names.index(axis.name) for axis in several)

    return optax.contrib.MuonDimensionNumbers(places(layer.In), places(layer.Out))


def _as_long(path: Path) -> optax.GradientTransformation:
    """Directions of what keeps its norm as long as the parameter: the rate is how far it turns."""

    def scale(update: Any, param: Any, own: Numbers) -> Any:
        if not own.turned:
            return update
        length = _norm(update, own)
        return update * _norm(param, own) / jnp.where(length > 0, length, 1)

    return optax.stateless(lambda updates, params: _by_leaf(scale, path, updates, params))


def _turned(path: Path) -> optax.GradientTransformation:
    """Updates of what keeps its norm, back onto the sphere."""

    def turn(update: Any, param: Any, own: Numbers) -> Any:
        if not own.turned:
            return update
        moved = param + update
        length = _norm(moved, own)
        return moved * _norm(param, own) / jnp.where(length > 0, length, 1) - param

    return optax.stateless(lambda updates, params: _by_leaf(turn, path, updates, params))


def _norm(leaf: Any, own: Numbers) -> Any:
    """That of each layer by itself, of all axes that Levanter has of a matrix."""
    axes = tuple(range(own.stacked, leaf.ndim))
    return jnp.sqrt(jnp.sum(jnp.square(leaf), axis=axes, keepdims=True))


def _by_rate(total_steps: int, path: Path) -> optax.GradientTransformation:
    """Multiplies by minus the rate of each parameter."""
    rates = _read(path)["learning_rates"]
    knots = np.asarray(rates["knots"]) * total_steps
    starts = np.ceil(knots - STEP_TOLERANCE).astype(np.int32)  # in whole steps: float32 is rough
    spans = np.append(np.diff(knots), 1.0)

    def init(params: Any) -> Any:
        _by_leaf(lambda p, own: None, path, params)  # refuses what doesn't match
        return jnp.zeros([], jnp.int32)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        before = jnp.searchsorted(jnp.asarray(starts), state, side="right") - 1
        after, along = jnp.minimum(before + 1, len(knots) - 1), 0.0
        if rates["interpolation"] == "linear":
            past = jnp.maximum(state - jnp.asarray(knots)[before], 0.0)
            along = jnp.where(after > before, past / jnp.asarray(spans)[before], 0.0)

        def scaled(update: Any, own: Numbers) -> Any:
            curve = jnp.asarray(own.rates, update.dtype)
            rate = (1 - along) * curve[..., before] + along * curve[..., after]
            return -_wide(rate, update) * update

        return _by_leaf(scaled, path, updates), optax.safe_increment(state)

    return optax.GradientTransformation(init, update)


def _wide(number: Any, leaf: Any) -> Any:
    """A number for each stacked layer, shaped to multiply the leaf; others as they are."""
    number = jnp.asarray(number, leaf.dtype)
    return number.reshape(number.shape + (1,) * (leaf.ndim - 1)) if number.ndim else number


def _by_leaf(function: Any, path: Path, tree: Any, *more: Any) -> Any:
    """Maps over the arrays of trees, each with its numbers."""
    leaves, structure = jax.tree.flatten(tree)
    names = jax.tree.leaves(leaf_key_paths(tree, use_state_dict_keys=True))
    matrices = tuple(layout is not None for layout in _layouts(tree))
    numbers = _numbers(tuple(names), tuple(leaf.shape for leaf in leaves), matrices, path)
    columns = [leaves, *map(jax.tree.leaves, more), numbers]
    return jax.tree.unflatten(structure, [function(*row) for row in zip(*columns, strict=True)])


@functools.cache
def _numbers(
    names: Sequence[str], shapes: Sequence[tuple[int, ...]], matrices: Sequence[bool], path: Path
) -> tuple[Numbers, ...]:
    """The numbers of each leaf.

    Levanter names parameters as their Hugging Face checkpoint does; those of stacked layers, which
    are one array, have the name without the layer's number.

    Raises:
        ValueError: a leaf without a curve, a curve without a leaf, another number of layers, or
            what is no linear layer's matrix and has a momentum that is made orthogonal.
    """
    tuned = _read(path)
    curves, settings = tuned["learning_rates"]["parameters"], tuned["optimizer"]
    stacks: dict[str, dict[int, str]] = {}
    for name in curves:
        if number := NUMBER.search(name):
            stacks.setdefault(NUMBER.sub("", name, count=1), {})[int(number[1])] = name
    groups = settings.get("groups", ())
    of = {name: at for at, group in enumerate(groups) for name in group["parameters"]}
    turned, orthogonal = (
        {name for group in groups for name in group.get(key, ())}
        for key in ("turned", "orthogonal")
    )
    decayed, found, lines, used = set(settings["decayed"]), [], [], set()
    for name, shape, is_matrix in zip(names, shapes, matrices, strict=True):
        own = [name] if name in curves else _layers(stacks.get(name, {}))
        used.update(own)
        if not own:
            near = difflib.get_close_matches(name, [*curves, *stacks], n=1)
            lines.append(f"{name} has no curve in {path}" + (f"; {near[0]}?" if near else ""))
        elif name not in curves and shape[:1] != (len(own),):
            lines.append(f"{name}: {len(own)} layers in {path}, but the model's is {list(shape)}")
        else:
            rates = np.array([curves[each] for each in own])
            place, whole = of.get(own[0], 0), name in curves
            decay = (groups[place] if groups else settings)["weight_decay"]
            decays = np.array([decay * (each in decayed) for each in own])
            turns, made_so = own[0] in turned, own[0] in orthogonal
            wide = len(shape) - (not whole) >= 2 and own[0].endswith(".weight")  # no bias of heads
            of_block = wide and bool(NUMBER.search(own[0]))
            if settings["kind"] in ("adamh", "muonh"):
                turns = of_block or (wide and "lm_head" in own[0].split("."))
            if settings["kind"] in MUON:
                made_so = of_block
            if made_so and not is_matrix:
                lines.append(f"{name}: Muon needs a linear layer, and it is none in the model")
            numbers = (rates[0], decays[0]) if whole else (rates, decays)
            found.append(Numbers(*numbers, place, turns, made_so, not whole))
    lines += [
        f"{name} of {path} is no parameter of the model" for name in curves if name not in used
    ]
    if lines:
        raise ValueError("\n".join([f"{len(lines)} faults:", *(f"  {line}" for line in lines)]))
    return tuple(found)


def _layers(names: Mapping[int, str]) -> list[str]:
    """The names of layers 0, 1 and so on; none where one is missing."""
    return [names[i] for i in range(len(names))] if set(names) == set(range(len(names))) else []


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    import levanter.config  # pyright: ignore[reportMissingImports]
    from levanter.main import train_lm  # pyright: ignore[reportMissingImports]

    levanter.config.main(train_lm.main)()
