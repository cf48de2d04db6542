"""Imports between the parts of metatune point one way."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROOTS = [PROJECT / root / "metatune" for root in ("app", "models", "data")]

BUILT_ON = {"recipe", "data", "models", "hypergrad", "tunables", "inner", "artefact", "report"}

# What each part may import, besides itself.
ALLOWED = {
    "recipe": set(),
    "hypergrad": set(),
    "data": {"recipe"},
    "models": {"recipe"},
    "tunables": {"recipe", "artefact", "data", "models", "hypergrad"},
    "inner": {"recipe", "data", "models", "hypergrad", "tunables"},
    "artefact": {"recipe"},
    "api": {"recipe", "artefact", "report", "inner", "fit", "plan", "transfer"},
    "report": {"recipe", "artefact", "runs"},
    "runs": {"recipe", "artefact"},
    "bench": BUILT_ON,
    "check": BUILT_ON,
    "fit": BUILT_ON | {"runs", "transfer"},
    "ladder": BUILT_ON | {"fit", "plan", "runs", "train", "transfer"},
    "plan": BUILT_ON | {"transfer"},
    "score": BUILT_ON,
    "train": BUILT_ON | {"fit", "runs"},
    "transfer": BUILT_ON,
    "verdict": BUILT_ON | {"fit", "ladder", "plan", "runs", "train"},
    "cli": BUILT_ON
    | {"bench", "check", "fit", "ladder", "plan", "runs", "score", "train", "transfer", "verdict"},
}


def imported(source, package):
    """The absolute names that `source`, a module within `package`, imports anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def parts(source, package):
    """The parts of metatune that `source` imports."""
    names = (name.split(".") for name in imported(source, package))
    return {name[1] for name in names if name[0] == "metatune" and len(name) > 1}


def modules():
    """Every module: its file, the part it belongs to, and the package that holds it."""
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root)
            yield path, inside.parts[0].removesuffix(".py"), ("metatune", *inside.parts[:-1])


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import metatune.fit.outer_loop", {"fit"}),
        ("from metatune import data, models as m", {"data", "models"}),
        ("from metatune.recipe.schema import Recipe", {"recipe"}),
        ("def f():\n    from ..fit import fit", {"fit"}),
        ("from . import reading", {"recipe"}),
        ("from .. import cli", {"cli"}),
        ("import jax\nfrom flax import linen", set()),
    ],
)
def test_imports_are_found_however_they_are_written(source, found):
    assert parts(source, ("metatune", "recipe")) == found


def test_imports_point_one_way():
    seen = list(modules())
    assert {"recipe", "hypergrad"} <= {part for _, part, _ in seen}
    wrong = []
    for path, part, package in seen:
        assert part in ALLOWED, f"{part} is a new part: say in the table what it may import"
        more = parts(path.read_text(encoding="utf-8"), package) - ALLOWED[part] - {part}
        wrong += [f"{path.relative_to(PROJECT)} imports {name}" for name in sorted(more)]
    assert wrong == []


def test_nothing_imports_scripts_or_tests():
    for path, _, package in modules():
        tops = {name.split(".")[0] for name in imported(path.read_text(encoding="utf-8"), package)}
        assert not tops & {"scripts", "tests"}, path


def test_the_namespace_has_no_init_that_would_hide_the_other_roots():
    assert [root for root in ROOTS if (root / "__init__.py").exists()] == []


def test_the_table_has_no_circle():
    done: set[str] = set()
    while ready := {part for part, below in ALLOWED.items() if part not in done and below <= done}:
        done |= ready
    assert done == set(ALLOWED)
