"""What is said of a folder that can't be used as asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class RunFolderError(ValueError):
    """A folder that can't be used as asked."""


def of_out(path: Path, problem: str) -> RunFolderError:
    """The error of a folder that was given as --out."""
    return RunFolderError(f"--out {path}: {problem}")


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys whose values aren't the same, sorted; what a side lacks is None there."""
    return [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]


def then_and_now(keys: Sequence[str], then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A line for each key: what it was then, and what it is now."""
    return "\n".join(f"  {key}: {then.get(key)!r} then, {now.get(key)!r} now" for key in keys)
