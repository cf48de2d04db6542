"""A training of a contest: from the record, or done and put there."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from metatune.inner.seeds import Purpose
from metatune.ladder.measuring import Followed, held_out_loss
from metatune.ladder.progress import Display
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
