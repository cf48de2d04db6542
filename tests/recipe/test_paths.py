"""What an error names is what an override takes."""

import pytest

from metatune.recipe.overrides import apply
from metatune.recipe.paths import joined, parted


@pytest.mark.parametrize(
    "name", ["c4", "c4.en", 'a"b', "a=b", "x[0]", "two words", "été", "a\\b", ""]
)
def test_a_path_that_is_joined_is_parted_into_the_same_keys(name):
    path = f"{joined(joined('data', 'domains'), name)}.max_tokens"
    if not name:
        assert parted(f"{path}=5") is None
        return
    assert parted(f"{path}=5=5") == (["data", "domains", name, "max_tokens"], "=5=5")


@pytest.mark.parametrize("path", [".a=1", "a..b=1", "a.=1", "[0]=1", 'a"b"=1', "a[x]=1", 'a."b=1'])
def test_what_is_no_path_is_none(path):
    assert parted(path) is None


TREE = {
    "data": {"domains": {"c4.en": {"max_tokens": 1}, "c4": {"en": 1}}},
    "outer": {"phases": [{"steps": 1}, {"steps": 2}]},
}


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ('data.domains."c4.en".max_tokens=7', ("data", "domains", "c4.en", "max_tokens")),
        ('data.domains."wiki.de".max_tokens=7', ("data", "domains", "wiki.de", "max_tokens")),
        ("outer.phases[1].steps=7", ("outer", "phases", 1, "steps")),
        ("outer.phases[0]=7", ("outer", "phases", 0)),
        ("data.domains.c4.en=7", ("data", "domains", "c4", "en")),
    ],
)
def test_overrides_reach_keys_with_dots_and_entries_of_lists(override, where):
    changed, faults = apply(TREE, [override])
    assert faults == ()
    for key in where:
        changed = changed[key]
    assert changed == 7


def test_a_key_with_dots_that_is_there_needs_no_quotes():
    tree = {"data": {"domains": {"c4.en": {"max_tokens": 1}}}}
    changed, faults = apply(tree, ["data.domains.c4.en.max_tokens=7"])
    assert (changed["data"]["domains"], faults) == ({"c4.en": {"max_tokens": 7}}, ())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("outer.phases[2].steps=3", "names entry 2 of outer.phases, which has 2; entries are"),
        ("outer[0]=3", "goes through outer, which is no list but"),
        ("outer.phases.steps=3", "goes through outer.phases, which is no section but"),
    ],
)
def test_what_isnt_there_is_said(override, said):
    _, (fault,) = apply(TREE, [override])
    assert said in str(fault)
