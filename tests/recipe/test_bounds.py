"""Documents within bounds, and those beyond."""

import json
import time

import pytest

from metatune.recipe import bounds, document
from metatune.recipe.bounds import OutOfBounds, parsed_json, read_json


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000 + "]" * 100_000, "must be 64 levels at most"),
        ("[" * 65 + "]" * 65, "must be 64 levels at most"),
        ('{"a": ' * 500 + "1" + "}" * 500, "must be 64 levels at most"),
        ('{"a": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
        ('{"a": ' + "9" * 300 + "}", "a number of 300 digits"),
        ('{"a": 1e400}', "the number 1e400 is beyond what a float64 holds"),
        ('{"a": -1e999}', "the number -1e999 is beyond"),
    ],
)
def test_json_beyond_the_bounds_is_refused_within_a_second(text, said):
    began = time.process_time()
    with pytest.raises(OutOfBounds, match=said):
        parsed_json(text)
    assert time.process_time() - began < 1


def test_json_within_them_is_what_it_is():
    value = {"a": [1, 2.5, None, True, "x" * 1000, {"b": -(2**64)}], "c": 1.7e308}
    assert parsed_json(json.dumps(value)) == value
    assert parsed_json("[" * 64 + "]" * 64)[0]


def test_too_many_values_and_too_long_a_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "MOST_VALUES", 10)
    with pytest.raises(OutOfBounds, match="11 values"):
        parsed_json(json.dumps([0] * 10))
    file = tmp_path / "a.json"
    file.write_text("[1, 2]")
    with pytest.raises(OutOfBounds, match="6 bytes long; must be 5 at most"):
        read_json(file, 5)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "values, aliases written out; must be 2,000,000 at most"),
        ("a: " + "[" * 500 + "]" * 500, "must be 64 levels at most"),
        ("a: " + "{b: " * 80 + "1" + "}" * 80, "must be 64 levels at most"),
        ("".join(" " * n + "a:\n" for n in range(400)), "must be 64 levels at most"),
        ("a: " + "9" * 5000, "a number of 5,000 digits"),
        ("a: 1e999", "the number 1e999 is beyond what a float64 holds"),
        ("a: " + "x" * 200_000, "200,003 bytes long; must be 131,072 at most"),
    ],
)
def test_yaml_beyond_the_bounds_is_refused_within_a_second(text, said):
    began = time.process_time()
    value, faults = document.load(text)
    assert time.process_time() - began < 1
    assert value is None
    assert said in str(faults[0])


def test_aliases_that_stand_twice_are_fine():
    value, faults = document.load("a: &a {x: 1}\nb: [*a, *a]\n")
    assert (value, faults) == ({"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}]}, ())


def test_own_keys_win_over_merged_ones_and_earlier_sources_over_later():
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2, z: 2}\nc: {<<: [*b, {y: 9, w: 3}], z: 4}\n"
    value, faults = document.load(text)
    assert faults == ()
    assert value["b"] == {"x": 2, "y": 1, "z": 2}
    assert value["c"] == {"x": 2, "y": 1, "w": 3, "z": 4}
    _, (fault,) = document.load("a: {<<: [1]}")
    assert "expected a mapping to merge" in str(fault)
