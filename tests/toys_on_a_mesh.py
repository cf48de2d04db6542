"""A matrix under Adam, in float64, by every estimator: on a mesh of eight devices and on one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from estimators import made

from metatune.hypergrad import (
    Forward,
    ForwardGradient,
    Member,
    MixFlow,
    PersistentES,
    Problem,
    State,
    ZerothOrder,
    hypergradient,
    hypergradients,
)
from metatune.models import Layout, mesh_of

# Steps of differences that don't blow rounding up.
TOYS = made(6, 2, leave_out=("zeroth",)) | {
    "zeroth order": ZerothOrder(6, 0.1, 2, "orthogonal", 2),
    "es": PersistentES(2, 0.1, 2),
    "population": MixFlow(2),
}
# Directions are filled up to eight, those of windows to those that act.
OVER_AN_AXIS = {
    "forward over an axis": Forward(2, chunk=4),
    "forward gradient over an axis": ForwardGradient(6, 2, "orthogonal"),
    "population over an axis": MixFlow(2),
    "forward of a population over an axis": Forward(2),
}


def toy(estimator, layout, members=1, listener=None):
    """Hypergradients in float64 of a matrix under Adam, on a mesh or on one device."""
    adam = optax.scale_by_adam(eps_root=1e-8)
    inputs = np.random.default_rng(0).normal(size=(7, 8, 4))

    def kept(params, like):
        return params if layout is None else layout.kept(params, like)

    def loss(params, hyper, x):
        params, x = kept(params, params), x if layout is None else layout.cut(x)
        out = jnp.tanh(x @ params["a"]["weight"])
        return jnp.mean((out - hyper["shift"]) ** 2 * jnp.exp(hyper["weight"]))

    def update(grads, opt_state, params, hyper):
        directions, opt_state = adam.update(grads, opt_state)
        params = jax.tree.map(lambda p, d: p - jnp.exp(hyper["rate"]) * d, params, directions)
        return kept(params, params), kept(opt_state, params)

    params = {"a": {"weight": jnp.asarray(np.random.default_rng(1).normal(size=(4, 8)) / 2)}}
    state = State(params, adam.init(params))
    eta = {
        "rate": jnp.array([-2.0, -3.0]),
        "shift": jnp.array([0.1, 0.2]),
        "weight": jnp.array([0.0, 0.3]),
    }
    problem = Problem(
        loss,
        update,
        lambda params, x: loss(params, {"shift": 0.0, "weight": 0.0}, x),
        lambda eta, step: jax.tree.map(lambda leaf: leaf[step // 3], eta),
    )
    state = state if layout is None else layout.place(state, params)
    given = {"steps": 6, "estimator": estimator, "listener": listener}
    if members > 1:
        each = [
            Member(lambda: state, lambda step, first=first: inputs[(step + first) % 6])
            for first in range(members)
        ]
        return hypergradients(problem, eta, each, [inputs[6]], **given)
    return hypergradient(
        problem,
        eta,
        state,
        lambda step: inputs[step],
        [inputs[6]],
        key=jax.random.key(2),
        **given,
    )


def apart(found, expected):
    """The norm of what two trees differ by, over that of the second."""
    ours, theirs = (
        np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])
        for tree in (found, expected)
    )
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def on_a_mesh(estimators):
    """Every estimator on a mesh against itself on one device."""
    found = {}
    layout = Layout(mesh_of(2, 4, 1))
    with jax.enable_x64(True):
        for name, estimator in estimators.items():
            members = 2 if name == "population" else 1
            one, several = toy(estimator, None, members), toy(estimator, layout, members)
            weight = several.state.params["a"]["weight"]
            found[name] = {
                "apart": apart(several.gradient, one.gradient),
                "value": apart(several.value, one.value),
                "devices": len(weight.sharding.device_set),
                "free": all(not leaf.committed for leaf in jax.tree.leaves(several.gradient)),
            }
    return found


def over_an_axis(estimators):
    """Directions and members over an axis of their own, each over two devices."""
    found, layout = {}, Layout(mesh_of(1, 2, 1, members=4))
    with jax.enable_x64(True):
        for name, estimator in estimators.items():
            members, shards = 4 if "population" in name else 1, set()

            def heard(progress, shards=shards):
                tangents = getattr(progress.carry, "tangents", None)
                for leaf in jax.tree.leaves(tangents):
                    shards.add(leaf.sharding.shard_shape(leaf.shape)[0] / len(leaf))

            one = toy(estimator, None, members)
            several = toy(estimator, layout, members, heard)
            weight = several.state.params["a"]["weight"]
            found[name] = {
                "apart": apart(several.gradient, one.gradient),
                "value": apart(several.value, one.value),
                "devices": len(weight.sharding.device_set),
                "free": all(not leaf.committed for leaf in jax.tree.leaves(several.gradient)),
                "share": math.prod(weight.sharding.shard_shape(weight.shape)) / weight.size,
                "of_tangents": sorted(shards),
            }
    return found
