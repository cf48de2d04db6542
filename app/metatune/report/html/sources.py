"""What a page is made from: an artefact, and what its run has left, as far as there is any."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from metatune import artefact
from metatune.artefact import Artefact, ArtefactError
from metatune.artefact.beside import is_of
from metatune.artefact.files import SIMPLE, TUNED
from metatune.recipe.bounds import read_json
from metatune.recipe.faults import Fault
from metatune.report.usage import takes_simple
from metatune.runs.files import whole_lines
from metatune.runs.kinds import MARKER, RUN, kind_of
from metatune.runs.paths import Folder

EXPECTED: Final = "expected.json"
PAGE: Final = "report.html"
ARTEFACT: Final = "artefact"
"""A run's own; what lies beside it is another."""
CURE: Final = "delete it: it is said again when the run goes on"
ANEW: Final = "take the run's folder anew from where it was written"


class SimpleSchedules(NamedTuple):
    """The simple schedules that a verdict is to use.

    Attributes:
        path: of them, as it is typed.
        artefact: that they are.
    """

    path: str
    artefact: Artefact


class Sources(NamedTuple):
    """All that is known.

    Attributes:
        name: of the run.
        path: of it, as it is typed.
        artefact: the schedules; None where nothing was judged yet.
        metrics: a line for each point of the search; none of a bare artefact.
        expected: what the run was expected to take, and what it took; None where it isn't known.
        is_run: whether it is the folder of a run.
        simple: that are to be used instead; None where they aren't, or aren't there.
    """

    name: str
    path: str
    artefact: Artefact | None
    metrics: Sequence[Mapping[str, Any]] = ()
    expected: Mapping[str, Any] | None = None
    is_run: bool = False
    simple: SimpleSchedules | None = None

    @property
    def is_measured(self) -> bool:
        """Whether it is a run that has ended with a result, which commands can go on from."""
        status = None if self.artefact is None else self.artefact.result.get("status")
        return self.is_run and status == "complete"


def read(path: Path) -> Sources:
    """What there is of a run, or of an artefact.

    Raises:
        ArtefactError: there is neither, or something of it is missing or can't be read.
        RunFolderError: a line of the metrics is damaged, or what says whose the folder is.
    """
    path = _whole(path)
    is_run = _is_run(path)
    if is_run:
        _refuse_incomplete(path)
    metrics = _points(Folder(path).metrics) if is_run else []
    try:
        artefact.folder_of(path)
    except ArtefactError:
        if not is_run:
            raise
        tuned = None
    else:
        tuned = artefact.load(path)
    return Sources(
        name=path.resolve().name,
        path=str(path),
        artefact=tuned,
        metrics=metrics,
        expected=_expected(path / EXPECTED) if is_run else None,
        is_run=is_run,
        simple=None if tuned is None else _simple(path, tuned, is_run),
    )


def _whole(path: Path) -> Path:
    """The folder that a tuned.json is in, and the run that has this artefact for its own."""
    if path.is_file() and path.name == TUNED:
        path = path.parent
    inside = path / ".."
    own = path.is_dir() and path.resolve().name == ARTEFACT and _is_run(inside)
    return Path(os.path.normpath(inside)) if own else path


def _is_run(path: Path) -> bool:
    """Whether a folder is that of a run, be it that files are missing from it."""
    return path.is_dir() and kind_of(path) == RUN


def _refuse_incomplete(run: Path) -> None:
    """Refuses a run that lacks a file which the others there can't be without."""
    whose = {run / RUN.sign: f"though {MARKER} says that this is the folder of a run"}
    if (own := run / ARTEFACT).is_dir():
        left = ", ".join(sorted(entry.name for entry in own.iterdir())) or "nothing else"
        whose[own / TUNED] = f"of the artefact, which is written whole (there: {left})"
    for file, why in whose.items():
        if not file.is_file():
            raise ArtefactError(str(file), [f"is missing, {why}; {ANEW}"])


def _simple(path: Path, tuned: Artefact, is_run: bool) -> SimpleSchedules | None:
    """The simple schedules beside an artefact, where its verdict is to use them."""
    if tuned.verdict is None or not takes_simple(tuned):
        return None
    folder = path / SIMPLE if is_run else Path(os.path.normpath(path / ".." / SIMPLE))
    if not (folder / TUNED).is_file():
        return None
    held = artefact.load(folder)
    # What lies beside an artefact that was copied may be of another run.
    return SimpleSchedules(str(folder), held) if is_of(held, tuned.verdict) else None


def _points(file: Path) -> list[dict[str, Any]]:
    """The lines of the metrics, each with its point."""
    lines = whole_lines(file, ANEW)
    for place, line in enumerate(lines, 1):
        if not _is_point(line):
            raise ArtefactError(str(file), [f"line {place} is no point of a search; {ANEW}"])
    return lines


def _is_point(line: Mapping[str, Any]) -> bool:
    """Whether what is read of a line is of its kind."""
    numbers = [line.get(key) for key in ("objective", "held_out", "seconds")]
    norms, each = line.get("hypergradient_norm") or {}, line.get("held_out_each") or []
    if not isinstance(norms, dict) or not isinstance(each, list):
        return False
    back = line.get("taken_back") or {}
    if not isinstance(back, dict):
        return False
    numbers += [*norms.values(), *each, line.get("diverged_sides"), back.get("rise")]
    if not _is_divergence(line.get("diverged")):
        return False
    known = all(value is None or isinstance(value, int | float) for value in numbers)
    return known and type(step := line.get("step")) is int and step >= 0


def _is_divergence(found: Any) -> bool:
    """Whether it says where a training diverged, or that none did."""
    if found is None:
        return True
    if not isinstance(found, dict) or not isinstance(found.get("why"), str):
        return False
    if "inner_step" not in found:
        return True
    windows = found.get("window")
    if not isinstance(windows, dict) or not isinstance(found.get("training"), str):
        return False
    numbers = [found.get(key) for key in ("seed", "inner_step", "inner_steps")]
    return all(type(number) is int for number in [*numbers, *windows.values()])


def _expected(file: Path) -> Mapping[str, Any] | None:
    if not file.is_file():
        return None
    try:
        found = read_json(file)
        expected, measured = found["expected"], found.get("measured") or {}
        known = [*expected.values(), *measured.values()]
        if not all(isinstance(value, int | float) for value in known):
            raise TypeError("not all of it are numbers")
    except (ValueError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ArtefactError(str(file), [f"can't be read ({error!r}); {CURE}"]) from error
    return {"expected": expected, "measured": measured}


def place(path: Path, out: Path | None, *, is_run: bool) -> Path:
    """Where the page goes: into a run's folder, and beside an artefact, whose files are hashed.

    Args:
        path: of the run or artefact.
        out: that was asked for; None for the usual place.
        is_run: whether it is the folder of a run.

    Raises:
        ArtefactError: no page can stand at `out`.
    """
    if out is None:
        own = _whole(path)
        return own / PAGE if is_run else own.resolve().with_name(f"{own.resolve().name}-{PAGE}")
    problem = ""
    if out.is_dir():
        problem = "is a folder, where a file is needed"
    elif out.suffix.lower() not in (".html", ".htm"):
        problem = "must end in .html"
    elif (out.resolve().parent / TUNED).is_file():
        problem = "is in the folder of an artefact, whose files are known by their hashes"
    if problem:
        raise ArtefactError("report", [Fault("--out", str(out), problem, "name another")])
    return out
