"""Seeds are whole numbers from 0 to 2**64 - 1, kept as they are."""

import json

import pytest
import yaml

from metatune.recipe import writing
from metatune.recipe.faults import RecipeError
from metatune.recipe.reading import parse, read

LARGEST = 2**64 - 1


@pytest.mark.parametrize("seed", [0, 5, 2**32 + 5, 2**53 + 1, 2**63, LARGEST])
def test_a_seed_comes_back_as_it_is(tree, tmp_path, seed):
    (tmp_path / "recipe.yaml").write_text(json.dumps(tree))
    recipe = read(tmp_path / "recipe.yaml", [f"seed={seed}"])
    assert recipe.seed == seed and isinstance(recipe.seed, int)
    assert yaml.safe_load(writing.to_yaml(recipe))["seed"] == seed


@pytest.mark.parametrize("seed", [-1, 2**64, 1e30])
@pytest.mark.parametrize("place", ["seed", "data.domains.code.corrupt.seed"])
def test_other_numbers_are_refused_by_name(tree, seed, place):
    if place == "seed":
        tree["seed"] = seed
    else:
        tree["data"]["domains"]["code"]["corrupt"] = {"share": 0.5, "seed": seed}
    with pytest.raises(RecipeError) as error:
        parse(tree, "memory")
    said = [str(fault) for fault in error.value.faults]
    assert said == [
        f"{place} = {int(seed)}: must be a whole number from 0 to 2**64 - 1; "
        "leave it out for the default, 0"
    ]
