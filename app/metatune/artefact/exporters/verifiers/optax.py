"""Of metatune_schedules.py for Optax: the schedules, and updates by the optimizer."""

from importlib import import_module
from pathlib import Path

import jax.numpy as jnp
import optax

from metatune.artefact.exporters.verifiers.expected import Expected

FLOAT32 = 1e-6
"""Relative; what JAX rounds the rates by."""


def verify(expected: Expected, folder: Path) -> list[str]:
    """Rates at the updates of `expected`, three updates, and shares."""
    exported = import_module("metatune_schedules")
    matrices = expected.matrices
    params = {n: jnp.eye(2) if n in matrices else jnp.ones(2) for n in expected.rates}
    of, schedules = exported.labels(params), exported.schedules(expected.total)
    for step in expected.at:
        for name in expected.rates:
            expected.agree_on_rate(name, step, float(schedules[of[name]](step)), FLOAT32)
    optimizer = exported.optimizer(expected.total)
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    return [expected.compared("rates"), *expected.agree_on_shares(exported.mixture)]
