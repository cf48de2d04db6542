"""NorMuon against the equations of the authors' code, in NumPy.

Theirs is zichongli5/NorMuon, normuon.py, as of commit d45c9a4.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.inner import optimizers
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables import Hyper

STEPS, B1, B2, EPS, DECAY, MOMENTUM = 50, 0.9, 0.95, 1e-7, 0.1, 0.95
SHAPES = {"tall": (2, 6, 4), "flat": (2, 3, 5), "norm": (2, 4)}
RATES = {"tall": 0.02, "flat": 0.03, "norm": 0.05}
NAMES = {
    "layers": {
        each: ParameterNames((f"layers.0.{each}", f"layers.1.{each}"), stacked=True)
        for each in SHAPES
    }
}


def drawn(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def by_hand(w, gradients, rate, nesterov):
    """A matrix [outputs, inputs] after all updates."""
    momentum, second = np.zeros_like(w), np.zeros((len(w), 1))
    for g in gradients:
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * g
        u = (1 - MOMENTUM) * g + MOMENTUM * momentum if nesterov else momentum
        x = u.T if len(w) > w.shape[1] else u
        x = x / (np.linalg.norm(x) + EPS)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        o = x.T if len(w) > w.shape[1] else x
        second = B2 * second + (1 - B2) * np.mean(o**2, axis=1, keepdims=True)
        scaled = o / (np.sqrt(second) + 1e-10)
        scaled *= np.linalg.norm(o) / (np.linalg.norm(scaled) + 1e-10)
        scaled *= max(1, w.shape[0] / w.shape[1]) ** 0.5
        w = w * (1 - rate * DECAY) - rate * scaled
    return w


@pytest.mark.parametrize("transposed", [False, True])
def test_it_is_that_of_the_authors(float64, transposed):
    # The norm that ε is added to is of a trace of gradients here, 1 / (1 - momentum) as large.
    spec = schema.NorMuonSpec(
        1.0,
        momentum=MOMENTUM,
        nesterov=not transposed,
        weight_decay=DECAY,
        b1=B1,
        b2=B2,
        eps=EPS / (1 - MOMENTUM),
    )
    start, gradients = drawn(0), [drawn(seed) for seed in range(1, STEPS + 1)]
    built = optimizers.build(spec, NAMES, transposed)
    params = {"layers": jax.tree.map(jnp.asarray, start)}
    rates = {"layers": {name: jnp.full((1,) * start[name].ndim, RATES[name]) for name in SHAPES}}
    state, update = built.init(params), jax.jit(built.update)
    hyper = Hyper(rates, jnp.ones(1), jnp.ones(1))
    for gradient in gradients:
        params, state = update(
            {"layers": jax.tree.map(jnp.asarray, gradient)}, state, params, hyper
        )
    for name in ("tall", "flat"):
        for layer in range(2):
            turn = np.transpose if transposed else np.asarray
            own = [turn(g[name][layer]) for g in gradients]
            want = by_hand(turn(start[name][layer]), own, RATES[name], spec.nesterov)
            found = turn(params["layers"][name][layer])
            np.testing.assert_allclose(found, want, rtol=1e-10, atol=1e-11, err_msg=name)
    w, m, v = start["norm"], 0, 0
    for count, gradient in enumerate(gradients, start=1):
        m, v = B1 * m + (1 - B1) * gradient["norm"], B2 * v + (1 - B2) * gradient["norm"] ** 2
        scaled = (m / (1 - B1**count)) / (np.sqrt(v / (1 - B2**count) + 1e-12) + spec.eps)
        w = w - RATES["norm"] * scaled
    np.testing.assert_allclose(params["layers"]["norm"], w, rtol=1e-10)
