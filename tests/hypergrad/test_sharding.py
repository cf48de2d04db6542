"""Directions over devices and over processes: this file runs itself in processes of such a kind."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metatune.hypergrad import (
    Checkpoints,
    EstimatorError,
    Forward,
    ForwardGradient,
    MixFlow,
    Problem,
    State,
    hypergradient,
)

STEPS, WINDOWS = 20, 4
INPUTS = np.random.default_rng(0).normal(size=(STEPS, 8, 3)).astype(np.float32)
ADAM = optax.scale_by_adam(eps_root=1e-10)
TANGENT = 9 * 4  # bytes: of three parameters, and of two moments of each
ALONG = ForwardGradient(8, 3, "orthogonal", chunk=4)  # exact: a whole basis, in two trainings

# A state is θ and a trace of eight float32 each, 64 bytes; a segment saves four gradients, 128. On
# each of two devices lies half of it. Two of three segments wait for the way back, or else one.
BUDGETS = {
    ("device", 192): (2 * 32 + 2 * 64, 0),
    ("device", 191): (32 + 64, 2),
    ("host", 384): (2 * 64 + 2 * 128, 0),
    ("host", 383): (64 + 128, 2),
}
"""Of a store and its budget what lies there at most, and segments that are run again for it."""


def loss(params, hyper, x):
    return jnp.mean((jnp.tanh(x @ params) - x[:, 0]) ** 2)


def update(grads, opt_state, params, rate):
    updates, opt_state = ADAM.update(grads, opt_state)
    return params - rate * updates, opt_state


def rate_at(eta, step):
    """Two coordinates begin in each window, so that two devices divide those that act."""
    return jnp.exp(eta["rates"][step * WINDOWS // STEPS].sum())


def found(estimator, listener=None):
    params = jnp.array([0.5, -0.3, 0.2])
    return hypergradient(
        Problem(loss, update, lambda params, x: jnp.sum(x @ params) ** 2, rate_at),
        {"rates": jnp.linspace(-2.0, -1.0, 2 * WINDOWS).reshape(WINDOWS, 2)},
        State(params, ADAM.init(params)),
        lambda step: INPUTS[step],
        [INPUTS[0]],
        steps=STEPS,
        estimator=estimator,
        key=jax.random.key(3),
        listener=listener,
    )


def spread_over_two(*estimators):
    """Prints a line of rates' derivatives and the value for each estimator."""
    assert len(jax.devices()) == 2
    for estimator in estimators:
        spread = []

        def listen(heard, spread=spread):
            tangents = heard.carry.tangents.params
            assert len(tangents.addressable_shards) == 2 // jax.process_count()
            spread.append(len(tangents.sharding.device_set))

        result = found(estimator, listen)
        assert set(spread) == {2}, spread
        # What comes out lies where the given state does, on a device of this process.
        home = jax.local_devices()[0]
        assert result.state.params.devices() == {home}
        print(*result.gradient["rates"].ravel().tolist(), float(result.value), flush=True)


def within_budgets():
    """Prints a line for each budget: what lay in the store at most, and segments run again."""
    cut = NamedSharding(Mesh(np.array(jax.devices()), ("fsdp",)), PartitionSpec("fsdp"))
    problem = Problem(
        loss=lambda params, rate, batch: jnp.mean((params - batch) ** 2),
        update=lambda g, trace, p, rate: (p - rate * (0.9 * trace + g), 0.9 * trace + g),
        objective=lambda params, batch: jnp.sum(params * batch),
        hyper_at=lambda eta, step: eta,
    )
    for store, budget in BUDGETS:
        kept = {"store": store, "budget_bytes": budget}
        seen = hypergradient(
            problem,
            jnp.float32(0.1),
            State(*jax.device_put((jnp.zeros(8), jnp.zeros(8)), cut)),
            lambda step: jnp.full(8, 1.0 + step),
            [jnp.ones(8)],
            steps=12,
            estimator=MixFlow(4),
            checkpoints=Checkpoints("auto", **kept),
        ).diagnostics
        print("budget", seen.peak_bytes, seen.recomputed_segments, flush=True)


def beyond_the_budget():
    """Prints what is said of tangents of which one too many lies on a device."""
    try:
        found(Forward(3, budget_bytes=4 * TANGENT - 1))
    except EstimatorError as error:
        print("beyond", error, flush=True)


def process(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, __file__, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(process):
    try:
        out, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return [line for line in out.splitlines() if not line.startswith("[Gloo]")]


@pytest.fixture(scope="module")
def exact():
    result = found(MixFlow(3))
    return np.asarray(result.gradient["rates"]).ravel(), float(result.value)


def agree(lines, exact, count):
    assert len(lines) == count
    for line in lines:
        *rates, value = map(float, line.split())
        np.testing.assert_allclose(rates, exact[0], rtol=1e-4)
        assert value == pytest.approx(exact[1], rel=1e-5)


@pytest.fixture(scope="module")
def of_two_devices():
    return output(process(JAX_NUM_CPU_DEVICES="2"))


def test_directions_are_spread_over_devices(of_two_devices, exact):
    agree([line for line in of_two_devices if not line.startswith("b")], exact, 2)


def test_tangents_are_counted_on_each_device(of_two_devices):
    """Eight are within a budget of four, as `spread_over_two` has it, and not within less."""
    (said,) = [line for line in of_two_devices if line.startswith("beyond")]
    assert said.startswith(
        "beyond 8 tangents at a time (of 8 directions), 4 of them on a device, of 36 bytes each "
        "take 144 bytes, but the budget is 143 bytes: set chunk to 6 or fewer"
    )


def test_a_budget_is_of_each_device_or_of_the_host_of_both(of_two_devices):
    lines = [line.split()[1:] for line in of_two_devices if line.startswith("budget")]
    found = [tuple(map(int, line)) for line in lines]
    assert dict(zip(BUDGETS, found, strict=True)) == BUDGETS


def test_directions_are_spread_over_processes(exact):
    """Each process has one device and pushes half of the directions; both know the result."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    lines = [output(run) for run in [process(address, rank) for rank in "01"]]
    assert lines[0] == lines[1]
    agree(lines[0], exact, 1)


if __name__ == "__main__":
    if sys.argv[1:]:
        jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
        spread_over_two(ALONG)
    else:
        spread_over_two(Forward(3, budget_bytes=4 * TANGENT), ALONG)
        within_budgets()
        beyond_the_budget()
