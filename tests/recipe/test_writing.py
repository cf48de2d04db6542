import math
import random
import struct

import pytest
import yaml

from metatune.recipe import reading, schema, writing


@pytest.fixture
def rich(tree):
    """A recipe with something of every kind of field away from its default."""
    tree["model"]["config"] |= {
        "eps": 1e-5,
        "list": [1, 2.5, None, "3e-4", {"no": True}],
        "text": "010",
        "accents": "é: #",
    }
    tree["inner"]["optimizer"] |= {"clip_norm": None, "schedule": {"kind": "wsd"}}
    tree["tune"] = {
        "learning_rates": {"per": ["1e5", "attn|mlp"], "windows": 3},
        "mixture": {"initial": {"prose": 1, "code": 3}},
    }
    tree["outer"] |= {"patience": 4, "estimator": {"kind": "reverse", "remat": False}}
    return reading.parse(tree, "memory")


def test_what_is_written_reads_back_by_any_yaml(rich, tmp_path):
    text = writing.to_yaml(rich)
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    assert reading.read(path) == rich
    assert reading.parse(yaml.safe_load(text), "memory") == rich
    assert reading.parse(writing.to_tree(rich), "memory") == rich


def test_the_same_recipe_gives_the_same_text(rich, tmp_path):
    text = writing.to_yaml(rich)
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    assert writing.to_yaml(reading.read(path)) == text


def test_equal_numbers_give_the_same_text(tree):
    once = writing.to_yaml(reading.parse(tree, "memory"))
    tree["data"]["target"]["code"] = 1
    tree["inner"]["steps"] = 20.0
    assert writing.to_yaml(reading.parse(tree, "memory")) == once


def test_the_order_of_domains_stays(rich):
    rich_tree = writing.to_tree(rich)
    assert list(rich_tree["data"]["domains"]) == ["code", "prose"]
    assert list(rich_tree["tune"]["mixture"]["initial"]) == ["prose", "code"]


def test_floats_come_back_bit_for_bit(tree):
    generator = random.Random(0)
    drawn = (struct.unpack("<d", generator.randbytes(8))[0] for _ in range(400))
    numbers = [number for number in drawn if math.isfinite(number)] + [5e-324, 1e22, 1e16, -0.0]
    tree["model"]["config"]["numbers"] = numbers
    text = writing.to_yaml(reading.parse(tree, "memory"))
    for loaded in (yaml.safe_load(text), writing.to_tree(reading.parse(yaml.safe_load(text), ""))):
        read = loaded["model"]["config"]["numbers"]
        assert struct.pack(f"{len(read)}d", *read) == struct.pack(f"{len(numbers)}d", *numbers)


def test_defaults_are_spelled_out_and_absent_choices_left_out(tree):
    written = writing.to_tree(reading.parse(tree, "memory"))
    assert written["inner"]["optimizer"]["schedule"] == {
        "kind": "cosine",
        "warmup": 0.05,
        "final": 0.1,
    }
    assert written["tune"] == {
        "learning_rates": {
            "per": "tensor",
            "windows": 2,
            "interpolation": "constant",
            "smoothness": 0.0,
            "prior": 0.0,
        }
    }
    assert written["data"]["domains"] == {
        "code": {"shipped": "code_stdlib", "use": "all"},
        "prose": {"path": "prose.txt", "use": "all"},
    }
    assert "patience" not in written["outer"]


def test_null_is_written_where_it_is_not_the_default(rich):
    assert writing.to_tree(rich)["inner"]["optimizer"]["clip_norm"] is None


def test_kind_comes_first(rich):
    assert next(iter(writing.to_tree(rich)["inner"]["optimizer"])) == "kind"


def test_a_list_used_twice_is_written_twice(tree):
    shared = [1, 2]
    tree["model"]["config"] |= {"a": shared, "b": shared}
    recipe = reading.parse(tree, "memory")
    model = schema.ModelSpec({"a": shared, "b": shared})
    assert "&" not in writing.to_yaml(schema.Recipe(model, *list(vars(recipe).values())[1:]))
