"""Rules on learned updates and what else a recipe has."""

import pytest

from metatune.inner.optimizers import BUILDERS
from metatune.recipe import reading, schema
from metatune.recipe.checks.learned_update import UNCORRECTED
from metatune.recipe.faults import RecipeError


def recipe(tune, optimizer="adamw", **outer):
    return {
        "model": {"config": {"model_type": "llama"}},
        "data": {
            "domains": {"a": {"shipped": "code_stdlib"}},
            "target": {"a": 1.0},
            "sequence_length": 16,
            "batch_size": 4,
        },
        "inner": {"optimizer": {"kind": optimizer, "learning_rate": 1e-3}, "steps": 10},
        "tune": tune,
        "outer": {"steps": 1, **outer},
    }


def faults(*args, **outer):
    with pytest.raises(RecipeError) as refused:
        reading.parse(recipe(*args, **outer), "mine.yaml")
    return [str(fault) for fault in refused.value.faults]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "muon", "adafactor", "adopt"])
def test_a_step_along_a_direction_can_be_corrected(optimizer):
    read = reading.parse(recipe({"learned_update": {}}, optimizer), "mine.yaml")
    assert read.tune.learned_update == schema.LearnedUpdateSpec()


def test_an_average_can_not():
    (fault,) = faults({"learned_update": {}}, "schedule_free_adamw")
    assert fault.startswith("tune.learned_update = ")
    assert "schedule_free_adamw, whose average the steps only feed; take another" in fault


def test_nor_can_steps_that_keep_norms():
    assert set(UNCORRECTED) == {*BUILDERS, schema.GroupsSpec}
    (fault,) = faults({"learned_update": {}}, "muonh")
    assert "inner.optimizer is muonh, whose matrices keep their norm, whatever" in fault


def test_learning_rates_alone_say_how_large_a_step_is():
    kept = {"learning_rates": {}, "learned_update": {"step_size": "kept"}}
    reading.parse(recipe(kept), "mine.yaml")
    assert faults({"learning_rates": {}, "learned_update": {}}) == [
        "tune.learned_update.step_size = 'learned': tune.learning_rates is tuned too: both say "
        "how large a step is; write kept, or take out one of the two"
    ]
    (fault,) = faults({**kept, "learning_rates": {"per": "row"}})
    assert "tune.learning_rates.per = 'row'" in fault
    assert "both say how far single elements move; tune the rates of whole parameters" in fault


def test_a_command_is_told_no_networks():
    tree = recipe({"learned_update": {}}, estimator={"kind": "zeroth_order"})
    with pytest.raises(RecipeError) as refused:
        reading.parse(tree | {"trainer": {"command": "train"}}, "mine.yaml")
    (fault,) = map(str, refused.value.faults)
    assert "an external trainer is told schedules alone, no networks" in fault


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ({"hidden_size": 3}, "hidden_size = 3: must be a whole number from 4 to 32"),
        ({"decays": []}, "decays = (): must be a list of different fractions between 0 and 1"),
        ({"decays": [0.5, 0.5]}, "must be a list of different fractions between 0 and 1"),
        ({"max_multiplier": 1}, "max_multiplier = 1.0: must be a number above 1"),
    ],
)
def test_a_wrong_value_is_named(said, allowed):
    (fault,) = faults({"learned_update": said})
    assert allowed in fault
