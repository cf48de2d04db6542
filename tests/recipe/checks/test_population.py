"""Rules on a population of inner trainings."""

import pytest

from metatune.recipe import reading

RECIPE = {
    "model": {"config": {"model_type": "llama"}},
    "data": {
        "domains": {"code": {"shipped": "code_stdlib"}},
        "target": {"code": 1.0},
        "sequence_length": 8,
        "batch_size": 2,
    },
    "inner": {"optimizer": {"kind": "adamw", "learning_rate": 1e-3}, "steps": 10},
    "tune": {"learning_rates": {}},
}


def faults(trainer=None, **outer):
    recipe = {**RECIPE, "outer": {"steps": 1, "population": {"members": 4}, **outer}}
    recipe["trainer"] = trainer
    return [str(fault) for fault in reading.collect(recipe)[1]]


@pytest.mark.parametrize(
    ("outer", "line"),
    [
        (
            {"population": {"members": 1}},
            "outer.population.members = 1: must be a whole number of 2 or above; there is no "
            "default: choose one",
        ),
        (
            {"population": {}},
            "outer.population.members: missing; write a whole number of 2 or above",
        ),
        (
            {
                "trainer": {"command": "true"},
                "estimator": {"kind": "zeroth_order"},
                "population": {"members": 4, "vmap": False},
            },
            "outer.population = {'members': 4, 'stagger': True, 'adam': 'own', 'vmap': False, "
            "'gate': None}: an external trainer does one training at a time, of the seed that it "
            "is told; leave it out, and take more directions instead, or train here",
        ),
        *(
            (
                outer,
                f"outer.population.vmap = True: {kind} goes along directions, each of which would "
                "pass through all members; write false: members are then taken one after the other",
            )
            for kind, outer in (
                ("forward", {"estimator": {"kind": "forward"}}),
                ("forward_gradient", {"estimator": {"kind": "forward_gradient"}}),
                ("zeroth_order", {"estimator": {"kind": "zeroth_order"}}),
                ("auto", {"estimator": {"kind": "auto"}, "objective": {"measure": "accuracy"}}),
            )
        ),
        (
            {
                "estimator": {"kind": "persistent_es"},
                "unroll": {"kind": "online", "window": 5},
            },
            "outer.population = {'members': 4, 'stagger': True, 'adam': 'own', 'vmap': True, "
            "'gate': None}: the "
            "estimator persistent_es has trainings of its own that live on, in pairs; leave it "
            "out, and take more pairs instead, or another estimator",
        ),
        (
            {"unroll": {"kind": "online", "window": 4}},
            "outer.population.stagger = True: members of other ages need lifetimes of whole "
            "windows, but the window, 4, doesn't divide the lifetime, 10; change one of them, or "
            "write false: all members are then of one age",
        ),
    ],
)
def test_what_members_cannot_do_is_refused(outer, line):
    assert faults(**outer) == [line]


@pytest.mark.parametrize(
    "outer",
    [
        {},
        {"estimator": {"kind": "auto"}},
        {"estimator": {"kind": "forward"}, "population": {"members": 4, "vmap": False}},
        {"unroll": {"kind": "online", "window": 5}},
        {
            "unroll": {"kind": "online", "window": 4},
            "population": {"members": 4, "stagger": False},
        },
    ],
)
def test_what_they_can_do_is_not(outer):
    assert faults(**outer) == []
