"""Fields that have moved: wherever the old one stands, the new one is named."""

import pytest

from metatune.recipe import moved, reading, reference
from metatune.recipe.faults import RecipeError
from metatune.recipe.moved import MOVED, refusals

KINDS = {"estimator": {"kind": "auto"}, "optimizer": {"kind": "adam"}}
NAMED = ("outer.clip.", ".per_tunable.")
"""Before keys that are a recipe's own."""

COMMAND = {"kind": "external", "command": "train", "directions": 4}


def put(tree, path, value):
    """Sets one value of `tree`, making sections, and lists of one, on the way."""
    *above, name = path.split(".")
    for key in above:
        if key.endswith("[]"):
            (tree,) = tree.setdefault(key.removesuffix("[]"), [{"steps": 2}])
        else:
            tree = tree.setdefault(key, dict(KINDS.get(key, {})))
    tree[name] = value


def value_of(field):
    if any(part in field.old for part in NAMED):
        return 0.5
    return {} if field.value is moved.ABSENT else field.value


@pytest.mark.parametrize("field", MOVED, ids=lambda field: field.old)
def test_the_new_place_is_there_and_the_old_one_is_not(field):
    assert reference.find(field.new.replace("[]", "[0]"))
    if field.value is moved.ABSENT and not any(part in field.old for part in NAMED):
        with pytest.raises(RecipeError, match=f"has moved to {field.new}, because"):
            reference.find(field.old.replace("[]", "[0]"))


@pytest.mark.parametrize("field", MOVED, ids=lambda field: field.old)
def test_the_old_place_is_refused_with_the_new_one(tree, field):
    if "phases" in field.old:
        del tree["outer"]["steps"]
    put(tree, field.old, value_of(field))
    path = field.old.replace("[]", "[0]")
    found = [str(fault) for fault in reading.collect(tree)[1] if fault.path == path]
    assert len(found) == 1
    assert f"{path} = {value_of(field)!r}: has moved to {field.new}, because" in found[0]
    assert [str(fault) for fault in refusals(tree)] == found


@pytest.mark.parametrize(
    ("outer", "lines"),
    [
        (
            {"steps": 2, "estimator": COMMAND},
            [
                "outer.estimator.kind = 'external': has moved to trainer, because a command "
                "trains, it is no estimator; write trainer: {command: ...}, with timeout_seconds "
                "and parallel, and leave directions, step and distribution here: {kind: "
                "zeroth_order, step: 0.1}"
            ],
        ),
        (
            {"steps": 2, "estimator": {"kind": "zeroth_order", "objective": "accuracy"}},
            [
                "outer.estimator.objective = 'accuracy': has moved to outer.objective.measure, "
                "because what is measured is no choice of the estimator's, nor of a phase's; "
                "write it there"
            ],
        ),
    ],
)
def test_the_words(tree, outer, lines):
    """No other fault is found where the default stands in for what isn't read."""
    tree["outer"] = outer
    assert [str(fault) for fault in reading.collect(tree)[1]] == lines
    tree["trainer"] = {"command": "train"}
    if outer["estimator"] is COMMAND:
        assert [str(fault) for fault in reading.collect(tree)[1]] == lines


def test_a_name_of_the_recipe_s_own_has_not_moved(tree):
    tree["data"]["domains"]["judge"] = {"path": "judge.txt"}
    assert reading.collect(tree)[1] == ()
    assert list(refusals(tree)) == []
