"""Rules of a recipe whose learning rates are shared adaptively."""

import pytest

from metatune.recipe import reading, schema
from metatune.recipe.checks.sharing import a_search_can_split, there_is_something_to_share

SHOWN = "{'every': 5, 'threshold': 1.5}"
PATH = "tune.learning_rates.sharing"


@pytest.mark.parametrize(
    ("rates", "outer", "lines"),
    [
        (
            {"per": "row"},
            {"steps": 20},
            [f"{PATH} = {SHOWN}: is of groups of parameters, but per is row; take tensor, or"],
        ),
        (
            {"per": "global"},
            {"steps": 20},
            [f"{PATH} = {SHOWN}: has no effect on a single group and window; leave it out, or"],
        ),
        (
            {"sharing": {"every": 3, "threshold": 1}},
            {"steps": 20},
            [
                f"{PATH}.every = 3: must be a whole number from 4 to 16; leave it out for the",
                f"{PATH}.threshold = 1.0: is a probability of 0.16, but 3 outer steps ",
            ],
        ),
        (
            {"sharing": {"threshold": 0}},
            {"steps": 20},
            [f"{PATH}.threshold = 0.0: must be a number above 0; leave it out for the"],
        ),
        (
            {},
            {"phases": [{"steps": 2}, {"steps": 3}]},
            [f"{PATH}.every = 5: must be less than the outer steps, 5: nothing would be split"],
        ),
        (
            {},
            {
                "phases": [
                    {"steps": 20},
                    {
                        "steps": 20,
                        "optimizer": {"kind": "sign"},
                        "unroll": {"kind": "online", "window": 5},
                    },
                ],
                "fresh": {"initialisation": False, "data": False},
            },
            [
                "outer.fresh = {'initialisation': False, 'data': False}: must draw initialisation",
                "outer.phases[1].optimizer.kind = 'sign': halves its steps for good: what is",
                "outer.phases[1].unroll.kind = 'online': differentiates other inner steps each",
            ],
        ),
        (
            {},
            {"steps": 6, "population": {"members": 2, "adam": "own"}},
            ["outer.population.adam = 'own': has an optimizer for each member, but sharing splits"],
        ),
        ({}, {"steps": 6, "fresh": {"initialisation": False}}, []),
        ({"sharing": {"every": 7, "threshold": 2}}, {"steps": 8}, []),
        ({"sharing": None, "per": "row"}, {"steps": 1, "optimizer": {"kind": "sign"}}, []),
    ],
)
def test_faults(tree, rates, outer, lines):
    tree["tune"] = {"learning_rates": {"sharing": {}} | rates}
    tree["outer"] = outer
    _, faults = reading.collect(tree)
    assert len(faults) == len(lines)
    for fault, line in zip(faults, lines, strict=True):
        assert str(fault).startswith(line)


def test_rules_say_nothing_where_nothing_is_shared():
    rates, outer = schema.LearningRatesSpec(per="row"), schema.OuterSpec(steps=1)
    assert not [*there_is_something_to_share(rates), *a_search_can_split(rates, outer)]
