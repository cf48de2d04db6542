"""What a section of an artefact is: everything that there is to know of one tuned quantity."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from metatune.artefact.curves import Interpolation
from metatune.artefact.value_checks import ValueChecker

Columns = Mapping[str, np.ndarray]
"""Values at some updates, [updates] each, by what they are of."""


class Written(NamedTuple):
    """A section as it is written.

    Attributes:
        document: what stands in tuned.json.
        tensors: what stands in tuned.safetensors, by name.
        files: further files, by name.
    """

    document: Any
    tensors: Mapping[str, np.ndarray] = {}
    files: Mapping[str, bytes] = {}


class Held(NamedTuple):
    """What a section is read from, besides tuned.json.

    Attributes:
        folder: that tuned.json is in.
        tensors: of tuned.safetensors.
    """

    folder: Path
    tensors: Mapping[str, np.ndarray]


class ByKnot(NamedTuple):
    """A table of curves, with a column for each knot.

    Attributes:
        title: what the curves are.
        head: the same in the head of a column.
        knots: fractions of training.
        curves: values at the knots, [knots] each.
        shown: a value in words, where there is little room.
        digits: the format of a value where there is more.
        least: where plots begin: at 0, or at the least value of each curve.
        interpolation: how values go on from their knots.
    """

    title: str
    head: str
    knots: Sequence[float]
    curves: Mapping[str, Any]
    shown: Callable[[float], str] = "{:.4g}".format
    digits: str = ".4g"
    least: Literal["zero", "own"] = "own"
    interpolation: Interpolation = "constant"


class OnLogScale(NamedTuple):
    """Curves that are plotted on a logarithmic scale, and the factors that made them.

    Attributes:
        title: what the curves are.
        curves: values at some updates.
        factors: by curve; None for none.
    """

    title: str
    curves: Callable[[Sequence[int]], Columns]
    factors: ByKnot | None


class Grid(NamedTuple):
    """A table of numbers that don't move, [rows, columns].

    Attributes:
        title: what they are.
        columns: a number for each row, by column and row.
        rows: names.
    """

    title: str
    columns: Mapping[str, Mapping[str, float]]
    rows: Sequence[str]


BASE: Final = "base"
"""The curve of what would be without tuning."""

View = ByKnot | OnLogScale | Grid


class Plotted(NamedTuple):
    """How curves over training are shown.

    Attributes:
        tag: that their names begin with.
        title: what they are.
        axis: what the values are, with their unit.
        scale: lines on a linear or on a logarithmic scale, or shares of a whole.
    """

    tag: str
    title: str
    axis: str
    scale: Literal["linear", "log", "share"] = "linear"


def _nothing(*_: Any) -> Any:
    return {}


def _none(*_: Any) -> Any:
    return ()


def _null(*_: Any) -> Any:
    return None


def _never(*_: Any) -> bool:
    return False


def _as_it_is(value: Any, lost: Collection[str], horizon: int) -> Any:
    return value


@dataclass(frozen=True)
class Section:
    """A tuned quantity in an artefact: a row of `SECTIONS`, and a field of `Artefact`.

    `value` is what the artefact's field holds, never None; `stated` what stands in tuned.json;
    `horizon` the updates of the training that was tuned, `total` those of another.

    Attributes:
        key: in tuned.json, in a recipe's `tune`, and of `Artefact`.
        capabilities: what a target may have to be able to do for it, each with the head of its
            column in a table of targets.
        written: `(value, apart)` to how it is written; `apart` allows that numbers too many to
            read stand in tuned.safetensors.
        check: `(checker, stated, document)` collects what is wrong with it.
        read: `(stated, held)` to the value, of what is sound.
        schema: of what stands in tuned.json, JSON Schema.
        needs: `(value, horizon)` to what was tuned, a line for each capability that it asks for.
        words: `(value)` to what a README says was tuned, a line each.
        facts: `(value)` to what the README of an export says it holds, a line each.
        definitions: `$defs` of the schema that it shares with no other.
        required: whether its key is always there, with null for None.
        apart: `(stated)` to whether it has tensors in tuned.safetensors, `stated` sound or not.
        outside: `(stated)` to the names of its tensors in tuned.safetensors.
        outside_if: the schema of those sections that have any; None where none has.
        check_tensors: `(checker, stated, tensors)` collects what is wrong with these.
        lossy: `(value, lost, horizon)` to the value for a target without the capabilities `lost`;
            None for nothing left.
        curves: `(value, steps, total)` to its values at some updates.
        base: the same of what they were multiplied from, where they were.
        tables: the same by the name of a file, one column for each number that a trainer sets.
        views: `(value, horizon)` to how it is shown in a terminal and in a README.
        plotted: how its curves are; None of what has none.
        modules: templates of the module that an export has of it, by the template of its README.
        alone: what can't stand in a tuned.json alone, its path and what is said of it.
    """

    key: str
    capabilities: Mapping[str, str]
    written: Callable[[Any, bool], Written]
    check: Callable[[ValueChecker, Any, Mapping[str, Any]], None]
    read: Callable[[Any, Held], Any]
    schema: Mapping[str, Any]
    needs: Callable[[Any, int], Mapping[str, str]]
    words: Callable[[Any], Sequence[str]]
    facts: Callable[[Any], Sequence[str]]
    definitions: Mapping[str, Any] = field(default_factory=dict)
    required: bool = False
    apart: Callable[[Any], bool] = _never
    outside: Callable[[Any], Collection[str]] = _none
    outside_if: Mapping[str, Any] | None = None
    check_tensors: Callable[[ValueChecker, Any, Mapping[str, np.ndarray]], None] = _nothing
    lossy: Callable[[Any, Collection[str], int], Any] = _as_it_is
    curves: Callable[[Any, Sequence[int], int], Columns] = _nothing
    base: Callable[[Any, Sequence[int], int], np.ndarray | None] = _null
    tables: Callable[[Any, Sequence[int], int], Mapping[str, Columns]] = _nothing
    views: Callable[[Any, int], Sequence[View]] = _none
    plotted: Plotted | None = None
    alone: tuple[str, str] | None = None
    modules: Mapping[str, str] = field(default_factory=dict)
