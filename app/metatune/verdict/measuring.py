"""A training of a contest: from the record, or done and put there."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from metatune.inner.seeds import Purpose
from metatune.ladder.measuring import Followed, held_out_loss
from metatune.ladder.progress import Display
from metatune.verdict.alignment import aligned
from metatune.verdict.contestants.contestant import PROXY
from metatune.verdict.points import Point
from metatune.verdict.trials import RecordPart, Trials


@dataclass(frozen=True, eq=False)
class Measuring:
    """Trains what isn't known yet.

    Attributes:
        record: of all trainings.
        display: is told of each.
        steps: inner steps of a whole training.
    """

    record: Trials
    display: Display
    steps: int

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
        began, steps = time.monotonic(), max(1, round(share * self.steps))
        listener = self.display.training(what, steps, share)
        loss = held_out_loss(followed(), seed, purpose=purpose, listener=listener)
        self.record.add(part, name, point, seed, loss, time.monotonic() - began, share)
        self.display.done()
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
        began, listener = time.monotonic(), self.display.training(what, self.steps, PROXY)
        shares = aligned(followed(), seed, reach, listener)
        self.record.add_shares(name, point, seed, shares, time.monotonic() - began)
        self.display.done()
        return shares
