"""What a population is said to cost."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from recipes import CODE, tiny

from metatune.hypergrad import programs
from metatune.hypergrad.stores import tree_bytes
from metatune.inner import estimators, prepare
from metatune.plan import Memory, choice, cost_model
from metatune.plan.cost import Cost, Seconds
from metatune.plan.timing import Line
from metatune.plan.work import Work, together
from metatune.recipe import schema

RECIPE = tiny(
    data={"domains": {"code": CODE}},
    inner={"steps": 8},
    tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="global", windows=2)),
    outer={
        "steps": 1,
        "estimator": schema.MixFlowSpec(segment=4, checkpoints=schema.CheckpointsSpec(keep="all")),
    },
)


@pytest.fixture(scope="module")
def prepared():
    return prepare(RECIPE)


def changed(training, **changes):
    outer = dataclasses.replace(RECIPE.outer, **changes)
    return dataclasses.replace(training, recipe=dataclasses.replace(RECIPE, outer=outer))


def test_members_in_one_program_are_planned_as_that_program(prepared):
    """Of shapes alone: it is traced, and carries as many states, gradients and losses."""
    estimator = estimators.build(RECIPE.outer.estimator)
    one, work = Work(prepared, estimator), Work(prepared, estimator, members=3)
    runs = [
        jax.eval_shape(
            partial(programs.forward, each.problem, estimator),
            each.eta(),
            each.state(),
            each.segment(1),
        )
        for each in (one, work)
    ]
    for part in ("state", "saved"):
        sizes = [tree_bytes(getattr(run, part)) for run in runs]
        assert sizes[1] == 3 * sizes[0]
    assert runs[0].losses == runs[1].losses  # those of all in a sum
    assert work.segment(1).batches.tokens.shape == (4, 4, 3, 16)


def test_the_recipe_says_whether_they_are(prepared):
    for population, members in (
        (None, None),
        (schema.PopulationSpec(members=3), 3),
        (schema.PopulationSpec(members=3, vmap=False), None),
    ):
        assert together(changed(prepared, population=population).recipe) == members


@pytest.mark.parametrize(
    ("population", "unroll", "states", "times"),
    [
        (None, schema.FullSpec(), 0, 1),
        (schema.PopulationSpec(members=3), schema.FullSpec(), 0, 1),
        (schema.PopulationSpec(members=3), schema.OnlineSpec(window=4), 3, 1),
        (schema.PopulationSpec(members=3, vmap=False), schema.FullSpec(), 0, 3),
        (schema.PopulationSpec(members=3, vmap=False), schema.OnlineSpec(window=4), 6, 3),
    ],
)
def test_what_goes_on_and_what_is_done_in_turn_is_counted(
    prepared, tmp_path, monkeypatch, population, unroll, states, times
):
    one = Memory(100, 10, 5, 1, host=0, disk=0, recomputed_segments=0)
    seconds = Seconds(7.0, Line(1.0, 2.0))
    costs = {schema.MixFlowSpec: lambda *_: Cost(one, 2.0, tuple, lambda lines: seconds)}
    monkeypatch.setattr(cost_model, "COSTS", costs)
    training = changed(prepared, population=population, unroll=unroll)
    found = cost_model.cost(training, RECIPE.outer.estimator, tmp_path)
    state = tree_bytes(jax.eval_shape(prepared.initialise, jax.random.key(0)))
    assert found.memory == one._replace(state=100 + states * state)
    assert found.seconds({}) == Seconds(times * 7.0, seconds.training)
    assert found.compilation == 2.0


def test_where_members_are_in_one_program_reverse_mode_is_chosen_from(prepared):
    kinds = {}
    for vmap in (True, False):
        training = changed(prepared, population=schema.PopulationSpec(members=2, vmap=vmap))
        kinds[vmap] = {spec.kind for spec, _ in choice.candidates(training, schema.AutoSpec())}
        assert choice.forward_may_fit(training) == (not vmap)
    assert kinds == {True: {"mixflow"}, False: {"mixflow", "forward", "forward_gradient"}}
    assert np.sqrt(8) * 2 > choice.meta_parameters(prepared)  # so that forward mode might fit
