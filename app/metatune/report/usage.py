"""How to use what was tuned: whether to, and the commands that export it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from metatune.artefact import Artefact
from metatune.artefact.exporters import required, whole
from metatune.artefact.files import SIMPLE as SIMPLE_FOLDER
from metatune.artefact.verdict import PLAIN, SIMPLE, USE
from metatune.report.commands import typed
from metatune.report.intervals import interval

PLACE: Final = "N"
"""Stands for a number that only the user knows."""
MEANINGS: Final[Mapping[str, str]] = {
    "sequences_per_step": "the sequences of an update of your training",
}
"""Of the arguments of `export` that a target may require."""


class Command(NamedTuple):
    """A command that exports.

    Attributes:
        target: of it.
        summary: what it writes.
        command: as it is typed.
        numbers: arguments in it that the user has to fill in.
    """

    target: str
    summary: str
    command: str
    numbers: Sequence[str]


def commands(artefact: Artefact, path: str) -> list[Command]:
    """A command for each target that takes all of an artefact.

    Args:
        artefact: to export.
        path: of it, as it is typed.
    """
    told = []
    for name, exporter in whole(artefact).items():
        numbers = required(artefact, exporter)
        more = [word for each in numbers for word in (f"--{each.replace('_', '-')}", PLACE)]
        command = typed("export", path, "--to", name, "--out", f"tuned-{name}", *more)
        told.append(Command(name, exporter.summary, command, numbers))
    return told


def placeholders(told: Sequence[Command]) -> list[str]:
    """What the user has to fill in, a sentence for each number."""
    names = dict.fromkeys(number for each in told for number in each.numbers)
    return [f"`{PLACE}` after `--{n.replace('_', '-')}` is {MEANINGS[n]}." for n in names]


def worth_using(result: Mapping[str, Any]) -> bool:
    """Whether the tuned schedules were measured to be better than the defaults, beyond noise."""
    if result.get("status") != "complete":
        return False
    found = interval(result)
    return found is not None and found.high < 0


def recommended(artefact: Artefact) -> bool:
    """Whether to use the schedules, be it simple ones: by the verdict, else by the measurement."""
    if artefact.verdict is None:
        return worth_using(artefact.result)
    return artefact.verdict["word"] in (USE, SIMPLE)


def takes_simple(artefact: Artefact) -> bool:
    """Whether the verdict is to use the simple schedules."""
    return artefact.verdict is not None and artefact.verdict["word"] == SIMPLE


def advice(artefact: Artefact) -> list[str]:
    """What there is to say before commands that export; nothing where all is to be used."""
    found = artefact.verdict
    if recommended(artefact):
        if not takes_simple(artefact):
            return []
        return [
            f"The verdict is to use the simple schedules, those of `{SIMPLE_FOLDER}`, which the "
            "commands name."
        ]
    if found is None:
        return [
            "The schedules were not measured to be better than the defaults: keep your defaults. "
            "To look into them nevertheless:"
        ]
    if found["word"] == PLAIN and found.get("rival") is not None:
        rival = next((each for each in found["rivals"] if each["name"] == found["rival"]), {})
        does = f" ({rival['words']})" if "words" in rival else ""
        return [
            f"The verdict is that a plain change does as well: {found['rival']}{does}. The "
            "commands are for who wants the schedules nevertheless:"
        ]
    return [f"The verdict: {found['sentence']}. To look into the schedules nevertheless:"]
