"""What is wrong with a recipe, said so that it can be put right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One fault of a recipe.

    Attributes:
        path: dotted path of the field, e.g. `tune.mixture.windows`; empty for the whole recipe.
        value: what was received.
        problem: what is wrong with it and what is allowed.
        cure: what to do.
    """

    path: str
    value: Any
    problem: str
    cure: str = ""

    def __str__(self) -> str:
        """One line: path = value: problem; cure."""
        where = f"{self.path} = {self.value!r}" if self.path else "recipe"
        return f"{where}: {self.problem}" + (f"; {self.cure}" if self.cure else "")


class RecipeError(ValueError):
    """All faults of one recipe, reported together."""

    def __init__(self, source: str, faults: Sequence[Fault]):
        """Collects `faults` found in `source` (a file's path, or a name for a recipe in memory)."""
        self.source = source
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {fault}" for fault in faults)]))
