"""Every field of the schema is explained, by what the schema itself says."""

from dataclasses import fields, is_dataclass

import pytest
import yaml

from metatune.recipe import reading, schema
from metatune.recipe.examples import example
from metatune.recipe.faults import ABSENT, RecipeError
from metatune.recipe.reference import FieldEntry, every, find, sections
from metatune.recipe.rules import said_fields
from metatune.recipe.writing import plain
from metatune.report.field_reference import explained, overview, value_said

ENTRIES = list(every())


def faults_of(entry, value):
    """What the reader of recipes has against a value of a field."""
    faults = []
    held = {"kind": entry.expected.kind} if _is_kind(entry) else {}
    found = reading._value(entry.expected, {**held, **value} if held else value, "it", faults)
    if not faults and found is not None and entry.rule is not None and not entry.rule.holds(found):
        faults.append(f"must be {entry.rule.allowed}")
    return faults


def _is_kind(entry):
    return is_dataclass(entry.expected) and hasattr(entry.expected, "kind")


def test_every_field_of_every_section_is_there():
    known = {
        value
        for value in vars(schema).values()
        if isinstance(value, type) and is_dataclass(value) and value is not schema.Recipe
    }
    seen = {entry.section for entry in ENTRIES if entry.section}
    assert seen == known
    paths = [entry.path for entry in ENTRIES]
    assert len(paths) == len(set(paths)) > 400
    for cls in known:
        below = next(entry for entry in ENTRIES if entry.section is cls).entries()
        names = [each.path.rsplit(".", 1)[-1] for each in below]
        assert names == [field.name for field in said_fields(cls)]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.path)
def test_every_field_has_a_meaning_a_type_and_an_example_that_is_read(entry):
    assert len(entry.meaning.split()) >= 2, "write it into the section's Attributes"
    assert entry.type
    value = example(entry)
    said = value_said(value)
    assert faults_of(entry, yaml.safe_load(said) if entry.expected is not str else value) == []
    if entry.default is not ABSENT:
        assert faults_of(entry, plain(entry.default)) == []
    assert find(entry.path) == [entry] or entry.path in {e.path for e in find(entry.path)}


def test_a_recipe_s_path_says_what_it_may_mean():
    (floor,) = find("tune.mixture.floor")
    assert (floor.meaning, floor.default) == ("smallest share of any domain.", 0.0)
    assert floor.allowed == "a fraction from 0 up to, not including, 1"
    (b1,) = find("inner.optimizer.adamw.b1")
    assert (b1.key, b1.default) == ("inner.optimizer.b1", 0.9)
    kinds = {entry.path.split(".")[2] for entry in find("inner.optimizer.b1")}
    others = {"lion", "muon", "schedule_free_adamw", "adopt", "adamh", "muonh", "soap", "normuon"}
    assert kinds == {"adamw"} | others
    assert (
        find("outer.phases[1].steps") == find("outer.phases.steps") == find("outer.phases.0.steps")
    )
    assert [entry.key for entry in find("data.domains.mine.path")] == ["data.domains.NAME.path"]
    assert [entry.path for entry in find("model.config.hidden_size")] == ["model.config"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("tune.mixtur.floor", "tune.mixtur: unknown field; did you mean mixture? (allowed: lear"),
        ("tun", "tun: unknown field; did you mean tune? (allowed: model, data, inner, tune, outer"),
        ("outer.estimator.mixflw", "outer.estimator.mixflw: unknown field; did you mean mixflow?"),
        ("seed.more", "seed.more: unknown field; allowed: seed"),
        ("", "recipe: unknown field; allowed: model"),
    ],
)
def test_an_unknown_path_names_the_nearest(path, said):
    with pytest.raises(RecipeError) as error:
        find(path)
    assert [str(fault)[: len(said)] for fault in error.value.faults] == [said]


def test_a_field_in_full():
    assert explained(find("tune.mixture.floor"), width=60) == (
        "tune.mixture.floor\n"
        "  smallest share of any domain.\n"
        "\n"
        "  type      a finite number\n"
        "  allowed   a fraction from 0 up to, not including, 1\n"
        "  default   0.0\n"
        "  example   tune.mixture.floor=0.02"
    )


@pytest.mark.parametrize("width", [40, 60, 80])
def test_lines_end_between_words(width):
    texts = [overview(width), *(explained([entry], width) for entry in ENTRIES)]
    for line in "\n".join(texts).splitlines():
        # A word that is longer than the line stands in one by itself.
        assert len(line) <= width or len(line.split()) <= 2, line


def test_sections_are_those_of_a_recipe():
    assert [entry.path for entry in sections()] == [field.name for field in fields(schema.Recipe)]
    assert all(isinstance(entry, FieldEntry) for entry in sections())
