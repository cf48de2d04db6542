"""Makes a folder ready for a run or a training: refuses, goes on, begins, or replaces.

Everything is checked before anything is touched. What is replaced is put aside, as a sibling, until
what replaces it has its first checkpoint: a start that fails loses nothing.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from metatune.runs import inputs, processes
from metatune.runs.faults import RunFolderError, of_out
from metatune.runs.files import replace
from metatune.runs.kinds import KINDS, MARKER, Kind, foreign, kind_of, mark, marker
from metatune.runs.lock import locked, refuse_held

ASIDE: Final = ".replaced-"
"""In the name of what was put aside, between the folder's and the time."""


def refuse_unusable(
    path: Path,
    kind: Kind,
    *,
    resume: bool,
    overwrite: bool,
    say: Callable[[str], None] = print,
) -> None:
    """Refuses a folder that can't be used as asked.

    Nothing is written; but an overwriting that was cut off before it began is undone.

    Args:
        path: the folder.
        kind: what it is wanted for.
        resume: whether what is in it is to go on.
        overwrite: whether what is in it is to be replaced.
        say: is told of what is undone.

    Raises:
        RunFolderError: it holds something and neither was asked for, or nothing to go on with; it
            is in use; something else is in it.
    """
    options: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "say": say}
    processes.by_the_first(lambda: _refuse_unusable(path, kind, **options))


def _refuse_unusable(
    path: Path, kind: Kind, *, resume: bool, overwrite: bool, say: Callable[[str], None]
) -> None:
    if resume and overwrite:
        raise RunFolderError("--resume and --overwrite exclude each other: give one of them")
    if path.exists() and not path.is_dir():
        raise of_out(path, "is a file; give a folder")
    _put_back(path, say)
    held = kind_of(path)
    if held is not None and held != kind and held.holds(path):
        raise of_out(
            path,
            f"holds a {held.name}, which is {held.command}'s, not a {kind.name}; give "
            "another folder, or delete that one",
        )
    if resume and not kind.holds(path):
        raise of_out(path, f"holds no {kind.name} to resume; leave --resume out to begin one")
    if kind.holds(path) and not (resume or overwrite):
        raise of_out(
            path,
            f"holds a {kind.name} already; --resume to go on with it, --overwrite to delete it, "
            "or give another folder",
        )
    if path.exists() and not resume and (strange := foreign(path, held)):
        found = ", ".join(strange[:3])
        problem = (
            f"can't be overwritten: beside a {kind.name} it has what none writes ({found}); move "
            "that away, or give a new folder"
            if kind.holds(path)
            else f"is not empty and holds no {kind.name} (it has {found}); give a new folder"
        )
        raise of_out(path, problem)
    if path.exists():
        refuse_held(path)


@contextlib.contextmanager
def opened(
    path: Path,
    kind: Kind,
    files: Mapping[str, str | bytes],
    given: Mapping[str, Any],
    *,
    resume: bool,
    overwrite: bool,
    check: Callable[[], object] = lambda: None,
    say: Callable[[str], None] = print,
) -> Iterator["Opened"]:
    """Holds a folder that is ready, against other processes.

    Args:
        path: the folder; made if missing.
        kind: what it is for.
        files: what it begins with, by name; the kind's sign comes last. Written anew where it goes
            on: it may have been killed before they were there.
        given: hashes of what it is begun with.
        resume: go on with what is in it.
        overwrite: replace what is in it.
        check: raises where what is in it can't go on.
        say: is told what a process that was killed has left.

    Raises:
        RunFolderError: as of `refuse_unusable`; the inputs were changed; `check`'s.
    """
    with contextlib.ExitStack() as stack:

        def open_it() -> None:
            options: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "say": say}
            _refuse_unusable(path, kind, **options)
            _open(stack, path, kind, files, given, check=check, resume=resume)

        processes.by_the_first(open_it)
        yield Opened(path, kind)


def _open(
    stack: contextlib.ExitStack,
    path: Path,
    kind: Kind,
    files: Mapping[str, str | bytes],
    given: Mapping[str, Any],
    *,
    check: Callable[[], object],
    resume: bool,
) -> None:
    """Opens a folder that can be used; what is to be let go of is put on the stack."""
    aside = _aside_of(path)
    if kind.holds(path):
        stack.enter_context(locked(path))
        if not kind.holds(path):
            raise of_out(path, f"holds no {kind.name} any more; another process replaces it")
    if resume:
        check()
        inputs.refuse_changed(path, given)
    else:
        if kind.holds(path):
            aside = (*aside, _put_aside(path))
        Path(os.path.realpath(path)).mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(path))
    inputs.keep(path, given)
    mark(path, kind, aside)
    for name in sorted(files, key=lambda name: name == kind.sign):
        replace(path / name, files[name])


class Opened:
    """A folder that is held, and knows what it replaces."""

    def __init__(self, path: Path, kind: Kind):
        """Looks at what it replaces."""
        self._path, self._kind = path, kind
        self._aside = _aside_of(path)

    def checkpointed(self) -> None:
        """Deletes what was put aside, now that there is something in its place.

        Of several processes the first does.
        """
        if not processes.first():
            return
        for name in self._aside:
            aside = _beside(self._path, name)
            # First what it is known by, so that nobody takes what is left of it for whole.
            for file in (MARKER, *(kind.sign for kind in KINDS)):
                (aside / file).unlink(missing_ok=True)
            shutil.rmtree(aside)
        if self._aside:
            self._aside = ()
            mark(self._path, self._kind)


def _put_back(path: Path, say: Callable[[str], None]) -> None:
    """Undoes an overwriting that was cut off before there was anything in its place."""
    real = Path(os.path.realpath(path))
    left = [aside for aside in _asides(real) if kind_of(aside) is not None]
    if not left or any(kind.holds(real) for kind in KINDS):
        return
    if real.exists():
        if foreign(real, kind_of(real)):
            return
        refuse_held(real)
    refuse_held(left[-1])
    if real.exists():
        shutil.rmtree(real)
    os.rename(left[-1], real)
    say(
        f"{path}: an earlier --overwrite was cut off before it began; what it was to replace is "
        f"back from {left[-1].name}"
    )


def _put_aside(path: Path) -> str:
    """Renames a folder; returns its new name."""
    real = Path(os.path.realpath(path))
    when = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    aside = _beside(path, f"{real.name}{ASIDE}{when}")
    try:
        os.rename(real, aside)
    except OSError as error:
        raise of_out(
            path,
            f"can't be put aside as {aside} ({error.strerror}), where it stays until what replaces "
            "it has a checkpoint; give another folder, or empty this one by hand",
        ) from error
    return aside.name


def _asides(real: Path) -> list[Path]:
    """What was put aside of a folder, the latest last."""
    if not real.parent.is_dir():
        return []
    return sorted(
        entry
        for entry in real.parent.iterdir()
        if entry.name.startswith(real.name + ASIDE) and entry.is_dir()
    )


def _aside_of(path: Path) -> tuple[str, ...]:
    """Names of what waits aside for the first checkpoint of what is in a folder."""
    there = {aside.name for aside in _asides(Path(os.path.realpath(path)))}
    return tuple(name for name in (marker(path) or {}).get("replaces", ()) if name in there)


def _beside(path: Path, name: str) -> Path:
    return Path(os.path.realpath(path)).with_name(name)
