"""The tables that a tuned quantity stands in: what tunes it, what holds it, and what follows it."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest

from metatune.artefact import Artefact, capabilities, document, reading, writing
from metatune.artefact.sections import AS_ASKED, AS_SAID, AS_WRITTEN, SECTIONS
from metatune.fit import making, tracking
from metatune.recipe.schema import TuneSpec
from metatune.report import terminal, tracked
from metatune.train.following import FOLLOWERS
from metatune.tunables import ENTRIES


def test_every_section_has_a_field_an_entry_and_a_follower():
    of_artefact = {field.name for field in fields(Artefact)}
    assert set(SECTIONS) <= of_artefact
    assert set(SECTIONS) == set(ENTRIES) == set(FOLLOWERS)
    assert set(SECTIONS) == {field.name for field in fields(TuneSpec)}


@pytest.mark.parametrize("order", [AS_WRITTEN, AS_ASKED, AS_SAID])
def test_every_order_has_every_section_once(order):
    assert sorted(section.key for section in order) == sorted(SECTIONS)


def test_capabilities_and_definitions_are_named_once():
    for named in (
        [name for section in SECTIONS.values() for name in section.capabilities],
        [name for section in SECTIONS.values() for name in section.definitions],
        [section.plotted.tag for section in SECTIONS.values() if section.plotted],
    ):
        assert len(named) == len(set(named))


def test_a_target_s_capabilities_are_those_of_sections():
    assert capabilities.able(rates="exact")["mixture"] == "no"
    with pytest.raises(ValueError, match="no section of an artefact needs mixtures"):
        capabilities.able(mixtures="exact")


@pytest.mark.parametrize(
    "module", [document, reading, writing, making, tracking, terminal, tracked]
)
def test_what_loops_over_sections_names_none(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    own = {"optimizer"} if module is making else set()  # the recipe's `inner.optimizer`
    assert (named | said) & set(SECTIONS) - own == set()
