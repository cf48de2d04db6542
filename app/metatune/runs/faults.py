"""What is said of a folder that can't be used as asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal


class RunFolderError(ValueError):
    """A folder that can't be used as asked."""


Given = Literal["--out", "RUN"]
"""How commands are given a folder: one to write into, or a run that is there."""
OUT: Final = "--out"
RUN: Final = "RUN"


def of_out(path: Path, problem: str) -> RunFolderError:
    """The error of a folder that was given as --out."""
    return of_given(OUT, path, problem)


def of_given(given: Given, path: Path, problem: str) -> RunFolderError:
    """The error of a folder, by the name of what it was given as."""
    return RunFolderError(f"{given} {path}: {problem}")


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys whose values aren't the same, sorted; what a side lacks is None there."""
    return [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]


def then_and_now(keys: Sequence[str], then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A line for each key: what it was then, and what it is now."""
    return "\n".join(f"  {key}: {then.get(key)!r} then, {now.get(key)!r} now" for key in keys)
