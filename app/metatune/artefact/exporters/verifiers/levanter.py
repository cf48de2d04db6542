"""Of metatune_levanter.py, by Levanter's own registry and names: every rate and weight decay."""

from importlib import import_module
from pathlib import Path
from typing import Any

from metatune.artefact.exporters.verifiers.expected import Expected


def verify(expected: Expected, folder: Path) -> list[str]:
    """The rate of each parameter at the updates of `expected`, from what one moves by."""
    import jax
    import jax.numpy as jnp

    import_module("metatune_levanter")
    registry: Any = import_module("levanter.optim").OptimizerConfig
    optimizer = registry.get_choice_class("tuned")().build(expected.total)
    params = {name: jnp.ones(2) for name in expected.rates}
    # Of several side by side each takes another step.
    if expected.optimizer["kind"] != "adamw":
        optimizer.init(params)
        return [f"names of {len(params)} parameters, by Levanter's registry"]
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(expected.total):
        # Of gradients that stay the direction of Adam is 1.
        updates, state = update(params, state, params)
        for name, moved in updates.items() if step in expected.at else ():
            rate = float(-moved[0]) / (1 + expected.decay(name))
            expected.agree_on_rate(name, step, rate, tolerance=1e-4)  # of float32, and of eps
    return [expected.compared("rates and weight decay, by Levanter's registry,")]
