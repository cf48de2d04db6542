"""Every way to keep states between segments gives the same hypergradient; and what each keeps."""

import functools
import math
import resource
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cells import cells
from estimators import made
from jax.flatten_util import ravel_pytree

from metatune.hypergrad import (
    CheckpointError,
    Checkpoints,
    MixFlow,
    Problem,
    ReplayError,
    Reverse,
    State,
    hypergradient,
    stores,
)
from metatune.hypergrad.reverse.adjoint import SegmentRun
from metatune.hypergrad.reverse.boundaries import Boundaries
from metatune.hypergrad.reverse.policies import Every, Kept, Recursive
from metatune.hypergrad.stores import PENDING, Device, Disk, Host, Store

STEPS, SEGMENT = 300, 10  # 30 segments
KEEP_ALL = Checkpoints()
POLICIES = {
    "sqrt": Checkpoints("sqrt"),
    "every 7": Checkpoints(7),
    "recursive, 1 slot": Checkpoints("recursive", slots=1),
    "recursive, 3 slots": Checkpoints("recursive", slots=3),
}
# Those that keep states: of reverse mode.
ESTIMATORS: dict[str, Any] = {
    **{name: it for name, it in made(1, SEGMENT).items() if isinstance(it, MixFlow | Reverse)},
    "without mixed mode": MixFlow(SEGMENT, mixed_mode=False),
}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS.keys())


@functools.cache
def network():
    """A small network under AdamW: problem, η, state, batches, outer batches."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(STEPS + 1, 4, 3)), rng.normal(size=(STEPS + 1, 4))
    optimizer = optax.chain(optax.scale_by_adam(eps_root=1e-10), optax.add_decayed_weights(0.1))

    def loss(params, hyper, batch):
        hidden = jnp.tanh(batch["x"] @ params["in"])
        return jnp.mean((hidden @ params["out"] - batch["y"]) ** 2)

    def update(grads, opt_state, params, hyper):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        rates = {"in": hyper[0], "out": hyper[1]}
        return jax.tree.map(lambda p, u, a: p - a * u, params, updates, rates), opt_state

    def batch(step):
        return {"x": x[step], "y": y[step]}

    problem = Problem(
        loss, update, lambda p, b: loss(p, None, b), lambda eta, t: jnp.exp(eta[t // 100])
    )
    params = {"in": rng.normal(size=(3, 5)), "out": rng.normal(size=5)}
    eta = np.log(0.01) + 0.3 * rng.normal(size=(3, 2))
    return problem, eta, State(params, optimizer.init(params)), batch, [batch(STEPS)]


def estimate(estimator=ESTIMATORS["mixflow"], checkpoints=KEEP_ALL, steps=STEPS, **changed):
    names = ("problem", "eta", "state", "batches", "outer_batches")
    setting = {**dict(zip(names, network(), strict=True)), **changed}
    return hypergradient(**setting, steps=steps, estimator=estimator, checkpoints=checkpoints)


@functools.cache
def reference(estimator):
    return estimate(estimator)


def numbers(result):
    """All that two ways to the same result must share, as bytes."""
    kept = (result.value, result.gradient, result.state, result.diagnostics.losses)
    return np.asarray(ravel_pytree(kept)[0]).tobytes()


def at(store, policy, tmp_path):
    folder = tmp_path / "scratch" if store == "disk" else None
    return Checkpoints(policy.policy, policy.slots, store, folder)


GRID = {
    f"{name}, {policy}, {store}": (estimator, POLICIES[policy], store)
    for name, estimator in ESTIMATORS.items()
    for policy in POLICIES
    for store in ("device", "host", "disk")
}
TELLING = {
    *(cell for cell in GRID if cell.startswith("mixflow, ") and "recomputed" not in cell),
    "reverse, sqrt, host",
    "mixflow, recomputed gradients, recursive, 3 slots, disk",
    "without mixed mode, every 7, device",
}
"""Every policy in every store of one estimator, and one of each other."""


@pytest.mark.parametrize(("estimator", "policy", "store"), cells(GRID, GRID.keys() - TELLING))
def test_all_policies_and_stores_agree_bit_for_bit(float64, tmp_path, estimator, policy, store):
    result = estimate(estimator, at(store, policy, tmp_path))
    assert numbers(result) == numbers(reference(estimator))
    assert list(tmp_path.glob("scratch/*")) == []


@pytest.mark.parametrize("steps", [1, 10, 11, 20, 25])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_short_trainings(float64, policy, steps):
    expected = estimate(steps=steps)
    assert numbers(estimate(checkpoints=policy, steps=steps)) == numbers(expected)
    assert expected.diagnostics.recomputed_segments == 0


@every_estimator
def test_what_is_held_and_what_is_recomputed(float64, estimator):
    states = 3 * 20 * 8 + 4  # parameters and two moments in float64, and Adam's count
    again = 6 if estimator.saves else 5  # segments of a stretch of √30, rounded up to 6
    seen = estimate(estimator, Checkpoints("sqrt")).diagnostics
    assert seen.peak_states == 5 + 4 <= 2 * 6 + 1
    assert seen.recomputed_segments == 4 * again
    gradients = 5 * 10 * 20 * 8 if estimator.saves else 0
    assert seen.peak_bytes == 9 * states + gradients
    kept = reference(estimator).diagnostics
    assert (kept.peak_states, kept.recomputed_segments) == (29, 0)
    for slots in (1, 3, 8):
        seen = estimate(estimator, Checkpoints("recursive", slots=slots)).diagnostics
        assert seen.peak_states <= slots + 1
    assert estimate(estimator, Checkpoints("recursive", slots=1)).diagnostics.peak_states == 2


@functools.cache
def fewest_runs(length, slots):
    """Segments run to have each of `length` in hand once, last to first: over all strides."""
    if slots == 0 or length == 1:
        return length * (length - 1) // 2
    return min(
        m + fewest_runs(length - m, slots - 1) + fewest_runs(m, slots) for m in range(1, length)
    )


def walk(policy, segments, saves):
    """Both sweeps over a training that counts its segments; the boundaries, and each run."""
    runs = []

    def run(index, state):
        assert int(state.params) == index
        runs.append(index)
        return SegmentRun(State(state.params + 1, ()), jnp.zeros(1), state.params * 10)

    with Store(Device()) as store:
        boundaries = Boundaries(run, segments, saves=saves, kept=Kept(policy), store=store)
        end = boundaries.forward(State(jnp.int32(0), ()), lambda index, losses: None)
        assert int(end.params) == segments
        for index in reversed(range(segments)):
            state, saved = boundaries.take(index)
            assert int(state.params) == index
            if saves:
                assert int(saved) == 10 * index
    return boundaries, runs


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("segments", [1, 2, 3, 4, 7, 12, 21, 22, 35])
def test_recursion_runs_the_fewest_segments(segments, slots):
    boundaries, runs = walk(Recursive(slots), segments, saves=False)
    assert boundaries.recomputed == fewest_runs(segments, slots) - (segments - 1)
    assert len(runs) == segments + boundaries.recomputed
    assert boundaries.peak <= slots + 1


@pytest.mark.parametrize("policy", [Every(1), Every(4), Recursive(1), Recursive(3)], ids=str)
@pytest.mark.parametrize("segments", [1, 2, 5, 13])
def test_what_was_saved_comes_with_its_state(policy, segments):
    walk(policy, segments, saves=True)


@pytest.mark.parametrize("segments", [1, 2, 9, 10, 30, 100])
def test_sqrt_stays_within_its_bound(segments):
    boundaries, _ = walk(Every(math.isqrt(segments - 1) + 1), segments, saves=False)
    assert boundaries.peak <= 2 * math.ceil(math.sqrt(segments)) + 1
    assert boundaries.recomputed < segments


def test_no_policy_compiles_anything_new(float64, tmp_path):
    problem, traces = network()[0], []

    def loss(params, hyper, batch):
        traces.append(1)
        return problem.loss(params, hyper, batch)

    counted = replace(problem, loss=loss)
    estimate(problem=counted, steps=60)
    first = len(traces)
    assert first > 0
    for policy in POLICIES.values():
        for store in ("device", "host", "disk"):
            estimate(checkpoints=at(store, policy, tmp_path), problem=counted, steps=90)
    assert len(traces) == first


@pytest.mark.parametrize("stretch", [{"steps": 4}, {"steps": 20, "window": 4}])
def test_no_segment_is_longer_than_what_is_differentiated(float64, stretch):
    problem, traces = network()[0], []

    def loss(params, hyper, batch):
        traces.append(1)
        return problem.loss(params, hyper, batch)

    counted = replace(problem, loss=loss)
    exact = estimate(MixFlow(4), problem=counted, **stretch)
    first = len(traces)
    # The very programs of segments of four steps: nothing that is filled up, nothing compiled.
    assert numbers(estimate(MixFlow(64), problem=counted, **stretch)) == numbers(exact)
    assert len(traces) == first


def states_on_device(checkpoints, steps):
    """The most arrays of the first layer's shape that are alive at a time."""
    seen = []

    def listen(progress):
        seen.append(sum(array.shape == (3, 5) for array in jax.live_arrays()))

    problem, eta, state, batches, outer_batches = network()
    before = sum(array.shape == (3, 5) for array in jax.live_arrays())
    hypergradient(
        problem,
        eta,
        state,
        batches,
        outer_batches,
        steps=steps,
        estimator=MixFlow(SEGMENT, save_gradients=False),
        checkpoints=checkpoints,
        listener=listen,
    )
    return max(seen) - before


@pytest.mark.parametrize("store", ["host", "disk"])
@pytest.mark.parametrize("policy", [KEEP_ALL, *POLICIES.values()], ids=["all", *POLICIES])
def test_the_device_lets_go_of_what_is_kept_elsewhere(float64, tmp_path, policy, store):
    kept = at(store, policy, tmp_path)
    # The last state and its parameters' adjoint, a state in hand and one that goes to the store;
    # a disk's thread has another that is written, as soon as it can.
    short, long = states_on_device(kept, 100), states_on_device(kept, 300)
    assert max(short, long) <= 3 * 3 + 3 + (3 if store == "disk" else 0)
    assert store == "disk" or short == long
    assert states_on_device(KEEP_ALL, 300) >= 3 * 29


def test_batches_that_change_are_noticed(float64):
    batches, asked = network()[3], []

    def impure(step):
        asked.append(step)
        return jax.tree.map(lambda x: x + 1e-9 * len(asked), batches(step))

    with pytest.raises(ReplayError, match="segment 2[56] .*not a pure function of the step"):
        estimate(checkpoints=Checkpoints("recursive", slots=2), batches=impure)


ARRAYS = {
    "half": jnp.array([1.5, -0.0, jnp.inf], jnp.bfloat16),
    "none": jnp.zeros((0, 3)),
    "scalar": jnp.int32(7),
    "flags": jnp.array([[True, False]]),
    "nan": jnp.float32(jnp.nan),
}


@pytest.mark.parametrize("kind", ["device", "host", "disk"])
def test_a_store_gives_back_what_it_was_given(tmp_path, kind):
    place = {"device": Device, "host": Host, "disk": lambda: Disk(tmp_path)}[kind]()
    bound = jax.device_put(jnp.arange(3.0), jax.devices()[0])
    with Store(place) as store:
        store.put("it", {**ARRAYS, "bound": bound})
        store.put("other", ())
        for found in (store.get("it"), store.pop("it")):
            for name, array in {**ARRAYS, "bound": bound}.items():
                assert found[name].dtype == array.dtype
                assert found[name].shape == array.shape
                assert found[name].committed == array.committed
                assert np.asarray(found[name]).tobytes() == np.asarray(array).tobytes()
        assert store.pop("other") == ()
        assert store.peak_bytes == 6 + 4 + 2 + 4 + 12
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_on_disk_after_an_error(float64, tmp_path):
    batches, kept = network()[3], []

    def failing(step):
        if step == 200:
            kept.extend(tmp_path.rglob("*.safetensors"))
            kept.extend(tmp_path.rglob("*.partial"))
            raise KeyboardInterrupt
        return batches(step)

    with pytest.raises(KeyboardInterrupt):
        estimate(checkpoints=Checkpoints(store="disk", folder=tmp_path), batches=failing)
    # States, the one before segment 20 among them, and gradients; two at most wait to be written.
    assert 21 + 20 - PENDING <= len(kept) <= 21 + 20
    assert list(tmp_path.iterdir()) == []


def test_a_budget_is_kept(float64, tmp_path):
    within = estimate(checkpoints=Checkpoints("sqrt", store="disk", folder=tmp_path))
    needed = within.diagnostics.peak_bytes
    enough, short = (
        Checkpoints("sqrt", store="disk", folder=tmp_path, budget_bytes=budget)
        for budget in (needed, needed - 1)
    )
    assert numbers(estimate(checkpoints=enough)) == numbers(within)
    with pytest.raises(
        CheckpointError,
        match=rf"states-.*: a state needs \d+ bytes, but \d+ of the budget of {needed - 1}",
    ):
        estimate(checkpoints=short)
    assert list(tmp_path.iterdir()) == []
    host = Checkpoints("sqrt", store="host", budget_bytes=needed - 1)
    with pytest.raises(CheckpointError, match="host memory: a state needs"):
        estimate(checkpoints=host)


def test_a_disk_is_written_and_read_beside_what_is_computed(tmp_path, monkeypatch):
    may, read = threading.Event(), []
    save, load = stores.save_file, stores.load_parts
    monkeypatch.setattr(stores, "save_file", lambda *given: (may.wait(60), save(*given)))
    monkeypatch.setattr(stores, "load_parts", lambda path: (read.append(path), load(path))[1])
    with Store(Disk(tmp_path)) as store:
        for number in range(PENDING):
            store.put(number, jnp.full(3, number))
        assert not list(tmp_path.rglob("*.safetensors"))
        may.set()
        store.expect(0)
        store.expect("what isn't there")
        until = time.monotonic() + 60
        while not read and time.monotonic() < until:
            time.sleep(0.01)
        assert len(read) == 1
        assert store.pop(0).tolist() == [0, 0, 0]
        assert len(read) == 1, "it was read ahead"
        assert store.pop(1).tolist() == [1, 1, 1]


def test_a_disk_that_takes_no_more_is_told_of(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Store(Disk(tmp_path)) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            store.put("it", jnp.zeros(20000, jnp.float32))
            with pytest.raises(CheckpointError, match=r"needs 80000 bytes.* bytes are free"):
                store.pop("it")
            for number in range(PENDING - 1):
                store.put(number, jnp.zeros(1))
            with pytest.raises(CheckpointError, match=r"needs 80000 bytes.* bytes are free"):
                store.put("next", jnp.zeros(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/below: no checkpoints can be kept here"):
        Checkpoints(store="disk", folder=tmp_path / "file" / "below").open()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"policy": "log"},
            "policy = 'log': must be one of all, sqrt, recursive, auto or a number",
        ),
        ({"policy": 0}, "policy = 0: must be 1 or above"),
        ({"policy": "recursive", "slots": 0}, "slots = 0: must be 1 or above"),
        ({"store": "tape"}, "store = 'tape': must be one of device, host, disk"),
        ({"store": "disk"}, "folder is missing"),
        ({"store": "host", "folder": Path("x")}, "folder is for the store `disk`, not `host`"),
        ({"store": "disk", "folder": Path("x"), "budget_bytes": 0}, "budget_bytes = 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(unchecked, choice, message):
    with pytest.raises(ValueError, match=message):
        Checkpoints(**choice)


@jax.custom_jvp
def rounded(x):
    return x.astype(jnp.bfloat16).astype(x.dtype)


rounded.defjvp(lambda primals, tangents: (rounded(*primals), tangents[0]))


def test_rounded_gradients(float64):
    problem = network()[0]

    def update(grads, *others):
        return problem.update(jax.tree.map(rounded, grads), *others)

    saved = MixFlow(SEGMENT, gradient_dtype="bfloat16")
    replayed = MixFlow(SEGMENT, save_gradients=False, gradient_dtype="bfloat16")
    result = estimate(saved)
    again = estimate(replayed)
    assert numbers(again._replace(gradient=())) == numbers(result._replace(gradient=()))
    # Two programs, that XLA may fuse differently: the last bit may differ, not the rounding.
    np.testing.assert_allclose(again.gradient, result.gradient, rtol=1e-12)
    assert numbers(result) == numbers(estimate(saved, Checkpoints("sqrt", store="host")))
    explicit = estimate(Reverse(SEGMENT), problem=replace(problem, update=update))
    np.testing.assert_allclose(result.gradient, explicit.gradient, rtol=1e-9)
    np.testing.assert_allclose(result.value, explicit.value, rtol=1e-12)
    difference = np.abs(result.gradient - reference(ESTIMATORS["mixflow"]).gradient)
    assert difference.max() > 1e-6
    bytes_of = [estimate(e).diagnostics.peak_bytes for e in (saved, ESTIMATORS["mixflow"])]
    assert bytes_of[1] - bytes_of[0] == 29 * 10 * 20 * (8 - 2)
