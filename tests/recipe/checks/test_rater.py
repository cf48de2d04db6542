"""Rules on a rater of sequences."""

import pytest

from metatune.recipe import reading, schema
from metatune.recipe.faults import RecipeError


def faults(tree):
    with pytest.raises(RecipeError) as refused:
        reading.parse(tree, "recipe")
    return [str(fault) for fault in refused.value.faults]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"kind": "mlp"}, schema.MlpRaterSpec()),
        (
            {"kind": "transformer", "hidden_size": 8, "heads": 4, "temperature": 2},
            schema.TransformerRaterSpec(hidden_size=8, heads=4, temperature=2.0),
        ),
    ],
)
def test_it_is_read(tree, spec, expected):
    tree["tune"] = {"rater": spec}
    tune = reading.parse(tree, "recipe").tune
    assert tune.rater == expected
    assert [entry[:2] for entry in tune.entries()] == [("rater", "tune.rater")]


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({}, "tune.rater.kind: missing; write one of transformer, mlp"),
        (
            {"kind": "mlp", "heads": 2},
            "tune.rater.heads = 2: unknown key",
        ),
        (
            {"kind": "transformer", "hidden_size": 6, "heads": 4},
            "tune.rater.hidden_size = 6: must be a multiple of tune.rater.heads, 4; change one of "
            "the two",
        ),
        ({"kind": "mlp", "temperature": 0}, "tune.rater.temperature = 0.0: must be a number above"),
    ],
)
def test_what_is_wrong_with_it_is_said(tree, spec, line):
    tree["tune"] = {"rater": spec}
    (found,) = faults(tree)
    assert found.startswith(line)


def test_it_sees_whole_batches(tree):
    tree["tune"], tree["inner"]["micro_batch"] = {"rater": {"kind": "mlp"}}, 4
    assert faults(tree) == [
        "inner.micro_batch = 4: tune.rater is tuned: the weights of a batch depend on all of its "
        "sequences; take one of the two out"
    ]


def test_a_command_is_told_no_network(tree):
    tree["tune"] = {"rater": {"kind": "mlp"}}
    tree["outer"] = {"steps": 1, "estimator": {"kind": "zeroth_order"}}
    tree["trainer"] = {"command": "train"}
    (found,) = faults(tree)
    assert found.startswith("tune.rater = {'kind': 'mlp'")
    assert found.endswith(
        "an external trainer is told schedules, no network; take it out, or train here"
    )
