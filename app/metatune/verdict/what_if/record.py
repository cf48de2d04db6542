"""What was computed for what-if, a line each: a further question takes what it can from here."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from metatune.runs import stops
from metatune.runs.faults import RunFolderError
from metatune.runs.files import append_line, mend, whole_lines

FILE: Final = "what-if.jsonl"
LINE: Final = frozenset(("of", "quantity", "delta", "seed", "value"))
"""What a line has."""
AGAIN: Final = "delete the line: it is computed again"

Quantity = Literal["gradient", "objective", "held out"]
"""A hypergradient at η + δ; the objective of the same training; the loss on the validation split of
a training that draws its batches at the mixture."""


class Answers:
    """The record of a run's what-if.

    A line has `of`, which schedules it is about; `quantity`, as of `Quantity`; `delta`, the hash of
    the δ that η was moved by; `seed`; and `value`, a number, null where it diverged, or a list.
    """

    def __init__(self, run: Path, identity: Mapping[str, Any]):
        """Reads what is known.

        Args:
            run: the run folder.
            identity: what the numbers depend on besides δ and the seed.

        Raises:
            RunFolderError: a line isn't what this class writes.
        """
        self._file, self._identity = run / FILE, dict(identity)
        self._known = {}
        for number, line in enumerate(whole_lines(self._file, AGAIN), 1):
            if not isinstance(line, dict) or not LINE <= line.keys():
                raise RunFolderError(f"{self._file}: line {number} is no answer; {AGAIN}")
            if line["of"] == self._identity:
                self._known[_key(line)] = line["value"]

    def mend(self) -> None:
        """Takes away a last line that was cut off; only who holds the run may."""
        mend(self._file)

    def knows(self, quantity: Quantity, delta: np.ndarray, seed: int) -> bool:
        """Whether a value is there."""
        return (quantity, hashed(delta), seed) in self._known

    def number(self, quantity: Quantity, delta: np.ndarray, seed: int) -> float:
        """A number that is there; infinite where the training diverged."""
        value = self._known[quantity, hashed(delta), seed]
        return float("inf") if value is None else float(value)

    def numbers(self, quantity: Quantity, delta: np.ndarray, seed: int) -> np.ndarray:
        """A list that is there."""
        return np.asarray(self._known[quantity, hashed(delta), seed], np.float64)

    def keep(
        self, quantity: Quantity, delta: np.ndarray, seed: int, value: float | Sequence[float]
    ) -> None:
        """Keeps a number, or a list."""
        plain: Any = list(map(float, value)) if isinstance(value, Sequence | np.ndarray) else value
        line = {
            "of": self._identity,
            "quantity": quantity,
            "delta": hashed(delta),
            "seed": seed,
            "value": None if plain == float("inf") else plain,
        }
        with stops.held():
            append_line(self._file, line)
        self._known[_key(line)] = line["value"]


def hashed(delta: np.ndarray) -> str:
    """A short name of a vector, by its numbers as they are added to η."""
    # Plus zero, which makes minus zero one.
    held = np.ascontiguousarray(np.asarray(delta, np.float32) + np.float32(0))
    return hashlib.sha256(held.tobytes()).hexdigest()[:16]


def _key(line: Mapping[str, Any]) -> tuple[str, str, int]:
    return line["quantity"], line["delta"], line["seed"]
