"""What a run records of its trainings, so that the tuned ones can be done again and compared."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metatune.artefact import ArtefactError, Origin
from metatune.fit.process.machine import machine
from metatune.inner import InnerTraining
from metatune.recipe import writing
from metatune.recipe.faults import ABSENT, Fault

POINTS = 50
"""Inner steps at most whose training losses are recorded."""

CURE = "take the artefact anew from the run that wrote it"


def record(losses: np.ndarray, default: np.ndarray) -> dict[str, Any]:
    """The record of the trainings of the first test seed, on this machine.

    Args:
        losses: training losses of the tuned one, [steps].
        default: of that by the recipe's own meta-parameters, [steps]; no replay does it again.
    """
    steps = recorded_steps(len(losses))
    return {
        "machine": machine(),
        "training": {
            "seed": 0,
            "steps": steps,
            "losses": losses[steps].astype(np.float64).tolist(),
            "default_losses": default[steps].astype(np.float64).tolist(),
        },
    }


def recorded_steps(steps: int) -> list[int]:
    """Evenly spread steps of a training, the first and the last with them."""
    return np.unique(np.linspace(0, steps - 1, min(steps, POINTS)).round().astype(int)).tolist()


def origin(
    training: InnerTraining, eta: Mapping[str, Any], recorded: Mapping[str, Any] | None
) -> Origin:
    """What a training at meta-parameters can be done again from.

    Args:
        training: the inner training.
        eta: meta-parameters.
        recorded: of `record`; None where nothing was.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(eta)
    arrays = {_name(path): np.asarray(leaf) for path, leaf in leaves}
    return Origin(writing.to_yaml(training.recipe), arrays, recorded)


def meta_parameters(training: InnerTraining, held: Origin) -> dict[str, jax.Array]:
    """The meta-parameters of an origin, as its training takes them.

    Raises:
        ArtefactError: they aren't those of the recipe's tunables.
    """
    expected, structure = jax.tree_util.tree_flatten_with_path(training.initial_eta())
    faults, leaves = [], []
    for path, like in expected:
        name, found = _name(path), held.meta_parameters.get(_name(path))
        if found is None or (found.shape, found.dtype) != (like.shape, like.dtype):
            said = ABSENT if found is None else f"{found.dtype} {list(found.shape)}"
            problem = f"must be {like.dtype} {list(like.shape)}, as the recipe tunes it"
            faults.append(Fault(f"meta_parameters.{name}", said, problem, CURE))
        leaves.append(found)
    known = {_name(path) for path, _ in expected}
    for name in held.meta_parameters.keys() - known:
        faults.append(Fault("meta_parameters", name, "isn't tuned by the recipe", CURE))
    if faults:
        raise ArtefactError("replay", faults)
    return jax.tree_util.tree_unflatten(structure, [jnp.asarray(leaf) for leaf in leaves])


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
