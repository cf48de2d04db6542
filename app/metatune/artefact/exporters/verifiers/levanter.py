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
    # Of several side by side each takes another step.
    if expected.optimizer["kind"] != "adamw":
        optimizer.init(_model(expected))
        return [f"names of {len(expected.rates)} parameters, by Levanter's registry"]
    params = {name: jnp.ones(2) for name in expected.rates}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(expected.total):
        # Of gradients that stay the direction of Adam is 1.
        updates, state = update(params, state, params)
        for name, moved in updates.items() if step in expected.at else ():
            rate = float(-moved[0]) / (1 + expected.decay(name))
            expected.agree_on_rate(name, step, rate, tolerance=1e-4)  # of float32, and of eps
    return [expected.compared("rates and weight decay, by Levanter's registry,")]


def _model(expected: Expected) -> dict[str, Any]:
    """A parameter of each name; what Muon takes is a linear layer."""
    import jax
    import jax.numpy as jnp

    axis, linear = import_module("haliax").Axis, import_module("haliax.nn").Linear
    layer = linear.init(axis("in", 2), axis("out", 2), key=jax.random.key(0), use_bias=False)
    made = {n.removesuffix(".weight"): layer for n in expected.matrices}
    return {**{n: jnp.ones(2) for n in expected.rates if n not in expected.matrices}, **made}
