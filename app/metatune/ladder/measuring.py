"""A training at a rung, by schedules that were carried to it, and what it comes to."""

import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import numpy as np

from metatune.artefact import Artefact
from metatune.data import sampled_batches
from metatune.fit.trainers.evaluation import measured
from metatune.hypergrad import train
from metatune.hypergrad.estimator import Listener
from metatune.inner import InnerTraining
from metatune.inner.seeds import Purpose, Stream, data_seed, model_key
from metatune.recipe.phases import resolved
from metatune.train.averaging import averaged
from metatune.train.learned_update import corrected
from metatune.train.loop import SEGMENT
from metatune.train.schedules import Schedules, scheduled
from metatune.train.start import scaled, started


class Followed(NamedTuple):
    """A rung's training as it follows an artefact.

    Attributes:
        training: with the artefact's start, scales and update.
        schedules: what its steps use.
        segment: steps of a compiled program.
    """

    training: InnerTraining
    schedules: Schedules
    segment: int


def following(training: InnerTraining, tuned: Artefact) -> Followed:
    """A training by an artefact, as `metatune train --with` does it.

    Args:
        training: of the rung.
        tuned: carried to it, as `train.matching.refuse_misfit` wants it.
    """
    equipped = scaled(started(training, tuned), tuned)
    equipped = averaged(corrected(equipped, tuned.learned_update), tuned.averaging)
    segment = getattr(resolved(training.recipe.outer)[0].estimator, "segment", SEGMENT)
    return Followed(equipped, Schedules(equipped, tuned, segment), segment)


def held_out_loss(
    followed: Followed,
    index: int,
    *,
    purpose: Literal[Purpose.TEST, Purpose.VALIDATION] = Purpose.TEST,
    steps: int | None = None,
    listener: Listener | None = None,
) -> float:
    """Trains once and measures: on the test split, what a report measures, at these schedules.

    Args:
        followed: the training.
        index: of the trainings of that purpose, which: initialisation and data order.
        purpose: what the training is for, and so the split that it is measured on.
        steps: to stop after, for its time; all by default.
        listener: is told where it stands.

    Returns:
        In `recipe.measures.unit`; infinite where the training diverged.
    """
    training, schedules, segment = followed
    recipe = training.recipe
    batches = sampled_batches(
        training.corpus,
        seed=data_seed(recipe.seed, purpose, index, Stream.TRAINING),
        batch_size=recipe.data.batch_size,
        shares=schedules.shares(),
    )
    problem = scheduled(training, schedules.tuned)
    state = training.initialise(model_key(recipe.seed, purpose, index))
    for first, count in _segments(steps or recipe.inner.steps, segment):
        state, losses = train(
            problem,
            schedules.segment(first),
            state,
            batches,
            steps=count,
            start=first,
            segment=segment,
            donate=True,
            listener=listener,
        )
        if not np.isfinite(np.asarray(losses)).all():
            return float("inf")
    outer, test = recipe.outer, purpose is Purpose.TEST
    loss = measured(
        training,
        state,
        purpose=purpose,
        split="test" if test else "validation",
        sequences=(outer.test if test else outer.validation).sequences,
    )
    return loss if np.isfinite(loss) else float("inf")


def seconds(followed: Followed, index: int) -> float:
    """What a training and its measurement take, about: by one segment of it, and by two.

    Args:
        followed: as of `following`; what it takes is compiled first.
        index: of the seeds, as of `held_out_loss`.
    """
    steps, segment = followed.training.recipe.inner.steps, followed.segment

    def took(segments: int) -> float:
        began = time.monotonic()
        held_out_loss(followed, index, steps=min(steps, segments * segment))
        return time.monotonic() - began

    took(1)  # compiles
    one = took(1)
    if steps <= segment:
        return one
    # What is drawn and measured around the steps doesn't grow with them.
    return one + max(0.0, took(2) - one) * (steps - segment) / segment


def parameters(training: InnerTraining) -> int:
    """Numbers that a training moves."""
    shapes = jax.eval_shape(training.initialise, jax.random.key(0)).params
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def operations(training: InnerTraining) -> float:
    """Floating-point operations of a training, `6 N D`, but for attention.

    Source: Kaplan et al., Scaling Laws for Neural Language Models, 2020, section 2.1.
    """
    recipe = training.recipe
    tokens = recipe.inner.steps * recipe.data.batch_size * recipe.data.sequence_length
    return 6.0 * parameters(training) * tokens


def _segments(steps: int, segment: int) -> Iterator[tuple[int, int]]:
    for first in range(0, steps, segment):
        yield first, min(segment, steps - first)
