"""Shipped recipes, each broken in some way: what is said of it, in what order, by which rule."""

from pathlib import Path

import pytest
import yaml

from metatune.recipe import checks, shipped
from metatune.recipe.reading import draft

FILE = Path(__file__).with_name("broken_recipes.yaml")
BROKEN = yaml.safe_load(FILE.read_text(encoding="utf-8"))


def said(broken):
    _, faults = draft(shipped.find(broken["recipe"]), broken["overrides"])
    return [str(fault) for fault in faults]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: " ".join(broken["overrides"]))
def test_the_same_faults_are_told_in_the_same_order(broken):
    assert said(broken) == broken["faults"]


def test_every_rule_is_broken_by_one(monkeypatch):
    """A rule that nothing breaks is of no use, or can't be reached."""
    broken = set()

    def watched(rule):
        def watching(*sections):
            for fault in rule(*sections):
                broken.add(rule)
                yield fault

        return watching

    rules = checks.RULES
    monkeypatch.setattr(checks, "RULES", tuple((watched(rule), names) for rule, names in rules))
    for each in BROKEN:
        said(each)
    assert {rule for rule, _ in rules} == broken
