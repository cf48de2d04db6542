"""Forward mode: what it carries, when directions begin, and what it refuses."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cells import cells
from safetensors.numpy import load_file, save_file

from metatune.hypergrad import (
    Checkpoints,
    EstimatorError,
    Forward,
    ForwardGradient,
    MixFlow,
    Problem,
    State,
    ZerothOrder,
    as_argument,
    hypergradient,
)
from metatune.hypergrad.estimator import Job
from metatune.hypergrad.forward.fds import MOST_ONSETS, first_steps
from metatune.hypergrad.forward.tangents import Tangents, push_step

STEPS = 20
INPUTS = np.random.default_rng(0).normal(size=(STEPS, 8, 3))


def problem(windows: int, steps: int = STEPS) -> Problem:
    """Adam on a small regression; η holds log rates by window, and one that never acts."""
    adam = optax.scale_by_adam(eps_root=1e-10)

    def loss(params, hyper, x):
        return jnp.mean((jnp.tanh(x @ params) - x[:, 0]) ** 2)

    def update(grads, opt_state, params, rate):
        updates, opt_state = adam.update(grads, opt_state)
        return params - rate * updates, opt_state

    def hyper_at(eta, step):
        return jnp.exp(eta["rates"][step * windows // steps])

    return Problem(loss, update, lambda params, x: jnp.sum(x @ params) ** 2, hyper_at)


def arguments(windows=4, **changes):
    params = jnp.array([0.5, -0.3, 0.2])
    state = State(params, optax.scale_by_adam(eps_root=1e-10).init(params))
    eta = {"rates": jnp.linspace(-3.0, -2.0, windows), "unused": jnp.zeros(2)}
    given = {
        "problem": problem(windows),
        "eta": eta,
        "state": state,
        "batches": lambda step: INPUTS[step],
        "outer_batches": [INPUTS[0]],
        "steps": STEPS,
        "estimator": Forward(segment=3),
    }
    return {**given, **changes}


def job(given) -> Job:
    return Job(
        problem=as_argument(given["problem"]),
        eta=given["eta"],
        state=given["state"],
        batches=given["batches"],
        outer_batches=given["outer_batches"],
        start=0,
        first=0,
        stop=given["steps"],
        points={given["steps"]: 1.0},
        checkpoints=Checkpoints(),
        key=None,
        control=None,
        carry=None,
        listener=None,
    )


def test_coordinates_are_pushed_from_the_first_step_they_act_in(float64):
    assert first_steps(job(arguments())).tolist() == [0, 5, 10, 15, STEPS, STEPS]
    heard = []
    found = hypergradient(**arguments(listener=lambda p: heard.append((p.step, active(p.carry)))))
    assert heard == [(3, 1), (5, 1), (8, 2), (10, 2), (13, 3), (15, 3), (18, 4), (20, 4)]
    assert found.gradient["unused"].tolist() == [0, 0]
    exact = hypergradient(**arguments(estimator=MixFlow(segment=3)))
    np.testing.assert_allclose(found.gradient["rates"], exact.gradient["rates"], rtol=1e-10)


def active(carry):
    return 0 if carry.tangents is None else len(carry.tangents.params)


def test_none_is_pushed_where_none_acts(float64):
    given = arguments()

    def late(eta, step):
        return jnp.where(step < 7, 0.1, jnp.exp(eta["rates"][0]))

    given["problem"] = replace(given["problem"], hyper_at=late)
    heard = []
    found = hypergradient(**given, listener=lambda p: heard.append((p.step, active(p.carry))))
    assert heard[:3] == [(3, 0), (6, 0), (7, 0)] and heard[3] == (10, 1)
    exact = hypergradient(**{**given, "estimator": MixFlow(segment=3)})
    np.testing.assert_allclose(found.gradient["rates"], exact.gradient["rates"], rtol=1e-10)
    without = replace(given["problem"], hyper_at=lambda eta, step: jnp.full((), 0.1))
    nothing = hypergradient(**{**given, "problem": without})
    assert not np.any(nothing.gradient["rates"])


def test_neighbours_begin_together_where_there_are_many_windows(float64):
    given = arguments(windows=STEPS)
    begun = first_steps(job(given))[:STEPS]
    assert len(set(begun)) <= MOST_ONSETS
    assert all(begun <= np.arange(STEPS)) and begun[0] == 0
    found = hypergradient(**given)
    exact = hypergradient(**{**given, "estimator": MixFlow(segment=3)})
    np.testing.assert_allclose(found.gradient["rates"], exact.gradient["rates"], rtol=1e-9)


def test_a_program_is_compiled_for_each_window_and_for_no_more_steps(float64):
    given, traces = arguments(), []

    def loss(params, hyper, batch):
        traces.append(1)
        return problem(4).loss(params, hyper, batch)

    given["problem"] = replace(given["problem"], loss=loss)
    hypergradient(**given)
    first = len(traces)
    twice = arguments(windows=2, problem=replace(problem(2), loss=loss))
    twice["eta"] = {**given["eta"]}  # of which the last two windows never act
    hypergradient(**{**twice})
    assert len(traces) > first
    now = len(traces)
    hypergradient(**given)
    hypergradient(**{**given, "batches": lambda step: INPUTS[step] + 1})
    assert len(traces) == now


class Killed(Exception):
    pass


STOPPED = {
    f"{name}, at {stop_at}": (estimator, stop_at)
    for name, estimator in {
        "forward": Forward(segment=3),
        "forward in chunks": Forward(3, chunk=4),
        "forward gradient in chunks": ForwardGradient(4, segment=3, chunk=2),
    }.items()
    for stop_at in (1, 4, 8, 9, 13, 16)
}
BETWEEN = {"forward, at 4", "forward in chunks, at 9", "forward gradient in chunks, at 13"}


@pytest.mark.parametrize(("estimator", "stop_at"), cells(STOPPED, STOPPED.keys() - BETWEEN))
def test_a_stopped_estimate_goes_on_bit_for_bit_from_a_file(tmp_path, estimator, stop_at):
    given = arguments(estimator=estimator, key=jax.random.key(1))
    whole, heard = hypergradient(**given), []

    def kill(progress):
        heard.append(jax.tree.map(lambda leaf: np.array(leaf, copy=True), progress.carry))
        if len(heard) == stop_at:
            raise Killed

    try:
        hypergradient(**given, listener=kill)
    except Killed:
        pass
    carry, file = heard[-1], tmp_path / "carry.safetensors"
    leaves, structure = jax.tree.flatten(carry)
    save_file({f"{place}": np.asarray(leaf) for place, leaf in enumerate(leaves)}, file)
    loaded = load_file(file)
    read = jax.tree.unflatten(structure, [loaded[f"{place}"] for place in range(len(leaves))])
    rest = hypergradient(**given, carry=read)
    jax.tree.map(np.testing.assert_array_equal, rest, whole)


def test_a_carry_of_something_else_is_refused():
    heard = []
    hypergradient(**arguments(listener=lambda p: heard.append(p.carry)))
    with pytest.raises(EstimatorError, match="a carry at step 20 .* is none of an estimate from "):
        hypergradient(**arguments(steps=10, carry=heard[-1]))
    for estimator in (MixFlow(), ZerothOrder(2)):
        with pytest.raises(EstimatorError, match="can't go on from a carry: leave it out"):
            hypergradient(**arguments(estimator=estimator, carry=heard[-1]))


def test_clipped_tangents(float64):
    """Nothing is clipped by a large norm; by a small one, the tangent has it, and its direction."""
    exact = hypergradient(**arguments())
    large = hypergradient(**arguments(estimator=Forward(3, clip_tangents=1e9)))
    # Two programs, which may round otherwise.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-13), large, exact)
    small = hypergradient(**arguments(estimator=Forward(3, clip_tangents=1e-3)))
    assert not np.allclose(small.gradient["rates"], exact.gradient["rates"], rtol=1e-2)
    np.testing.assert_array_equal(small.state.params, exact.state.params)

    def descend(grads, opt_state, params, rate):
        return params - rate * grads, opt_state

    params, moved = jnp.array([0.5, -0.3, 0.2]), jnp.array([1.0, 2.0, -1.0])
    plain = as_argument(replace(problem(4), update=descend, hyper_at=lambda eta, step: eta))

    def pushed(clip):
        tangent = Tangents(moved, [])
        given = (
            plain,
            jnp.ones(()),
            jnp.zeros(()),
            State(params, ()),
            tangent,
            INPUTS[0],
            jnp.int32(0),
            clip,
        )
        return push_step(*given)[2].params

    curved = moved - pushed(None)  # H Z, at a rate of one that doesn't move
    norm = float(jnp.linalg.norm(curved))
    np.testing.assert_allclose(moved - pushed(norm / 2), curved / 2, rtol=1e-12)
    np.testing.assert_allclose(moved - pushed(norm * 2), curved, rtol=1e-12)


def test_tangents_beyond_the_budget_are_refused():
    # A state of three parameters and two moments of Adam each: 36 bytes of floats.
    with pytest.raises(EstimatorError, match=r"6 tangents at a time .* of 36 bytes each take 216 "):
        hypergradient(**arguments(estimator=Forward(budget_bytes=200)))
    with pytest.raises(EstimatorError, match="chunk to 5 or fewer.* forward_gradient .* mixflow"):
        hypergradient(**arguments(estimator=Forward(budget_bytes=200)))
    hypergradient(**arguments(estimator=Forward(budget_bytes=200, chunk=5)))
    with pytest.raises(EstimatorError, match="4 tangents at a time"):
        hypergradient(**arguments(estimator=ForwardGradient(4, budget_bytes=100), key=some_key()))


def some_key():
    return jax.random.key(0)


def test_memory_that_is_free_is_the_budget():
    """Of a state so large that it can only be spoken of, under a trace."""
    shapes = State(jax.ShapeDtypeStruct((2**40,), jnp.float32), ())
    with pytest.raises(EstimatorError, match=r"6 tangents at a time .* take 24576.00 GiB"):
        jax.eval_shape(lambda state: hypergradient(**arguments(state=state)), shapes)


@jax.custom_vjp
def identity(x):
    return x


identity.defvjp(lambda x: (x, ()), lambda saved, bar: (bar,))


@pytest.mark.parametrize("place", ["update", "hyper_at"])
@pytest.mark.parametrize("estimator", [Forward(), ForwardGradient(2)])
def test_a_function_without_forward_mode_is_refused(float64, place, estimator):
    plain = problem(4)

    def update(grads, opt_state, params, rate):
        return plain.update(identity(grads), opt_state, params, rate)

    def hyper_at(eta, step):
        return identity(plain.hyper_at(eta, step))

    changed = replace(plain, **{place: {"update": update, "hyper_at": hyper_at}[place]})
    given = arguments(problem=changed, key=some_key())
    with pytest.raises(EstimatorError, match=r"custom_vjp; use MixFlow\(mixed_mode=False\) or"):
        hypergradient(**{**given, "estimator": estimator})
    instead = hypergradient(**{**given, "estimator": MixFlow(mixed_mode=False)})
    exact = hypergradient(**arguments())
    np.testing.assert_allclose(instead.gradient["rates"], exact.gradient["rates"], rtol=1e-10)


def test_errors_of_other_types_are_left_alone():
    def update(grads, opt_state, params, rate):
        raise TypeError("something else")

    with pytest.raises(TypeError, match="something else"):
        hypergradient(**arguments(problem=replace(problem(4), update=update)))


@pytest.mark.parametrize("estimator", [Forward(), ForwardGradient(2), ZerothOrder(2)])
def test_checkpoints_are_for_reverse_mode(estimator):
    given = arguments(estimator=estimator, checkpoints=Checkpoints("sqrt"), key=some_key())
    with pytest.raises(EstimatorError, match="only reverse mode keeps states"):
        hypergradient(**given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(Forward, segment=0), "segment = 0: must be above 0"),
        (partial(Forward, chunk=0), "chunk = 0: must be above 0"),
        (partial(Forward, clip_tangents=-1.0), "clip_tangents = -1.0: must be above 0"),
        (partial(Forward, budget_bytes=0), "budget_bytes = 0: must be above 0"),
        (partial(ForwardGradient, 0), "directions = 0: must be above 0"),
        (
            partial(ForwardGradient, 2, **{"distribution": "normal"}),
            "'normal': must be one of rademacher",
        ),
        (partial(ZerothOrder, 2, step=0.0), "step = 0.0: must be above 0"),
    ],
)
def test_options_that_cannot_be_meant(unchecked, make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_given_state_is_left_untouched(float64):
    given = arguments()
    before = jax.tree.map(np.array, given["state"])
    for estimator in (Forward(3), ForwardGradient(2, 3), ZerothOrder(2, segment=3)):
        hypergradient(**{**given, "estimator": estimator, "key": some_key()})
    jax.tree.map(np.testing.assert_array_equal, given["state"], before)
