"""Overrides of a recipe on the command line: `inner.optimizer.learning_rate=3e-4`."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from metatune.recipe.document import load
from metatune.recipe.faults import Fault
from metatune.recipe.paths import joined, parted

EXAMPLE: Final = "write KEY.PATH=VALUE, e.g. inner.optimizer.learning_rate=3e-4"
OPEN: Final = (None, "auto")
"""What stands where a section may: it says nothing of any field, so that an override may begin one.
`mixture:` with nothing after it reads as None."""


def apply(
    tree: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], tuple[Fault, ...]]:
    """A copy of `tree` with each override put in place, and the faults of those that couldn't be.

    Sections on the way are made where they are missing, or left open by `auto`; the schema refuses
    unknown ones later.

    Args:
        tree: a recipe as read from YAML; left as it is.
        overrides: `KEY.PATH=VALUE` each, paths as of `metatune.recipe.paths`; VALUE is YAML. The
            last of the same path wins.
    """
    changed = deepcopy(dict(tree))
    faults: list[Fault] = []
    for override in overrides:
        faults.extend(_put(changed, override))
    return changed, tuple(faults)


def _put(tree: dict[str, Any], override: str) -> tuple[Fault, ...]:
    """Puts one override into `tree`, or says why it can't be."""
    found = parted(override)
    if found is None or not found[1]:
        return (Fault("override", override, "not of the form KEY.PATH=VALUE", EXAMPLE),)
    keys, text = found[0], found[1].removeprefix("=")
    path = override[: len(override) - len(found[1])].strip()
    value, faults = load(text)
    if faults:
        return tuple(
            Fault(path, text, f"the override's value: {fault.path} {fault.problem}", fault.cure)
            if fault.path
            else Fault(path, text, f"the override's value is {fault.problem}", fault.cure)
            for fault in faults
        )
    section: Any = tree
    here = ""
    while keys:
        key, keys = _next(section, keys)
        if isinstance(key, int):
            if not isinstance(section, list):
                return (_wrong(path, value, here, section, "list"),)
            if key >= len(section):
                problem = f"the override names entry {key} of {here}, which has {len(section)}"
                return (Fault(path, value, problem, "entries are counted from 0"),)
            here += f"[{key}]"
        elif not isinstance(section, dict):
            return (_wrong(path, value, here, section, "section"),)
        else:
            here = joined(here, key)
        held: Any = section
        if not keys:
            held[key] = value
        elif isinstance(key, str) and held.get(key) in OPEN:
            held[key] = {}
        section = held[key]
    return ()


def _next(section: Any, keys: list[str | int]) -> tuple[str | int, list[str | int]]:
    """The first of the keys and the rest; a key with dots that is there needs no quotes."""
    if isinstance(section, dict) and keys[0] not in section:
        names = [key for key in keys if isinstance(key, str)]
        for count in range(len(keys), 1, -1):
            if names[:count] == keys[:count] and (name := ".".join(names[:count])) in section:
                return name, keys[count:]
    return keys[0], keys[1:]


def _wrong(path: str, value: Any, here: str, found: Any, wanted: str) -> Fault:
    problem = f"the override goes through {here}, which is no {wanted} but {found!r}"
    return Fault(path, value, problem, f"override the whole of it: {here}=VALUE")
