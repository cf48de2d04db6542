"""SOAP against the equations of the authors' code, in NumPy, and its bases against differences.

Theirs is nikhilvyas/SOAP, soap.py, as of commit a1e5535.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.hypergrad import Forward, MixFlow, Problem, State, hypergradient, train
from metatune.inner import eigenbases, optimizers
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables import Hyper

STEPS, B1, B2, EPS, DECAY, EVERY, ROOT = 50, 0.9, 0.95, 1e-3, 0.1, 5, 1e-60
LAYERS = tuple(f"layers.{layer}" for layer in range(2))


def stacked(name):
    return ParameterNames(tuple(f"{layer}.{name}" for layer in LAYERS), stacked=True)


NAMES = {
    "embed": ParameterNames(("embed.weight",), stacked=False),
    "layers": {each: stacked(f"{each}.weight") for each in ("tall", "flat", "long", "norm")},
}
SHAPES = {
    "embed": (7, 4),
    "layers": {"tall": (2, 5, 3), "flat": (2, 3, 4), "long": (2, 8, 4), "norm": (2, 4)},
}
RATES = {"embed": 0.01, "layers": {"tall": 0.02, "flat": 0.03, "long": 0.04, "norm": 0.05}}
SPEC = schema.SoapSpec(
    1.0,
    b1=B1,
    b2=B2,
    eps=EPS,
    eps_root=ROOT,
    weight_decay=DECAY,
    precondition_frequency=EVERY,
    max_precond_dim=6,  # one side of `long` isn't rotated
    clip_norm=None,
)


def drawn(seed) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.normal(size=shape), SHAPES, is_leaf=lambda node: isinstance(node, tuple)
    )


class ByHand:
    """One tensor of one layer, as the authors train it: moments kept in the bases and turned."""

    def __init__(self, w, sides, bases):
        self.w, self.sides, self.q = w, sides, bases
        self.m, self.v, self.t = np.zeros_like(w), np.zeros_like(w), 0
        self.gathered = [np.zeros((size, size)) for size in w.shape]

    def along(self, x, transposed):
        for axis in self.sides:
            q = self.q[axis] if transposed else self.q[axis].T
            x = np.moveaxis(np.tensordot(q, x, axes=(1, axis)), 0, axis)
        return x

    def gather(self, g):
        for axis in self.sides:
            own = np.moveaxis(g, axis, 0).reshape(g.shape[axis], -1)
            self.gathered[axis] = B2 * self.gathered[axis] + (1 - B2) * own @ own.T

    def first(self, g):
        self.gather(g)
        for axis in self.sides:
            # An eigenbasis, columns by falling eigenvalue: where it is any, that which was taken.
            q, of = self.q[axis], self.gathered[axis]
            values = np.sort(np.linalg.eigvalsh(of))[::-1]
            np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-12)
            np.testing.assert_allclose(q.T @ of @ q, np.diag(values), atol=1e-12 * values[0])

    def step(self, g, rate, decays):
        self.t += 1
        turned = self.along(g, False)
        self.m = B1 * self.m + (1 - B1) * turned
        self.v = B2 * self.v + (1 - B2) * turned**2
        size = rate * np.sqrt(1 - B2**self.t) / (1 - B1**self.t)
        moved = self.along(self.m / (np.sqrt(self.v) + EPS), True)
        self.w = self.w - size * moved - rate * decays * DECAY * self.w
        self.m = self.along(self.m, True)
        self.gather(g)
        if self.t % EVERY == 0:
            for axis in self.sides:
                q, of = self.q[axis], self.gathered[axis]
                order = np.argsort(-np.diag(q.T @ of @ q))
                self.v = np.take(self.v, order, axis)
                self.q[axis] = np.linalg.qr(of @ q[:, order])[0]
        self.m = self.along(self.m, False)


def at(tree, key):
    for part in key:
        tree = tree[part]
    return tree


def test_it_is_that_of_the_authors(float64):
    start, gradients = drawn(0), [drawn(seed) for seed in range(1, STEPS + 1)]
    built = optimizers.build(SPEC, NAMES)
    params = jax.tree.map(jnp.asarray, start)
    rates = jax.tree.map(lambda rate, p: jnp.full((1,) * p.ndim, rate), RATES, params)
    state, update = built.init(params), jax.jit(built.update)
    seen, found = [], []
    for gradient in gradients:
        hyper = Hyper(rates, jnp.ones(1), jnp.ones(1))
        params, state = update(jax.tree.map(jnp.asarray, gradient), state, params, hyper)
        seen.append(jax.tree.map(np.asarray, params))
        found.append(jax.tree.map(np.asarray, state[1].tensors))
    for key, sides, decays in (
        (("embed",), (), True),
        (("layers", "tall"), (0, 1), True),
        (("layers", "flat"), (0, 1), True),
        (("layers", "long"), (1,), True),
        (("layers", "norm"), (), False),
    ):
        bases = at(found[0], key).bases
        for layer in (0, 1) if "layers" in key else (...,):
            q = [None if each is None else each[layer] for each in bases]
            one = ByHand(at(start, key)[layer], sides, q)
            one.first(at(gradients[0], key)[layer])
            np.testing.assert_array_equal(at(seen[0], key)[layer], one.w)
            for gradient, now in zip(gradients[1:], seen[1:], strict=True):
                one.step(at(gradient, key)[layer], at(RATES, key), decays)
                np.testing.assert_allclose(
                    at(now, key)[layer], one.w, rtol=1e-10, atol=1e-12, err_msg=str(key)
                )


def weighted_problem(rows):
    """A matrix that maps inputs to outputs, and weights of the data from the first gradient on.

    Args:
        rows: of a batch; fewer than either side of the matrix leave directions without a gradient.
    """
    names = {"layers": {"up": stacked("up.weight")}}
    spec = schema.SoapSpec(1.0, precondition_frequency=3, eps=1e-2)
    inner = optimizers.build(spec, names)
    rng = np.random.default_rng(7)
    data = rng.normal(size=(9, rows, 4 + 6))
    params = {"layers": {"up": jnp.asarray(0.3 * rng.normal(size=(2, 6, 4)))}}

    def loss(params, hyper, x):
        first, second = params["layers"]["up"]
        out = jnp.tanh(x[:, :4] @ first.T) + x[:, :4] @ second.T
        return jnp.mean(hyper.loss_weights[None, :] * (out - x[:, 4:]) ** 2)

    rates = {"layers": {"up": jnp.full((1, 1, 1), 0.05)}}
    flat = Hyper(rates, jnp.ones(1), jnp.ones(6))
    problem = Problem(
        loss,
        inner.update,
        lambda params, x: loss(params, flat, x),
        lambda eta, step: flat._replace(loss_weights=jnp.exp(eta["weights"])),
    )
    return problem, State(params, inner.init(params)), data


@pytest.mark.parametrize("rows", [8, 2])
def test_bases_that_depend_on_what_is_tuned_are_differentiated(float64, rows):
    problem, state, data = weighted_problem(rows)
    eta = {"weights": jnp.asarray(0.3 * np.random.default_rng(8).normal(size=6))}

    def batches(step):
        return data[step]

    def objective(eta):
        trained, _ = train(problem, eta, state, batches, steps=8, segment=4)
        return float(problem.objective(trained.params, data[8]))

    ways = [
        hypergradient(problem, eta, state, batches, [data[8]], steps=8, estimator=way).gradient
        for way in (MixFlow(segment=4), Forward(segment=4))
    ]
    np.testing.assert_allclose(ways[1]["weights"], ways[0]["weights"], rtol=1e-8, atol=1e-12)
    direction = np.random.default_rng(9).normal(size=6)
    above, below = (
        objective({"weights": eta["weights"] + sign * 1e-6 * direction}) for sign in (1, -1)
    )
    want = (above - below) / 2e-6
    assert float(ways[0]["weights"] @ direction) == pytest.approx(want, rel=1e-5)


def test_directions_without_a_gradient_keep_their_columns(float64):
    rng = np.random.default_rng(1)
    known = rng.normal(size=(2, 5, 2))
    gathered = jnp.asarray(known @ known.swapaxes(-1, -2))
    basis, _ = eigenbases.followed(gathered, eigenbases.eigenbasis(gathered))
    again, order = eigenbases.followed(gathered, basis)
    same = np.broadcast_to(np.eye(5), (2, 5, 5))
    np.testing.assert_allclose(jnp.abs(again.mT @ basis), same, atol=1e-9)
    np.testing.assert_array_equal(order, [np.arange(5)] * 2)
    none = eigenbases.eigenbasis(jnp.zeros((1, 3, 3)))
    np.testing.assert_allclose(none.mT @ none, np.eye(3)[None], atol=1e-12)


@pytest.mark.parametrize("decompose", [eigenbases.eigenbasis, lambda s: eigenbases.followed(s, s)])
@pytest.mark.parametrize(
    "derived", [lambda f: f, jax.jacfwd, jax.jacrev], ids=["itself", "forward", "back"]
)
def test_lapack_is_given_one_matrix_at_a_time(decompose, derived):
    """Of several at once, trainings stood still with jaxlib 0.10.2."""
    stacks = jax.ShapeDtypeStruct((3, 2, 5, 5), jnp.float32)  # of members of a population, too

    def bases(stack):
        found = decompose(stack)
        return found[0] if isinstance(found, tuple) else found

    text = jax.jit(jax.vmap(derived(bases))).lower(stacks).compile().as_text() or ""
    calls = [line for line in text.splitlines() if 'custom_call_target="lapack' in line]
    assert calls and all("[5,5]" in line and ",5,5]" not in line for line in calls)
