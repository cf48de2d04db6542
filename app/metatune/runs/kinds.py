"""Whose a folder is: what `metatune fit` writes, or what `metatune train` does."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from metatune.artefact import INITIALISATION
from metatune.artefact.files import SIMPLE
from metatune.runs.faults import RunFolderError
from metatune.runs.files import partial, replace
from metatune.runs.inputs import INPUTS
from metatune.runs.lock import HOUSEKEEPING

MARKER: Final = ".metatune.json"
"""Says whose a folder is."""
FORMAT: Final = "metatune-folder"
VERSION: Final = 1


@dataclass(frozen=True)
class Kind:
    """What a folder is for.

    Attributes:
        name: in errors and in the marker.
        command: that writes it.
        sign: the file that is written last of those that begin it: with it, there is something.
        names: of all files and folders that may be in it.
    """

    name: str
    command: str
    sign: str
    names: frozenset[str]

    def holds(self, path: Path) -> bool:
        """Whether something of this kind was begun in a folder."""
        return (path / self.sign).exists() and kind_of(path) == self

    def recognised(self, path: Path) -> bool:
        """Whether a folder without a marker is of this kind; a recipe alone is somebody's own."""
        return (path / self.sign).exists() and any(
            (path / name).exists() for name in self.names - {self.sign}
        )


RUN: Final = Kind(
    "run",
    "metatune fit",
    "recipe.yaml",
    frozenset(
        {
            "recipe.yaml",
            "metrics.jsonl",
            "commands.jsonl",
            "expected.json",
            "report.html",
            "artefact-simple-report.html",
            "transfer.jsonl",
            "retuned",
            "tensorboard",
            "checkpoints",
            "scratch",
            "verdict.jsonl",
            "what-if.jsonl",
            *(
                f"{before}{name}{after}"
                for name in ("artefact", SIMPLE)
                for before, after in (("", ""), (".", ".new"), (".", ".old"))
            ),
        }
    ),
)
TRAINING: Final = Kind(
    "training",
    "metatune train",
    "training.json",
    frozenset(
        {
            "training.json",
            "recipe.yaml",
            "tuned.json",
            "tuned.safetensors",
            INITIALISATION,
            "metrics.jsonl",
            "tensorboard",
            "checkpoints",
            "model",
            "result.json",
        }
    ),
)
KINDS: Final = (TRAINING, RUN)  # a training has the sign of a run, too


def kind_of(path: Path) -> Kind | None:
    """Whose a folder is: by its marker, else, of an older metatune, by its files.

    Raises:
        RunFolderError: its marker can't be read.
    """
    held = marker(path)
    if held is not None:
        return next(kind for kind in KINDS if kind.name == held["kind"])
    return next((kind for kind in KINDS if kind.recognised(path)), None)


def marker(path: Path) -> dict[str, Any] | None:
    """The marker of a folder; None for none.

    Raises:
        RunFolderError: it can't be read.
    """
    file = path / MARKER
    try:
        held = json.loads(file.read_bytes())
        if held["format"] != FORMAT or held["version"] != VERSION:
            raise ValueError(f"{held['format']} {held['version']}")
        if held["kind"] not in [kind.name for kind in KINDS]:
            raise ValueError(held["kind"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path}: its {MARKER} can't be read ({error}), which says whose the folder is; use "
            "the metatune that wrote it, or delete that file if it is damaged; the others tell",
        ) from None
    return held


def mark(path: Path, kind: Kind, replaces: tuple[str, ...] = ()) -> None:
    """Writes whose a folder is.

    Args:
        path: the folder.
        kind: whose.
        replaces: folders beside it, put aside until it has a checkpoint.
    """
    document = {"format": FORMAT, "version": VERSION, "kind": kind.name, "replaces": replaces}
    replace(path / MARKER, json.dumps(document, indent=1) + "\n")


def foreign(path: Path, kind: Kind | None) -> list[str]:
    """What is in a folder that nothing of ours has written, sorted."""
    ours = {MARKER, INPUTS, *HOUSEKEEPING} | (kind.names if kind else set())
    ours |= {partial(Path(name)).name for name in ours}
    return sorted(entry.name for entry in path.iterdir() if entry.name not in ours)
