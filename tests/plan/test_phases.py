"""What a search in phases is said to cost, each phase's own cost being made up."""

import dataclasses

import pytest
from recipes import CODE, tiny

from metatune.inner import prepare
from metatune.plan import Alternative, Memory, Pace, Plan, by_phase, expected
from metatune.plan import phases as in_phases
from metatune.recipe import schema

RECIPE = tiny(
    data={"domains": {"code": CODE}},
    inner={"steps": 20},
    tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="global")),
    outer={
        "steps": None,
        "phases": (
            schema.PhaseSpec(3),
            schema.PhaseSpec(5, schema.ReverseSpec(), schema.FullSpec(horizons=(2, 9))),
            schema.PhaseSpec(1),
        ),
    },
)
COMPILATION, JUDGING, REPORT = 3, 1, 4


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


@pytest.fixture
def asked(monkeypatch):
    """The searches that were asked for: their steps, estimator and horizons."""
    seen = []

    def hear(training):
        outer = training.recipe.outer
        assert outer.phases is None
        seen.append((outer.steps, outer.estimator.kind, outer.unroll.horizons))
        return outer

    def expected_alone(training, *, folder, listener):
        outer = hear(training)
        seconds = 10 if outer.unroll.horizons is None else outer.unroll.horizons[0]
        run = COMPILATION + outer.steps * (seconds + JUDGING) + JUDGING + REPORT
        pace = Pace(seconds, JUDGING, seconds + JUDGING, run, COMPILATION)
        return Memory(seconds, 0, 0, 0, 0, 0, 0), pace

    def plan(training, *, folder, listener):
        hear(training)
        changes = ("outer.estimator.kind=mixflow", "outer.estimator.save_gradients=false")
        return Plan((Alternative("mixflow", changes, None, None),), 1, "cpu")

    monkeypatch.setattr(in_phases, "expected_alone", expected_alone)
    monkeypatch.setattr(in_phases, "plan", plan)
    return seen


def test_phases_add_up(training, asked, tmp_path):
    """Compiling and searching of each; the last judgement and the report once."""
    memory, pace = expected(training, folder=tmp_path)
    assert asked == [
        (3, "mixflow", None),
        (1, "reverse", (2,)),
        (4, "reverse", (9,)),
        (1, "mixflow", None),
    ]
    assert memory.device == 10
    searching = 3 * 11 + 1 * 3 + 4 * 10 + 1 * 11
    assert pace.outer_step == pytest.approx(searching / 9)
    assert pace.hypergradient == pytest.approx((searching - 9 * JUDGING) / 9)
    assert pace.compilation == 4 * COMPILATION
    assert pace.run == pytest.approx(4 * COMPILATION + searching + JUDGING + REPORT)


def test_each_phase_has_a_plan_that_names_its_place_in_the_recipe(training, asked, tmp_path):
    plans = by_phase(training, folder=tmp_path)
    assert asked == [(3, "mixflow", None), (5, "reverse", (9,)), (1, "mixflow", None)]
    assert plans[1].alternatives[0].changes == (
        "outer.phases[1].estimator.kind=mixflow",
        "outer.phases[1].estimator.save_gradients=false",
    )


def test_a_search_without_phases_is_the_only_one(training, asked, tmp_path):
    outer = schema.OuterSpec(steps=6)
    alone = dataclasses.replace(training, recipe=dataclasses.replace(RECIPE, outer=outer))
    _, pace = expected(alone, folder=tmp_path)
    assert (pace.outer_step, pace.run) == (11, pytest.approx(3 + 66 + 1 + 4))
    (plan,) = by_phase(alone, folder=tmp_path)
    assert plan.alternatives[0].changes[0] == "outer.estimator.kind=mixflow"
