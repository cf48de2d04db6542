"""Which parameters share a rate."""

import numpy as np
import pytest

from metatune.models import ParameterNames
from metatune.recipe.faults import RecipeError
from metatune.tunables.groups import BASE, group

NAMES = {
    "embed": ParameterNames(("model.embed.weight",), stacked=False),
    "layers": {
        "up": ParameterNames(("model.layers.0.up.weight", "model.layers.1.up.weight"), True),
        "norm": ParameterNames(("model.layers.0.norm.weight", "model.layers.1.norm.weight"), True),
    },
}


def test_global_is_one_group():
    groups = group(NAMES, "global", "path")
    assert groups.labels == ("all",)
    assert len(groups.members["all"]) == 5
    np.testing.assert_array_equal(groups.index["layers"]["up"], [0, 0])
    assert groups.index["embed"].shape == ()


def test_layers_are_groups_and_so_is_what_lies_outside_them():
    groups = group(NAMES, "layer", "path")
    assert groups.labels == ("model.embed", "model.layers.0", "model.layers.1")
    np.testing.assert_array_equal(groups.index["layers"]["up"], [1, 2])
    np.testing.assert_array_equal(groups.index["layers"]["norm"], [1, 2])


def test_every_tensor_is_a_group():
    groups = group(NAMES, "tensor", "path")
    assert len(groups.labels) == 5
    assert groups.members["model.layers.1.up.weight"] == ("model.layers.1.up.weight",)
    taken = np.concatenate(
        [np.ravel(groups.index["embed"]), *map(np.ravel, groups.index["layers"].values())]
    )
    assert sorted(taken) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "per", [{"first": r"layers\.0", "matrices": "up"}, (r"layers\.0", "up")], ids=["named", "list"]
)
def test_the_first_expression_found_takes_a_parameter(per):
    groups = group(NAMES, per, "path")
    assert groups.labels == (("first", "matrices") if isinstance(per, dict) else per)
    np.testing.assert_array_equal(groups.index["layers"]["up"], [0, 1])
    np.testing.assert_array_equal(groups.index["layers"]["norm"], [0, BASE])
    assert groups.index["embed"] == BASE


def test_an_expression_without_a_parameter_is_refused():
    per = {"all": "weight", "late": "norm", "none": "bias"}
    with pytest.raises(RecipeError) as refused:
        group(NAMES, per, "tune.learning_rates.per")
    late, none = refused.value.faults
    assert late.path == "tune.learning_rates.per.late"
    assert late.value == "norm"
    assert "an earlier expression" in late.problem
    assert none.path == "tune.learning_rates.per.none"
    assert "model.embed.weight" in none.cure
