"""The rungs of a ladder, as they are asked for."""

import dataclasses
import json

import pytest
from recipes import tiny

from metatune.ladder.rungs import parse, refuse_no_ladder
from metatune.models import build
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.transfer.rung import PROXY, Rung, recipe_at


def test_rungs_come_in_the_order_of_their_compute_the_proxy_first():
    found = parse(["width=2,4", "depth=2", "steps=4", "all=2"])
    assert [rung.name for rung in found] == [
        "proxy",
        "depth x2",
        "steps x4",
        "width x2",
        "all x2",
        "width x4",
    ]
    assert [rung.compute for rung in found] == [1, 2, 4, 4, 16, 16]
    assert parse(["depth=2", "depth=2"]) == (PROXY, Rung(depth=2))
    assert Rung(width=2, steps=3).name == "width x2, steps x3"


def test_a_config_is_a_rung_called_after_its_file_or_folder(tmp_path):
    config = {"model_type": "llama", "hidden_size": 8}
    (tmp_path / "wide").mkdir()
    files = [tmp_path / "wide" / "config.json", tmp_path / "deep.json"]
    for number, file in enumerate(files):
        file.write_text(json.dumps({**config, "num_hidden_layers": number}))
    found = parse(["width=2", *map(str, files)])
    assert [rung.name for rung in found] == ["proxy", "width x2", "wide", "deep"]
    assert len({rung.key for rung in found}) == 4
    recipe = recipe_at(tiny(), found[-1])
    assert recipe.model.config == {**config, "num_hidden_layers": 1}
    assert recipe.inner == tiny().inner
    # What is kept of a config is of what stands in it.
    files[1].write_text(json.dumps({**config, "num_hidden_layers": 3}))
    again = parse([str(files[1])])[-1]
    assert (again.name, again.key == found[-1].key) == ("deep", False)


def test_what_is_no_config_is_refused_by_name(tmp_path):
    (tmp_path / "proxy.json").write_text('{"model_type": "llama"}')
    (tmp_path / "list.json").write_text("[]")
    words = [str(tmp_path / name) for name in ("none.json", "list.json", "proxy.json")]
    with pytest.raises(RecipeError) as caught:
        parse(words)
    for said in (
        "none.json': can't be read as a model's config",
        "list.json': can't be read as a model's config: it has no model_type; give a config.json",
        "proxy.json': is called proxy, as another rung is",
    ):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hight=2"], "--ladder = hight=2: unknown axis; allowed: width, depth, steps, all"),
        (["width=1"], "--ladder = width=1: '1' must be a whole number from 2 to 64; write width=2"),
        (["width=2,x", "steps="], "'x' must be a whole number from 2 to 64"),
        (["width=65"], "'65' must be a whole number from 2 to 64"),
    ],
)
def test_what_is_no_rung_is_refused_by_name(words, said):
    with pytest.raises(RecipeError) as caught:
        parse(words)
    assert said in str(caught.value).replace("'hight=2'", "hight=2").replace("'width=1'", "width=1")


def test_a_recipe_at_a_rung_is_enlarged_and_lengthened():
    recipe = recipe_at(tiny(), Rung(width=2, depth=3, steps=4))
    assert recipe.model.config is not None
    model = build(recipe.model.config, vocab_size=10, path="rung")
    assert model.config.hidden_size == 16
    assert model.config.num_attention_heads == 4
    assert model.config.head_dim == 4
    assert len(model.config.layers) == 3
    assert recipe.inner.steps == 24
    assert recipe_at(tiny(), PROXY) == tiny()


def test_what_has_one_size_is_refused():
    refuse_no_ladder(tiny())
    recipe = tiny()
    model = dataclasses.replace(recipe.model, config=None, pretrained="somewhere")
    with pytest.raises(RecipeError, match=r"model\.pretrained = .*is a model of one size"):
        refuse_no_ladder(dataclasses.replace(recipe, model=model))
    outside = dataclasses.replace(recipe, trainer=schema.TrainerSpec("true"))
    with pytest.raises(RecipeError, match=r"trainer\.command = .*trains elsewhere"):
        refuse_no_ladder(outside)
