"""Which way is chosen: on planted chaotic trainings, and in a search, whatever stops it.

Planted: angles are multiplied by k at each of T steps, from ones that η enters by a factor w and
each training by its own φ: `F(η) = ½ (η - 1)² + A Σ_j cos(m_j k^T (w η + φ_j))`. The smoothed
derivative is η - 1 but for the noise of seeds.
"""

import dataclasses
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from recipes import prepared, tiny
from rich.console import Console

from metatune.fit.outer_loop import fit
from metatune.fit.run_folder import RunFolder
from metatune.fit.searching import loop
from metatune.fit.searching.hypergradients import source
from metatune.fit.searching.phases import begin
from metatune.fit.searching.truncation import next_span
from metatune.fit.signal import weighing
from metatune.fit.signal.choice import (
    Evidence,
    FollowedWay,
    choose,
    in_force,
    is_sure,
    left,
    trainings_needed,
)
from metatune.fit.signal.signal import signal
from metatune.hypergrad import Damping, Growth, MixFlow, Problem, State, hypergradient
from metatune.hypergrad.smoothing import smoothed_slope
from metatune.inner.choosing import FEWEST, WAYS, affordable, hypergradients, needed, why_not
from metatune.inner.estimators import MIXFLOW
from metatune.recipe import schema
from metatune.recipe.phases import resolved
from metatune.verdict.budget import spent

STEPS, ETA, HEIGHT, TRAININGS = 8, 0.3, 0.01, 8
MULTIPLIERS = np.array([1.0, 1.31, 1.73, 2.3])
PHI = np.random.default_rng(0).uniform(0, 2 * np.pi, (TRAININGS, 4))


def planted(k, w, kept):
    """The plain part of η is written at each step or, `kept`, at the first alone."""

    def update(grads, opt_state, params, hyper):
        del grads
        eta, first = hyper
        plain = jnp.where(first > 0, eta, params["plain"]) if kept else eta
        return {"angle": k * (params["angle"] + first * w * eta), "plain": plain}, opt_state

    return Problem(
        loss=lambda params, hyper, batch: 0.0 * jnp.sum(params["angle"]),
        update=update,
        objective=lambda params, batch: (
            0.5 * (params["plain"] - 1) ** 2
            + HEIGHT * jnp.sum(jnp.cos(jnp.asarray(MULTIPLIERS) * params["angle"]))
        ),
        hyper_at=lambda eta, step: (eta, jnp.where(step == 0, 1.0, 0.0)),
    )


def evidence(k, w, kept):
    """Of one block, that growth dominates."""
    problem = planted(k, w, kept)
    data = lambda step: np.zeros(1), [np.zeros(1)]  # noqa: E731
    truth, ways = [], {way: [] for way in WAYS}
    for phi in PHI:
        state = State({"angle": jnp.asarray(phi), "plain": jnp.asarray(0.0)}, ())
        along = jnp.asarray(ETA), jnp.asarray(1.0), state
        truth.append(smoothed_slope(problem, *along, *data, step=0.3, steps=STEPS, segment=2))
        for way, spec in WAYS.items():
            damping = spec and Damping(**dataclasses.asdict(spec))
            estimator = MixFlow(segment=2, damping=damping)
            found = hypergradient(problem, along[0], state, *data, steps=STEPS, estimator=estimator)
            ways[way].append(float(found.gradient))
    return Evidence(0, True, np.array(truth), {way: np.array(each) for way, each in ways.items()})


@pytest.mark.parametrize(
    ("k", "w", "kept", "expected"),
    [
        (0.8, 1.0, False, ("exact", 1, (0,))),
        (3.0, 0.1, False, ("damped", 1, (0,))),
        (3.0, 1.0, True, ("restarted", 1, (0,))),
        (3.0, 10.0, False, ("exact", 1, ())),  # differences are left
    ],
)
def test_what_is_the_truth_is_chosen(float64, k, w, kept, expected):
    found = evidence(k, w, kept)
    phases = MULTIPLIERS * k**STEPS * (w * ETA + PHI)
    closed = ETA - 1 - HEIGHT * w * k**STEPS * (np.sin(phases) @ MULTIPLIERS)
    np.testing.assert_allclose(found.ways["exact"], closed, rtol=1e-8)
    assert is_sure(found.truth)
    assert found.truth.mean() == pytest.approx(ETA - 1, abs=0.1)
    assert choose([found], 2) == expected
    if k > 1 and not kept:  # begun anew the plain part counts twice, which no number mends
        assert trainings_needed(found.truth, found.ways["restarted"]) == math.inf


def test_as_many_trainings_as_bring_the_error_below_half_of_the_slope():
    truth = np.full(4, 2.0)
    noisy = 2.5 + np.sqrt(3.0) * np.array([1, -1, 1, -1])  # variance 4, a bias within its noise
    assert trainings_needed(truth, noisy) == 4
    biased = 2.5 + 0.1 * np.array([1, -1, 1, -1])
    bias = 0.25 - 0.04 / 3 / 4
    assert trainings_needed(truth, biased) == math.ceil(0.04 / 3 / (1 - bias)) == 1
    assert trainings_needed(truth, biased + 1) == math.inf
    assert trainings_needed(truth, np.array([2.0, 2.0, np.nan, 2.0])) == math.inf


def test_a_way_must_be_right_where_growth_does_not_dominate():
    truth = np.array([1.0, 1.1, 0.9, 1.0])
    wild = {"exact": 100 * np.array([1.0, -1.0, 1.0, -1.0]), "damped": truth, "restarted": truth}
    noisy = Evidence(0, True, truth, wild)
    assert choose([noisy], 1) == ("damped", 1, (0,))
    short = Evidence(1, False, truth, {"exact": truth, "damped": 0.1 * truth, "restarted": truth})
    assert choose([noisy, short], 1) == ("restarted", 1, (0,))
    unsure = Evidence(2, True, np.array([1.0, -1.0, 1.0, -1.0]), wild)
    assert choose([unsure], 8) == ("exact", 1, ())


def test_fewer_trainings_are_chosen_where_as_much_is_carried():
    truth = np.full(4, 1.0)
    spread = np.array([1.0, -1.0, 1.0, -1.0])
    ways = {"exact": 1 + 0.6 * spread, "damped": 1 + 0.1 * spread, "restarted": 1 + 0.1 * spread}
    found = [Evidence(0, True, truth, ways)]
    assert trainings_needed(truth, ways["exact"]) == 2
    assert choose(found, 4) == ("damped", 1, (0,))
    ways = ways | {"damped": 1 + 9 * spread, "restarted": 1 + 9 * spread}
    assert choose([Evidence(0, True, truth, ways)], 4) == ("exact", 2, (0,))
    assert choose([Evidence(0, True, truth, ways)], 1) == ("exact", 1, ())


@pytest.mark.parametrize("cost", [1.5, 2.0, 4.0])
def test_a_measurement_is_paid_by_the_outer_steps_that_are_left(cost):
    spec = schema.SignalSpec(cost=cost)
    least = needed(spec, MIXFLOW)
    assert least is not None
    assert affordable(spec, least - 1, MIXFLOW) is None
    for steps in range(least, 2 * least):
        found = affordable(spec, steps, MIXFLOW)
        assert found is not None and FEWEST <= found[0] <= spec.members
        took = hypergradients(found[0]) * MIXFLOW + 2 * found[0] * found[1]
        assert took <= (cost - 1) * steps * MIXFLOW / 2
    assert needed(schema.SignalSpec(cost=1.0), MIXFLOW) is None
    assert needed(schema.SignalSpec(members=2), MIXFLOW) is None


def test_differences_of_later_steps_are_spread_over_what_is_left():
    found = FollowedWay(0, 6, 4, 15, "exact", 1, (), (), spare=20.0)
    assert [found.pairs(step, 1) for step in (4, 5, 9, 14)] == [0, 1, 5, 10]
    late = found._replace(spent=18.0)
    assert [late.pairs(step, 1) for step in (5, 14)] == [0, 1]
    assert late.pairs(14, 2) == 0
    for trainings in (1, 2, 3):
        now = found
        for step in range(5, 15):
            now = now._replace(spent=now.spent + 2 * trainings * now.pairs(step, trainings))
        assert found.spare - 2 * trainings < now.spent <= found.spare


def test_what_the_recipe_says_is_never_overridden():
    spec = schema.SignalSpec()

    def why(steps=40, **outer):
        recipe = tiny(outer={"steps": steps, **outer})
        (phase,) = resolved(recipe.outer)
        return why_not(recipe.outer, phase, spec, steps)

    assert why() == ""
    assert why(population=schema.PopulationSpec(members=4)).startswith("outer.population says")
    assert why(robust=schema.RobustSpec(widths=(1, 2))).startswith("outer.robust says")
    damped = schema.MixFlowSpec(damping=schema.DampingSpec())
    assert why(estimator=damped) == "outer.estimator.damping is the recipe's own"
    assert why(estimator=schema.ReverseSpec()) == "the estimator reverse has no damping"
    assert "outer.unroll" in why(unroll=schema.TruncatedSpec(window=3))
    assert "outer.fresh" in why(fresh=schema.FreshSpec(initialisation=False, data=False))
    assert why(steps=19) == (
        "19 outer steps are left of this horizon, and measuring is paid by 20 or more "
        "(outer.signal.cost: 2)"
    )


def test_horizons_end_what_is_left():
    recipe = tiny(outer={"steps": 9, "unroll": schema.FullSpec(horizons=(3, 3, 4, 6))})
    (phase,) = resolved(recipe.outer)
    training = prepared(recipe)
    search = begin(training, phase, training.initial_eta())
    counts = []
    for step in range(9):
        at = search._replace(step=step)
        counts.append(left(recipe, phase, at, next_span(recipe, phase, at).steps))
    assert counts == [2, 1, 1, 6, 5, 4, 3, 2, 1]


LIMIT = 10.0
SPEC = schema.SignalSpec(growth=LIMIT, cost=12.0, members=3, step=0.2)


class Case:
    """A search at its first point, whose first windows are said to be dominated by growth."""

    def __init__(self, folder):
        self.training = prepared(tiny(outer={"signal": SPEC, "steps": 3}))
        (self.phase,) = resolved(self.training.recipe.outer)
        self.search = begin(self.training, self.phase, self.training.initial_eta())
        self.span = next_span(self.training.recipe, self.phase, self.search)
        self.source = source(self.training, folder, lambda: lambda heard: None)
        found = signal(self.training, self.source, lambda name: lambda heard: None)
        assert found is not None
        self.signal = found
        self.estimate = self.grown(self.source(self.search, self.phase, self.span), 2 * LIMIT)
        self.followed = found(self.search, self.phase, self.span, self.estimate)
        # Here, where programs are traced already: a test traces its own.
        self.each = {way: [self.alone(n, way).gradient for n in range(3)] for way in WAYS}

    def grown(self, estimate, times):
        """An estimate whose adjoint has grown so many times behind the first windows."""
        params = jnp.asarray([times, times, 1.0])
        growth = Growth(np.array([0, 1, 6]), params, params, jnp.zeros(2))
        seen = estimate.diagnostics._replace(growth=growth)
        return estimate._replace(diagnostics=seen)

    def alone(self, number, way):
        """The hypergradient of a training by itself."""
        members, options = self.source.trainings(self.search, self.phase, self.span, beside=2)
        one, spec = members[number], WAYS[way]
        damping = spec and Damping(**dataclasses.asdict(spec))
        return hypergradient(
            state=one.begin(),
            batches=one.batches,
            **{
                **options,
                "estimator": dataclasses.replace(options["estimator"], damping=damping),
            },
        )


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("case"))


def test_each_way_is_measured_of_the_same_trainings(case):
    """And what they say is what is chosen by."""
    chosen = case.followed.chosen
    assert chosen is not None
    seen = chosen["measured"]
    assert (seen["trainings"], seen["hypergradients"], seen["outer_steps"]) == (3, 9, 3)
    first = seen["windows"][0]
    assert (first["tunable"], first["window"], first["dominated"]) == ("learning_rates", 0, True)
    for way in WAYS:
        along = [float(each["learning_rates"][0].sum()) for each in case.each[way]]
        assert first["ways"][way]["mean"] == pytest.approx(np.mean(along), rel=1e-4, abs=1e-7)
        error = np.std(along, ddof=1) / math.sqrt(3)
        assert first["ways"][way]["error"] == pytest.approx(error, rel=1e-3, abs=1e-7)
    windows = {(each["tunable"], each["window"]): each for each in case.followed.told["windows"]}
    assert set(windows) == {("learning_rates", 0), ("mixture", 0)}
    dominated = [each for each in seen["windows"] if each["dominated"]]
    assert [windows[each["tunable"], each["window"]]["trainings"] for each in dominated] == [3, 3]
    assert windows["learning_rates", 0]["smoothed"] == pytest.approx(first["slope"], rel=1e-5)
    rest = [each for each in seen["windows"] if not each["dominated"]]
    assert all(each["slope"] == each["ways"]["exact"]["mean"] for each in rest)
    assert len(seen["carried"]) + len(seen["differences"]) == 2
    for each in seen["carried"]:
        told = windows[each["tunable"], each["window"]]
        assert (told["weight"], told["kept"]) == (1.0, 1.0)
    assert 1 < seen["times"] <= SPEC.cost
    json.dumps(chosen, allow_nan=False)


def test_what_was_chosen_is_followed_until_the_horizon_ends(case):
    """By its way, the mean of its trainings: those of each by itself."""
    damped = FollowedWay(0, 6, -1, 3, "damped", 2, [0], [2 * LIMIT], spare=0.0)
    search = case.search._replace(choice=damped._asdict())
    found = case.source(search, case.phase, case.span)
    both = case.each["damped"][:2]
    for key, leaf in found.gradient.items():
        mean = (np.asarray(both[0][key]) + np.asarray(both[1][key])) / 2
        np.testing.assert_allclose(leaf, mean, rtol=1e-4, atol=1e-8)
    followed = case.signal(search, case.phase, case.span, case.grown(found, 2 * LIMIT))
    assert followed.chosen == {"way": "damped", "trainings": 2}
    first, second = followed.told["windows"]
    assert (first["weight"], first["measured"], second["measured"]) == (1.0, False, False)
    np.testing.assert_array_equal(
        followed.estimate.gradient["learning_rates"], found.gradient["learning_rates"]
    )
    far = case.signal(search, case.phase, case.span, case.grown(found, 21 * LIMIT))
    assert far.told["windows"][0]["weight"] < 0.01  # it was measured where less had grown
    over = search._replace(choice=damped._replace(until=0)._asdict())
    assert in_force(over, case.phase, case.span) == (case.phase, 1)
    other = search._replace(choice=damped._replace(steps=5)._asdict())
    assert in_force(other, case.phase, case.span) == (case.phase, 1)


def test_it_rests_while_nothing_grows_and_comes_back(case):
    damped = FollowedWay(0, 6, -1, 3, "damped", 1, [0], [2 * LIMIT], spare=0.0)
    search = case.search._replace(choice=damped._asdict())
    calm = case.signal(search, case.phase, case.span, case.grown(case.estimate, 0.9 * LIMIT))
    assert calm.chosen == {"way": "damped", "trainings": 1} and calm.told is None
    assert in_force(calm.search, case.phase, case.span) == (case.phase, 1)
    again = case.signal(calm.search, case.phase, case.span, case.estimate)
    assert again.chosen is None and again.told["windows"][0]["weight"] < 1
    estimator = in_force(again.search, case.phase, case.span)[0].estimator
    assert isinstance(estimator, schema.MixFlowSpec)
    assert estimator.damping == WAYS["damped"]


def searched(folder, resume=False):
    recipe = tiny(outer={"signal": dataclasses.replace(SPEC, growth=1.0 + 1e-6), "steps": 3})
    with (folder.parent / f"{folder.name}.log").open("a") as said:
        outcome = fit(
            prepared(recipe), folder, resume=resume, console=Console(file=said, width=1000)
        )
    return outcome


def test_a_search_that_is_stopped_makes_the_same_choice(tmp_path, monkeypatch):
    """In the midst of measuring, at point 1, and after it: each line is as if it wasn't."""
    whole = searched(tmp_path / "whole")
    lines = RunFolder(tmp_path / "whole").read_metrics()
    said = (tmp_path / "whole.log").read_text().splitlines()
    assert sum(line.startswith("point 1: signal: ") for line in said) == 1
    assert whole.artefact.result["search"]["chosen"] == [{"step": 1, **lines[1]["chosen"]}]
    assert ["measured" in line.get("chosen", {}) for line in lines] == [False, True, False, False]

    recipe = prepared(tiny(outer={"signal": SPEC})).recipe
    alone = [line | {"held_out": None, "held_out_each": None} for line in lines[1:3]]
    took = spent(recipe, alone, 1).gradients
    seen = lines[1]["chosen"]["measured"]
    assert took >= seen["hypergradients"] * 6 * MIXFLOW
    assert took <= seen["times"] * 2 * 6 * MIXFLOW <= SPEC.cost * 2 * 6 * MIXFLOW

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(weighing, "slopes", stop)
        assert searched(tmp_path / "parted").interrupted
    assert len(RunFolder(tmp_path / "parted").read_metrics()) == 1
    with monkeypatch.context() as patched:
        usual = loop.advance

        def advance(recipe, phase, search, *rest):
            if search.step == 3:
                raise KeyboardInterrupt
            return usual(recipe, phase, search, *rest)

        patched.setattr(loop, "advance", advance)
        assert searched(tmp_path / "parted", resume=True).interrupted
    again = searched(tmp_path / "parted", resume=True)
    found = RunFolder(tmp_path / "parted").read_metrics()
    for before, after in zip(lines, found, strict=True):
        assert {**before, "seconds": 0} == {**after, "seconds": 0}
    assert found[2]["chosen"] == {key: found[1]["chosen"][key] for key in ("way", "trainings")}
    assert again.artefact.result["after"] == whole.artefact.result["after"]
