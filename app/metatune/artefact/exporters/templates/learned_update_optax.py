"""The tuned networks that correct an optimizer's direction, for Optax.

`metatune_schedules.optimizer` puts them in. For an optimizer of your own:

    from metatune_learned_update import corrected

    direction = optax.chain(clip, corrected(optax.scale_by_adam(), step / total_steps))

is the direction before the learning rate at update `step`: build it anew at each update, with a
`step` that may be traced. Its weights are in the tuned.safetensors beside tuned.json.

Source: Metz et al., 2022, arXiv 2203.11860, whose small network and features these are.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load_file

TUNED = Path(__file__).with_name("tuned.json")

TINY = 1e-30  # added to mean squares, for tensors of zeros


class CorrectedState(NamedTuple):
    """State of `corrected`: the inner one, decaying means of gradients and of their squares."""

    inner: Any
    momenta: tuple[Any, ...]
    second_moment: Any


def corrected(
    inner: optax.GradientTransformation, progress: Any, *, path: Path = TUNED
) -> optax.GradientTransformation:
    """`inner`, each element of whose updates is multiplied by what a network makes of it.

    Args:
        inner: gives the direction, before the learning rate; clip gradients before, not in it.
        progress: the fraction of training that is done at this update.
        path: the tuned.json.
    """
    form, networks = _read(path)

    def init(params: Any) -> CorrectedState:
        zeros = [jax.tree.map(jnp.zeros_like, params) for _ in (*form["decays"], None)]
        return CorrectedState(inner.init(params), tuple(zeros[1:]), zeros[0])

    def update(updates: Any, state: CorrectedState, params: Any = None) -> Any:
        directions, inner_state = inner.update(updates, state.inner, params)
        momenta = tuple(
            jax.tree.map(lambda m, g, decay=decay: decay * m + (1 - decay) * g, mean, updates)
            for decay, mean in zip(form["decays"], state.momenta, strict=True)
        )
        decay = form["second_moment_decay"]
        second = jax.tree.map(
            lambda v, g: decay * v + (1 - decay) * g**2, state.second_moment, updates
        )

        def correct(keys: Any, direction: Any, *arrays: Any) -> Any:
            network = networks.get(jax.tree_util.keystr(keys, simple=True, separator="."))
            if network is None:
                return direction
            return _tensor(form, network, jnp.asarray(progress), direction, *arrays)

        found = jax.tree_util.tree_map_with_path(
            correct, directions, updates, params, second, *momenta
        )
        return found, CorrectedState(inner_state, momenta, second)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _tensor(
    form: Mapping[str, Any],
    network: tuple[np.ndarray, ...],
    progress: jax.Array,
    direction: jax.Array,
    gradient: jax.Array,
    parameter: jax.Array,
    second_moment: jax.Array,
    *momenta: jax.Array,
) -> jax.Array:
    hidden_weights, bias, output_weights = network
    own = _normalised(direction)
    seen = [_normalised(signed) * own for signed in (gradient, *momenta, parameter)]
    seen += [own * own, second_moment / (jnp.mean(second_moment) + TINY)]
    features = jnp.stack([a * jax.lax.rsqrt(1 + a * a) for a in seen])
    of_elements, of_times = np.split(hidden_weights, [len(seen)])
    times = jnp.tanh(progress / np.asarray(form["time_scales"], np.float32) - 1)
    hidden = jnp.tensordot(of_elements, features, ((0,), (0,)))
    at_all = (bias + times @ of_times).reshape(-1, *(1,) * direction.ndim)
    output = jnp.tensordot(output_weights, jnp.tanh(hidden + at_all), ((0,), (0,)))
    most = float(np.log(form["max_multiplier"]))
    moved = direction * jnp.exp(most * jnp.tanh(output / most))
    if form["step_size"] == "learned":
        return moved
    return moved * jnp.sqrt(_mean_square(direction) / _mean_square(moved))


def _normalised(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(_mean_square(x))


def _mean_square(x: jax.Array) -> jax.Array:
    return jnp.mean(x * x) + TINY


@functools.cache
def _read(path: Path) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, ...]]]:
    """What stands in tuned.json, and the network of each parameter by name."""
    form = json.loads(path.read_text(encoding="utf-8")).get("learned_update")
    if form is None:
        raise ValueError(f"{path}: holds no learned update; tune it (`tune: learned_update`)")
    held = load_file(path.with_name("tuned.safetensors"))
    weights = [held[f"learned_update.{name}"] for name in ("hidden", "bias", "output")]
    networks = {
        name: tuple(each[group] for each in weights)
        for group, names in enumerate(form["groups"].values())
        for name in names
    }
    return form, networks
