"""What a search over several sizes is said to cost: that of each, added up by hand."""

import dataclasses

import pytest
from recipes import CODE, tiny

from metatune.inner import estimators, prepare
from metatune.plan import choice, cost_model, reverse_mode
from metatune.plan.compiling import Program
from metatune.plan.pace import pace
from metatune.plan.timing import Line
from metatune.plan.work import Work
from metatune.recipe import schema
from metatune.transfer.sized import sizes

RECIPE = tiny(
    data={"domains": {"code": CODE}},
    tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="kind", windows=2)),
    outer={
        "steps": 3,
        "estimator": schema.MixFlowSpec(segment=4),
        "robust": schema.RobustSpec(widths=(1, 2), seeds=2),
        "validation": schema.ValidationSpec(seeds=2, sequences=8),
        "test": schema.FinalTestSpec(seeds=1, sequences=8),
    },
)
SEGMENT = {"proxy": 1.0, "width x2": 3.0}
STEP = {"proxy": 10.0, "width x2": 40.0}


def lines(name):
    return {
        "forward": Line(SEGMENT[name], STEP[name]),
        "pullback": Line(2 * SEGMENT[name], 3 * STEP[name]),
    }


def alone(training):
    recipe = training.recipe
    return dataclasses.replace(
        training,
        recipe=dataclasses.replace(recipe, outer=dataclasses.replace(recipe.outer, robust=None)),
    )


@pytest.fixture(scope="module", autouse=True)
def uncompiled():
    """What is added up are programs' names, states' bytes, and seconds that are said here."""

    def analysed(lower, tell):
        return {name: Program(name, name, None, 0, 0.0) for name in lower}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reverse_mode, "analysed", analysed)
        yield


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


@pytest.fixture(scope="module")
def whole(training, tmp_path_factory):
    return cost_model.cost(training, RECIPE.outer.estimator, tmp_path_factory.mktemp("disk"))


def test_a_hypergradient_takes_that_of_each_size_and_the_memory_of_the_largest(
    training, whole, tmp_path
):
    each = {
        one.name: cost_model.cost(alone(one.training), RECIPE.outer.estimator, tmp_path)
        for one in sizes(training)
    }
    assert list(each) == list(SEGMENT)
    assert whole.memory == each["width x2"].memory != each["proxy"].memory
    assert [probe.program.name for probe in whole.probes()] == [
        f"{program} at {name}" for name in each for program in ("forward", "pullback")
    ]
    found = whole.seconds(
        {f"{key} at {name}": line for name in each for key, line in lines(name).items()}
    )
    one_by_one = [cost.seconds(lines(name)).hypergradient for name, cost in each.items()]
    assert found.hypergradient == pytest.approx(2 * sum(one_by_one))
    assert found.training == Line(4.0, 50.0)
    assert found.own == Line(1.0, 10.0)


def test_a_run_validates_all_sizes_and_reports_one(training, whole):
    best = whole.seconds(
        {f"{key} at {name}": line for name in SEGMENT for key, line in lines(name).items()}
    )
    found = pace(Work(training, estimators.build(RECIPE.outer.estimator)), best, (), 0.0)
    # Six steps in segments of four, and 8 sequences forward: a third of two gradients.
    of_all, of_one = 2 * 4.0 + 6 * 50.0 + 2 / 3 * 50.0, 2 * 1.0 + 6 * 10.0 + 2 / 3 * 10.0
    assert found.judging == pytest.approx(2 * of_all)
    assert found.run == pytest.approx(3 * found.outer_step + 2 * of_all + 2 * of_one)
    # Differences of the two windows, two trainings each, of two seeds at every size.
    assert found.differences == pytest.approx(8 * of_all)


def test_gradients_are_counted_in_those_of_one_training_of_each_size(training):
    assert cost_model.repeats(training) == 2
    assert not choice.forward_may_fit(training)
