"""Overrides of a recipe on the command line: `inner.optimizer.learning_rate=3e-4`."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from metatune.recipe.document import load
from metatune.recipe.faults import Fault

EXAMPLE: Final = "write KEY.PATH=VALUE, e.g. inner.optimizer.learning_rate=3e-4"


def apply(
    tree: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], tuple[Fault, ...]]:
    """A copy of `tree` with each override put in place, and the faults of those that couldn't be.

    Sections on the way are made where they are missing; the schema refuses unknown ones later.

    Args:
        tree: a recipe as read from YAML; left as it is.
        overrides: `KEY.PATH=VALUE` each; VALUE is YAML. The last of the same path wins.
    """
    changed = deepcopy(dict(tree))
    faults: list[Fault] = []
    for override in overrides:
        faults.extend(_put(changed, override))
    return changed, tuple(faults)


def _put(tree: dict[str, Any], override: str) -> tuple[Fault, ...]:
    """Puts one override into `tree`, or says why it can't be."""
    path, equals, text = override.partition("=")
    path = path.strip()
    keys = path.split(".")
    if not equals or not all(keys):
        return (Fault("override", override, "not of the form KEY.PATH=VALUE", EXAMPLE),)
    value, faults = load(text)
    if faults:
        return tuple(
            Fault(path, text, f"the override's value: {fault.path} {fault.problem}", fault.cure)
            if fault.path
            else Fault(path, text, f"the override's value is {fault.problem}", fault.cure)
            for fault in faults
        )
    section = tree
    for depth, key in enumerate(keys[:-1], start=1):
        # `mixture:` with nothing after it reads as None: an empty section.
        inner = section[key] if section.get(key) is not None else {}
        if not isinstance(inner, dict):
            here = ".".join(keys[:depth])
            problem = f"the override goes through {here}, which is no section but {inner!r}"
            return (Fault(path, value, problem, f"override the whole of it: {here}=VALUE"),)
        section[key] = inner
        section = inner
    section[keys[-1]] = value
    return ()
