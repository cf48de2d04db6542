"""What is wrong with a recipe, said so that it can be put right."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from metatune.recipe.shortening import shortened

LONGEST_VALUE: Final = 80  # characters; a whole section would hide what is wrong with it


class _Absent:
    """The value of a field that isn't there."""

    def __repr__(self) -> str:
        return "(absent)"


ABSENT: Final = _Absent()


@dataclass(frozen=True)
class Fault:
    """One fault of a recipe.

    Attributes:
        path: dotted path of the field, e.g. `tune.mixture.windows`; empty for the whole recipe.
        value: what was received; `ABSENT` where nothing was.
        problem: what is wrong with it and what is allowed.
        cure: what to do.
    """

    path: str
    value: Any
    problem: str
    cure: str = ""

    def __str__(self) -> str:
        """One line: path = value: problem; cure."""
        where = self.path or "recipe"
        if self.path and self.value is not ABSENT:
            where += f" = {shortened(repr(self.value), LONGEST_VALUE)}"
        return f"{where}: {self.problem}" + (f"; {self.cure}" if self.cure else "")


class RecipeError(ValueError):
    """All faults of one recipe, reported together."""

    def __init__(self, source: str, faults: Sequence[Fault]):
        """Collects `faults` found in `source` (a file's path, or a name for a recipe in memory)."""
        self.source = source
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {fault}" for fault in faults)]))

    def __reduce__(self) -> tuple[type, tuple[str, Sequence[Fault]]]:
        """From what it was made of, where it passes from one process to another."""
        return type(self), (self.source, self.faults)


class ConfigWarning(UserWarning):
    """What of a model's config is passed over."""


def nearest(name: object, allowed: Iterable[str]) -> str | None:
    """The allowed name that `name` was probably meant to be, if any is near."""
    return next(iter(get_close_matches(str(name), list(allowed), n=1)), None)


def unknown(path: str, value: Any, what: str, name: object, allowed: Sequence[str]) -> Fault:
    """The fault of a name that isn't one of those allowed.

    Args:
        path: dotted path of the field.
        value: what was received there.
        what: the sort of name: a key, a kind, a domain.
        name: the name that isn't known.
        allowed: the names that are.
    """
    near = nearest(name, allowed)
    names = ", ".join(allowed)
    cure = f"did you mean {near}? (allowed: {names})" if near else f"allowed: {names}"
    return Fault(path, value, f"unknown {what}", cure)
