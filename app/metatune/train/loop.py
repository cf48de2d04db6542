"""The loop of a training: segments of steps, evaluations and checkpoints between them."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from metatune.data import Batch, sampled_batches
from metatune.fit.trainers.evaluation import measured
from metatune.fit.trainers.failure import NotFinite
from metatune.hypergrad import train
from metatune.inner import InnerTraining
from metatune.inner.devices import over_processes, share
from metatune.inner.seeds import Purpose, Stream, data_seed
from metatune.recipe.schema import in_groups
from metatune.runs import processes
from metatune.runs.stops import Hold
from metatune.train.checkpoints import Position, TrainingCheckpoints
from metatune.train.progress import Teller
from metatune.train.schedules import Schedules, SegmentSchedules, scheduled

SEGMENT = 16
"""Steps of a compiled program where the recipe's estimator has none of its own."""


class Intervals(NamedTuple):
    """What happens between steps.

    Attributes:
        checkpoint_every: steps from one checkpoint to the next; Ctrl-C and the end leave one, too.
        evaluate_every: steps from one evaluation to the next; there is one at the end, too.
    """

    checkpoint_every: int = 500
    evaluate_every: int = 500


DEFAULT = Intervals()


class Losses(NamedTuple):
    """What is measured on the test split, in `recipe.measures.unit`.

    Attributes:
        held_out: weighted by the target, on the sequences that a verdict is measured on.
        domains: the loss of each domain alone, each on as many sequences; of those alone that have
            tokens of the classes that are measured.
    """

    held_out: float
    domains: Mapping[str, float]


class _Done(NamedTuple):
    """Steps that are computed, or about to be.

    Attributes:
        first: the first of them.
        stop: one past the last.
        losses: of each.
        schedules: what they use.
        counts: sequences of each domain in all of them, [domains].
    """

    first: int
    stop: int
    losses: jax.Array
    schedules: SegmentSchedules
    counts: np.ndarray


class TrainingLoop:
    """A training from where it stands to its end, or to Ctrl-C."""

    def __init__(
        self,
        training: InnerTraining,
        schedules: Schedules,
        *,
        test_seed: int,
        segment: int,
        intervals: Intervals,
    ):
        """Prepares a training; computes nothing yet.

        Args:
            training: the training, at its horizon.
            schedules: what its steps use.
            test_seed: which of the trainings that a result is measured by: the order of its data.
            segment: steps of a compiled program.
            intervals: what happens between steps.
        """
        recipe = training.recipe
        self.training = training
        self.steps = recipe.inner.steps
        self._schedules = schedules
        self._segment = segment
        self._intervals = intervals
        self._problem = scheduled(training, schedules.tuned)
        self._shares = schedules.shares()
        self._batches = sampled_batches(
            training.corpus,
            seed=data_seed(recipe.seed, Purpose.TEST, test_seed, Stream.TRAINING),
            batch_size=recipe.data.batch_size,
            shares=self._shares,
            part=share(training.layout),
        )

    def run(
        self,
        position: Position,
        checkpoints: TrainingCheckpoints,
        teller: Teller,
        hold: Hold,
    ) -> tuple[Position, Losses | None]:
        """Trains on.

        Args:
            position: where the training stands; its memory is taken.
            checkpoints: where it is kept.
            teller: is told of everything.
            hold: whether to stop.

        Returns:
            Where it stands then, which has been kept, and the losses at the end; None before it,
            and where there was no time for them.

        Raises:
            NotFinite: a loss is none; the newest checkpoint is from before.
        """
        began, before = time.monotonic(), position.seconds
        pending: _Done | None = None
        told, losses = began, None
        if self._measured_at(position.step):  # an earlier process may have had no time for it
            known = teller.measured(position.step)
            if position.step == self.steps or not known:
                losses = self._evaluation(position, None if known else teller)
        for first, stop in segments(position.step, self.steps, self._segment, *self._intervals):
            segment = self._schedules.segment(first)
            counts: dict[int, np.ndarray] = {}
            state, inner = train(
                self._problem,
                segment,
                position.state,
                over_processes(self.training.layout, self._counted(counts)),
                steps=stop - first,
                start=first,
                segment=self._segment,
                donate=True,
            )
            position = Position(stop, state)
            # The last ones are looked at while these are computed.
            if pending:
                told = self._tell(teller, pending, told)
            drawn = processes.summed(np.sum(list(counts.values()), axis=0))
            pending = _Done(first, stop, inner, segment, np.asarray(drawn))
            pause = processes.stop_together(hold.asked)
            if not (pause or stop == self.steps or due(stop, *self._intervals)):
                continue
            told, pending = self._tell(teller, pending, told), None
            position = position._replace(seconds=before + time.monotonic() - began)
            if pause or stop == self.steps or due(stop, self._intervals.checkpoint_every):
                checkpoints.save(position)
            if pause:
                break
            if self._measured_at(stop):
                losses = self._evaluation(position, teller)
            told = time.monotonic()
        position = position._replace(seconds=before + time.monotonic() - began)
        return position, losses if position.step == self.steps else None

    def _measured_at(self, step: int) -> bool:
        return step == self.steps or (step > 0 and due(step, self._intervals.evaluate_every))

    def _evaluation(self, position: Position, teller: Teller | None) -> Losses:
        losses = self.evaluate(position)
        if teller:
            domains = dict(losses.domains)
            line = {"step": position.step, "held_out": losses.held_out, "domains": domains}
            teller.evaluation(line)
        return losses

    def evaluate(self, position: Position) -> Losses:
        """The held-out losses, on the same text as those of a verdict."""
        training, corpus = self.training, self.training.corpus

        def loss(target: np.ndarray) -> float:
            return measured(
                replace(training, corpus=replace(corpus, target=target)),
                position.state,
                purpose=Purpose.TEST,
                split="test",
                sequences=training.recipe.outer.test.sequences,
            )

        whole = corpus.target_of("test")
        of_target = corpus.measured[int(np.flatnonzero(whole)[0])].test
        alone = {
            domain.name: target
            for domain, target in zip(corpus.measured, np.eye(len(whole)), strict=True)
            # Others have nothing to measure on, or count other tokens.
            if len(domain.test) and domain.test.counted == of_target.counted
        }
        domains = {name: loss(target) for name, target in alone.items()}
        for name, target in alone.items():
            if np.array_equal(whole, target):
                return Losses(domains[name], domains)
        return Losses(loss(corpus.target), domains)

    def _counted(self, counts: dict[int, np.ndarray]) -> Callable[[int], Batch]:
        """The batches; notes in `counts` how many sequences of each domain a step's has."""

        def batch(step: int) -> Batch:
            drawn = self._batches(step)
            counts[step] = np.bincount(drawn.domain, minlength=self._shares.shape[1])
            return drawn

        return batch

    def _tell(self, teller: Teller, done: _Done, before: float) -> float:
        """Waits for steps, and tells of them; returns when that was."""
        losses = np.asarray(done.losses, np.float64)
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            cure = "lower inner.optimizer.learning_rate or set inner.optimizer.clip_norm"
            raise NotFinite(
                f"step {done.first + bad[0]}: the loss is {losses[bad[0]]}; "
                f"{in_groups(cure, self.training.recipe.inner.optimizer)}; of a tuned schedule, "
                "train without --with to compare"
            )
        now, names = time.monotonic(), self.training.corpus.names
        data = self.training.recipe.data
        tokens = (done.stop - done.first) * data.batch_size * data.sequence_length
        realised = done.counts / done.counts.sum()
        wanted = self._shares[done.first : done.stop].mean(axis=0)
        teller.block(
            {
                "step": done.stop,
                "loss": float(losses.mean()),
                "learning_rate": self._schedules.rates(done.schedules, done.stop - 1),
                "share": dict(zip(names, realised.tolist(), strict=True)),
                "wanted_share": dict(zip(names, wanted.tolist(), strict=True)),
                "tokens_per_second": tokens / max(now - before, 1e-9),
            }
        )
        return now


def segments(first: int, steps: int, *every: int) -> Iterator[tuple[int, int]]:
    """Cuts steps `first` to `steps` at all multiples of any of `every`."""
    while first < steps:
        stop = min(steps, *((first // each + 1) * each for each in every))
        yield first, stop
        first = stop


def due(step: int, *every: int) -> bool:
    """Whether `step` is a multiple of any of `every`."""
    return any(step % each == 0 for each in every)
