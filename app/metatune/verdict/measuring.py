"""A training of a contest: from the record, or done and put there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import jax

from metatune.hypergrad import Progress
from metatune.hypergrad.estimator import Listener
from metatune.hypergrad.stores import device_bytes
from metatune.inner import InnerTraining
from metatune.inner.seeds import Purpose
from metatune.ladder.measuring import Followed, held_out_loss
from metatune.ladder.progress import Display
from metatune.plan.cache import cores
from metatune.runs.streams import Streams
from metatune.verdict.alignment import aligned
from metatune.verdict.contestants.contestant import PROXY
from metatune.verdict.points import Point
from metatune.verdict.trials import RecordPart, Trials

MOST: Final = 4
"""Trainings at once at most."""

SMALL: Final = 1 << 26
"""Bytes of a training's state, above which its programs keep all cores busy by themselves."""


def streams_of(training: InnerTraining) -> int:
    """How many trainings are done at once: several where a small one leaves cores of a CPU idle.

    Args:
        training: the recipe's.
    """
    alone = jax.default_backend() != "cpu" or training.layout is not None
    return 1 if alone or device_bytes(training.shapes()) > SMALL else min(MOST, cores())


@dataclass(frozen=True, eq=False)
class Measuring:
    """Trains what isn't known yet.

    Attributes:
        record: of all trainings.
        display: is told of each.
        steps: inner steps of a whole training.
        streams: that train, one or several at once.
    """

    record: Trials
    display: Display
    steps: int
    streams: Streams = field(default_factory=Streams)

    def __call__(
        self,
        part: RecordPart,
        name: str,
        point: Point | str,
        seed: int,
        followed: Callable[[], Followed],
        *,
        purpose: Literal[Purpose.TEST, Purpose.VALIDATION],
        what: str,
        share: float = 1.0,
    ) -> float:
        """A held-out loss, infinite where the training diverged.

        Args:
            part: of the record.
            name: likewise.
            point: likewise.
            seed: number of the training for its purpose.
            followed: makes the training.
            purpose: with it, the split that is measured on.
            what: the training, for people.
            share: of the inner steps that the training has.
        """
        loss = self.record.loss(part, name, point, seed, share)
        if loss is not None:
            return loss
        with self.streams.turn() as turn:
            listener = self._listener(what, max(1, round(share * self.steps)), share)
            loss = held_out_loss(followed(), seed, purpose=purpose, listener=listener)
        self.record.add(part, name, point, seed, loss, turn.seconds, share)
        self.display.done(share)
        return loss

    def aligned(
        self, name: str, seed: int, reach: float, followed: Callable[[], Followed], what: str
    ) -> tuple[float, ...]:
        """The shares that a proxy comes to; empty where it diverged.

        Args:
            name: of the contestant.
            seed: number of the validation training.
            reach: how far the logits of the shares may go.
            followed: makes the training by the recipe's own schedules.
            what: the training, for people.
        """
        point = f"proxy, reach {reach:g}"
        shares = self.record.shares(name, point, seed)
        if shares is not None:
            return shares
        with self.streams.turn() as turn:
            listener = self._listener(what, self.steps, PROXY)
            shares = aligned(followed(), seed, reach, listener)
        self.record.add_shares(name, point, seed, shares, turn.seconds)
        self.display.done(PROXY)
        return shares

    def _listener(self, what: str, steps: int, work: float) -> Listener:
        """Shows where a training stands, and ends it where nobody waits for it any more."""
        show = self.display.training(what, steps, work)

        def hear(heard: Progress) -> None:
            self.streams.go_on()
            show(heard)

        return hear
