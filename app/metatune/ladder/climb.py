"""Climbs a ladder: what is tuned and the default, carried to each rung and trained there."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import jax

from metatune.fit.artefact_folder import write_artefact
from metatune.ladder import judging, measuring
from metatune.ladder.candidates import DEFAULT, LOW, Candidate, further
from metatune.ladder.document import Measured, document
from metatune.ladder.measuring import Followed, held_out_loss, operations, parameters
from metatune.ladder.prediction import predict
from metatune.ladder.preparing import Ladder, Step
from metatune.ladder.progress import Display
from metatune.ladder.record import LadderRecord
from metatune.runs import stops
from metatune.runs.faults import RUN
from metatune.runs.lock import locked


def climb(ladder: Ladder, display: Display) -> dict[str, Any]:
    """Trains what isn't trained yet, rung by rung, and writes what it comes to.

    Before a rung is trained its gain is predicted by those below, with the time. A climb that was
    stopped or killed goes on where it was.

    Args:
        ladder: what to train.
        display: is told of everything.

    Returns:
        The document of the artefact's `transfer.json`, which is there after each rung.
    """
    with locked(ladder.folder.path, RUN):
        record = LadderRecord(ladder.folder.path, ladder.identity)
        record.mend()
        found: list[Measured] = []
        written: dict[str, Any] = {}
        for step in ladder.steps:
            if not (record.losses(step.rung) or step.rung.key in record.predictions()):
                _predict(step, found, record, display)
            _train(ladder, step, record, display)
            found.append(_measured(ladder, step, record, found))
            display.say(found[-1].sentence)
            written = document(
                ladder.rule, ladder.tuned, found, record.predictions(), record.named()
            )
            write_artefact(ladder.folder, replace(ladder.tuned, transfer=written))
    return written


def seconds(ladder: Ladder, record: LadderRecord) -> float:
    """What the rest takes, about, by a training of the proxy."""
    own = ladder.steps[0].followed(DEFAULT)
    return ladder.left(record) * measuring.seconds(own, ladder.seeds[0])


def _predict(step: Step, found: Sequence[Measured], record: LadderRecord, display: Display) -> None:
    compute, size = operations(step.training), parameters(step.training)
    if (made := predict([each.point for each in found], compute, size)) is None:
        return
    at = datetime.now(UTC).isoformat(timespec="seconds")
    record.predict(step.rung.key, {**judging.as_json(made), "made": at})
    display.say(
        f"{step.rung.name}: a gain of {made.gain:.4f} is predicted, {made.low:.4f} to "
        f"{made.high:.4f}, by {len(found)} rungs below"
        + ("" if made.line else " (by parameters and tokens: they refuse a line over compute)")
    )


def _train(ladder: Ladder, step: Step, record: LadderRecord, display: Display) -> None:
    """All candidates, and further levels of the baselines as long as they get better."""
    for line in step.schedules["tuned"].done:
        display.say(line.replace("*", ""))
    more: Sequence[Candidate] = step.candidates
    while more:
        _train_all(ladder, step, more, record, display)
        more = further(record.complete(step.rung, ladder.seeds))
    jax.clear_caches()  # programs of a rung serve no other


def _train_all(
    ladder: Ladder,
    step: Step,
    candidates: Sequence[Candidate],
    record: LadderRecord,
    display: Display,
) -> None:
    """All of a seed, then of the next: what is left out at a kill is balanced."""
    followed: dict[Candidate, Followed] = {}
    for number, seed in enumerate(ladder.seeds, 1):
        for candidate in candidates:
            if record.loss(step.rung, candidate, seed) is not None:
                continue
            if candidate not in followed:
                followed[candidate] = step.followed(candidate)
            what = f"{step.rung.name}, {candidate.name}, seed {number} of {len(ladder.seeds)}"
            steps = step.training.recipe.inner.steps
            listener = display.training(what, steps, ladder.work(step))
            loss = held_out_loss(followed[candidate], seed, listener=listener)
            with stops.held():
                record.add(step.rung, candidate, seed, loss)
            display.done(ladder.work(step))


def _measured(
    ladder: Ladder, step: Step, record: LadderRecord, before: Sequence[Measured]
) -> Measured:
    losses = record.complete(step.rung, ladder.seeds)
    return Measured(
        rung=step.rung,
        parameters=parameters(step.training),
        steps=step.training.recipe.inner.steps,
        operations=operations(step.training),
        seeds=len(ladder.seeds),
        losses=losses,
        judged=judging.judge(losses, before[0].losses if before else None, LOW),
        left=step.schedules["tuned"].left,
        undone=step.schedules["tuned"].undone,
    )
