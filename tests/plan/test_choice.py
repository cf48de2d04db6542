"""Which estimator is taken where a recipe leaves it open."""

import dataclasses
import re
from unittest.mock import Mock

import pytest
from recipes import CODE, tiny

from metatune import plan as plans
from metatune.hypergrad import CheckpointError, EstimatorError
from metatune.inner import prepare
from metatune.plan import Memory, choice
from metatune.plan.cost import Cost
from metatune.recipe import reading, schema, writing

GIB = 2**30
EMPTY = Memory(0, 0, 0, 0, host=0, disk=0, recomputed_segments=0)


def recipe(steps=20, tune=None, measure: schema.Measure = "loss", **auto):
    return tiny(
        model={"remat": True},
        data={"domains": {"code": CODE}},
        inner={"steps": steps},
        tune=schema.TuneSpec(tune or schema.LearningRatesSpec(per="global", windows=8)),
        outer=schema.OuterSpec(
            steps=4,
            estimator=schema.AutoSpec(**auto),
            objective=schema.ObjectiveSpec(measure=measure),
        ),
    )


@pytest.fixture
def needs(monkeypatch):
    """Says what each kind of estimator takes, on a device of one gibibyte."""

    def needs(**bytes_by_kind):
        def cost(training, spec, folder, tell):
            found = bytes_by_kind.get(spec.kind, GIB // 2)
            if isinstance(found, Exception):
                raise found
            return Cost(EMPTY._replace(state=found), 0.0, tuple, Mock())

        monkeypatch.setattr(choice, "cost", cost)
        monkeypatch.setattr(choice, "limit_bytes", lambda: GIB)

    return needs


def decided(wanted, folder, **options):
    training, reasons = plans.decided(prepare(wanted), folder=folder, **options)
    return training.recipe.outer.estimator, "".join(reasons)


ONE = schema.LearningRatesSpec(per="global", windows=1)
MANY = schema.LearningRatesSpec(per="tensor", windows=1)
FULL = {"mixflow": 2 * GIB}


@pytest.mark.parametrize(
    ("bytes_by_kind", "tune", "kind", "why"),
    [
        ({}, None, "mixflow", "mixflow, because it is exact, .* N = 8 meta-param.*; it takes 512"),
        ({}, ONE, "forward", "the fastest that fits for N = 1 meta-parameters"),
        (FULL, None, "forward", "mixflow would take 2.00 GiB .*; mixflow would take"),
        ({"mixflow": CheckpointError("no room")}, None, "forward", "mixflow: no room"),
        (FULL, MANY, "forward_gradient", "nothing exact fits; 8 of 12 directions are unbiased"),
        (
            {**FULL, "forward": EstimatorError("too many tangents")},
            None,
            "forward_gradient",
            "forward: too many tangents",
        ),
    ],
)
def test_the_first_that_fits(needs, tmp_path, bytes_by_kind, tune, kind, why):
    """2√20 is 8.9: of 8 meta-parameters forward mode may take less, of 12 it doesn't."""
    needs(**bytes_by_kind)
    spec, said = decided(recipe(tune=tune), tmp_path)
    assert spec.kind == kind
    assert re.search(why, said), said


def test_nothing_fits(needs, tmp_path):
    needs(**FULL, forward=3 * GIB, forward_gradient=2 * GIB)
    with pytest.raises(EstimatorError, match="no estimator fits 1.00 GiB .*lower data.batch_size"):
        decided(recipe(), tmp_path)


@pytest.mark.parametrize("measure", ["accuracy", "exact_match"])
def test_what_has_no_gradient_takes_zeroth_order(needs, tmp_path, measure):
    needs()
    spec, why = decided(recipe(measure=measure, segment=5), tmp_path)
    assert spec == schema.ZerothOrderSpec(segment=5)
    assert why.startswith(f"zeroth_order, because {measure} can't be differentiated; it takes")


def test_what_the_recipe_says_of_checkpoints_and_segments_holds(needs, tmp_path):
    needs()
    kept = schema.CheckpointsSpec(keep="sqrt", store="host")
    spec, _ = decided(recipe(segment=3, checkpoints=kept), tmp_path)
    assert spec == schema.MixFlowSpec(segment=3, checkpoints=kept)


def test_a_run_that_goes_on_keeps_what_was_chosen(needs, tmp_path):
    needs(mixflow=EstimatorError("not asked"))
    before = schema.ReverseSpec(segment=7)
    spec, why = decided(recipe(), tmp_path, before=schema.OuterSpec(steps=4, estimator=before))
    assert (spec, why) == (before, "reverse, as when the run began")


def test_what_is_chosen_is_part_of_a_recipe(needs, tmp_path):
    needs()
    training, _ = plans.decided(prepare(recipe()), folder=tmp_path)
    assert reading.parse(writing.to_tree(training.recipe), "recipe") == training.recipe


def test_phases_that_leave_it_open_each_have_theirs(needs, tmp_path):
    needs(mixflow=2 * GIB)
    left_open = recipe()
    outer = schema.OuterSpec(
        estimator=schema.AutoSpec(),
        phases=(
            schema.PhaseSpec(2),
            schema.PhaseSpec(1, schema.ReverseSpec()),
            schema.PhaseSpec(2),
        ),
    )
    wanted = dataclasses.replace(left_open, outer=outer)
    training, reasons = plans.decided(prepare(wanted), folder=tmp_path)
    found = [phase.estimator for phase in training.recipe.outer.phases or ()]
    assert found == [schema.ForwardSpec(), schema.ReverseSpec(), schema.ForwardSpec()]
    assert [why[:10] for why in reasons] == ["of phase 1", "of phase 3"]
    assert reading.parse(writing.to_tree(training.recipe), "recipe") == training.recipe
    needs(forward=EstimatorError("not asked"))
    before = training.recipe.outer
    again, _ = plans.decided(prepare(wanted), folder=tmp_path, before=before)
    assert again.recipe == training.recipe


def test_where_nothing_is_left_open_nothing_is_chosen(tmp_path):
    closed = recipe()
    outer = dataclasses.replace(closed.outer, estimator=schema.ReverseSpec())
    closed = dataclasses.replace(closed, outer=outer)
    assert decided(closed, tmp_path) == (schema.ReverseSpec(), "")
