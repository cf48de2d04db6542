"""The tuned optimizer for Levanter's configuration, as `optimizer: {type: tuned}`.

    python metatune_levanter.py --config_path config.yaml

trains by `levanter.main.train_lm`; a training of your own imports this module before it reads its
configuration.
"""

import difflib
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from levanter.optim import OptimizerConfig  # pyright: ignore[reportMissingImports]
from levanter.utils.jax_utils import leaf_key_paths  # pyright: ignore[reportMissingImports]

TUNED = Path(__file__).with_name("tuned.json")

STEP_TOLERANCE = 1e-6  # of a step: a knot k/T times a total T may miss k by rounding
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
    """

    rates: np.ndarray
    decay: Any


def optimizer(total_steps: int, *, path: Path = TUNED) -> optax.GradientTransformation:
    """Clipping, moments, weight decay, and the rate of each parameter at each update.

    Args:
        total_steps: updates of the training.
        path: the tuned.json.

    Raises:
        ValueError: a total below 1, or rates of another optimizer; from its `init`, a parameter
            of the model without a curve, or a curve without a parameter.
    """
    settings = _read(path)["optimizer"]
    if total_steps < 1:
        raise ValueError(f"total_steps {total_steps}: must be 1 or above")
    if settings["kind"] not in ("adamw", "sgd"):
        raise ValueError(f"{path}: holds rates of {settings['kind']}, not of adamw or sgd")

    def add_decay(updates: Any, params: Any) -> Any:
        return _by_leaf(lambda u, p, own: u + _wide(own.decay, p) * p, path, updates, params)

    decay = optax.stateless(add_decay)
    parts = [] if (norm := settings["clip_norm"]) is None else [optax.clip_by_global_norm(norm)]
    if settings["kind"] == "adamw":
        moments = {key: settings[key] for key in ("b1", "b2", "eps", "eps_root")}
        parts += [optax.scale_by_adam(**moments), decay]
    else:
        parts += [decay, optax.trace(settings["momentum"], nesterov=settings["nesterov"])]
    # Levanter gives the loss as well.
    return optax.with_extra_args_support(optax.chain(*parts, _by_rate(total_steps, path)))


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
    numbers = _numbers(tuple(names), tuple(leaf.shape for leaf in leaves), path)
    columns = [leaves, *map(jax.tree.leaves, more), numbers]
    return jax.tree.unflatten(structure, [function(*row) for row in zip(*columns, strict=True)])


@functools.cache
def _numbers(
    names: Sequence[str], shapes: Sequence[tuple[int, ...]], path: Path
) -> tuple[Numbers, ...]:
    """The numbers of each leaf.

    Levanter names parameters as their Hugging Face checkpoint does; those of stacked layers, which
    are one array, have the name without the layer's number.

    Raises:
        ValueError: a leaf without a curve, a curve without a leaf, or another number of layers.
    """
    tuned = _read(path)
    curves, settings = tuned["learning_rates"]["parameters"], tuned["optimizer"]
    stacks: dict[str, dict[int, str]] = {}
    for name in curves:
        if number := NUMBER.search(name):
            stacks.setdefault(NUMBER.sub("", name, count=1), {})[int(number[1])] = name
    decayed, found, lines, used = set(settings["decayed"]), [], [], set()
    for name, shape in zip(names, shapes, strict=True):
        own = [name] if name in curves else _layers(stacks.get(name, {}))
        used.update(own)
        if not own:
            near = difflib.get_close_matches(name, [*curves, *stacks], n=1)
            lines.append(f"{name} has no curve in {path}" + (f"; {near[0]}?" if near else ""))
        elif name not in curves and shape[:1] != (len(own),):
            lines.append(f"{name}: {len(own)} layers in {path}, but the model's is {list(shape)}")
        else:
            rates = np.array([curves[each] for each in own])
            decays = np.array([settings["weight_decay"] * (each in decayed) for each in own])
            whole = name in curves
            found.append(Numbers(rates[0], decays[0]) if whole else Numbers(rates, decays))
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
