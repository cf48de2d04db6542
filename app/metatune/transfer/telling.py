"""Carries the schedules of `metatune train --with` over, and says so."""

from rich.console import Console

from metatune.artefact import Artefact
from metatune.inner import InnerTraining
from metatune.transfer.toward import toward_training


def carried(
    tuned: Artefact,
    training: InnerTraining,
    source: str,
    rule: str | None,
    steps: int | None,
    console: Console,
) -> Artefact:
    """The schedules for a training, and a line for each thing that a user should know of it.

    Arguments and what is refused as of `toward_training`.
    """
    found = toward_training(tuned, training, source, rule, steps=steps)
    lines = [
        *found.done,
        *(f"done here: {what}" for what in found.left),
        *(f"warning: not done here: {what}" for what in found.undone),
        *found.warnings,
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return found.artefact
