"""What is expected of an export, and how it is compared."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn


class Expected(NamedTuple):
    """What an artefact says of a training, plain values.

    Attributes:
        total: updates of the training.
        at: some of them, from 0.
        rates: of each parameter at these, by checkpoint name.
        peaks: of each parameter's rate where it is one times the base schedule, by its largest.
        shares: of each domain at these; None where none were tuned.
        optimizer: its settings.
        decayed: parameters that weight decay applies to.
        moving: whether the settings move over training.
    """

    total: int
    at: Sequence[int]
    rates: Mapping[str, Sequence[float]]
    peaks: Mapping[str, float]
    shares: Mapping[str, Sequence[float]] | None
    optimizer: Mapping[str, Any]
    decayed: Sequence[str]
    moving: bool

    def own(self, name: str) -> Mapping[str, Any]:
        """The settings of the optimizer of a parameter."""
        groups = self.optimizer.get("groups", ())
        return next((each for each in groups if name in each["parameters"]), self.optimizer)

    @property
    def matrices(self) -> set[str]:
        """The parameters that an optimizer must have as matrices."""
        groups = self.optimizer.get("groups", ())
        keys = ("orthogonal", "turned")
        return {name for each in groups for key in keys for name in each.get(key, ())}

    def decay(self, name: str) -> float:
        """The weight decay of a parameter."""
        return float(self.own(name)["weight_decay"]) if name in self.decayed else 0.0

    def agree_on_rate(self, name: str, step: int, found: float, tolerance: float = 1e-7) -> None:
        """Compares the rate of a parameter at one of the updates."""
        wanted = self.rates[name][self.at.index(step)]
        agree(f"update {step}, rate of {name}", found, wanted, tolerance)

    def agree_on_shares(self, mixture: Callable[[int, int], Mapping[str, float]]) -> list[str]:
        """Compares a module's shares with the tuned ones."""
        if self.shares is None:
            return []
        for place, step in enumerate(self.at):
            found = mixture(step, self.total)
            for domain, shares in self.shares.items():
                agree(f"update {step}, share of {domain}", found[domain], shares[place])
        return [f"shares of {len(self.shares)} domains at {len(self.at)} updates"]

    def agree_on_moving_shares(self, folder: Path) -> list[str]:
        """The same of an export that has a module for shares that move; nothing without one."""
        if not (folder / "metatune_schedule.py").is_file():
            return []
        return self.agree_on_shares(import_module("metatune_schedule").shares)

    def compared(self, what: str) -> str:
        """A line on what was compared of every parameter."""
        return f"{what} of {len(self.rates)} parameters at {len(self.at)} updates"


def agree(what: str, found: Any, wanted: Any, tolerance: float = 1e-7) -> None:
    """Ends the process where two values differ; numbers by their relative difference."""
    if isinstance(wanted, float):
        if abs(found - wanted) <= tolerance * max(abs(wanted), 1e-30):
            return
    elif found == wanted:
        return
    differs(f"{what} is {found!r}, must be {wanted!r}")


def differs(what: str) -> NoReturn:
    """Ends the process: the export isn't what was tuned."""
    sys.exit(f"differs: {what}")
