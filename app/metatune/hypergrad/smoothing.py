"""Differences of whole trainings along a few directions: derivatives of the smoothed objective.

Where training is chaotic the objective as a function of η is a smooth curve with fine wrinkles, and
the exact derivative is that of a wrinkle. A central difference of step ε doesn't see what is much
finer than ε.

Source: Metz et al., Understanding and Correcting Pathologies in the Training of Learned Optimizers,
2019, section 3 (there with random directions).
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from metatune.hypergrad.driver import train
from metatune.hypergrad.estimator import Listener, evaluated, measured
from metatune.hypergrad.problem import Batches, Problem, State
from metatune.hypergrad.shapes import Batch, Eta

SHRINK = 0.25
"""What the step is multiplied by where training diverges on a side."""

TRIES = 3
"""Steps that are tried."""


def smoothed_slope(
    problem: Problem,
    eta: Eta,
    direction: Eta,
    state: State,
    batches: Batches,
    outer_batches: Sequence[Batch],
    *,
    step: float,
    steps: int,
    start: int = 0,
    points: Mapping[int, float] | None = None,
    segment: int = 16,
    listener: Listener | None = None,
) -> float | None:
    """`(F(η + ε v) - F(η - ε v)) / 2ε`, both trainings with the same start and data.

    Unbiased for the objective that is smoothed uniformly over `[-ε, ε]` along v. Takes two
    trainings, in the memory of one. Where one diverges, both are done again with a smaller ε.

    Args:
        problem: the training and its objective.
        eta: meta-parameters η.
        direction: v, a pytree like η.
        state: the state before inner step `start`; left untouched.
        batches: the batch of an inner step.
        outer_batches: held-out batches of one shape.
        step: ε.
        steps: inner steps from `start` to the objective.
        start: the first inner step.
        points: as of `hypergradient`.
        segment: inner steps per compiled program at most.
        listener: is told after each segment where a training stands.

    Returns:
        The slope; None where training diverges at every step that is tried.
    """
    for size in (step * SHRINK**number for number in range(TRIES)):
        sides = [
            objective(
                problem,
                jax.tree.map(lambda leaf, along, e=e: leaf + e * along, eta, direction),
                state,
                batches,
                outer_batches,
                steps=steps,
                start=start,
                points=points,
                segment=segment,
                listener=listener,
            )
            for e in (size, -size)
        ]
        if np.isfinite(sides).all():
            return (sides[0] - sides[1]) / (2 * size)
    return None


def objective(
    problem: Problem,
    eta: Eta,
    state: State,
    batches: Batches,
    outer_batches: Sequence[Batch],
    *,
    steps: int,
    start: int = 0,
    points: Mapping[int, float] | None = None,
    segment: int = 16,
    listener: Listener | None = None,
) -> float:
    """The objective F at η, by a training; arguments as of `smoothed_slope`."""
    state, total, done = jax.tree.map(jnp.copy, state), 0.0, 0
    for point, weight in sorted((points or {steps: 1.0}).items()):
        state, _ = train(
            problem,
            eta,
            state,
            batches,
            steps=point - done,
            start=start + done,
            segment=segment,
            donate=True,
            listener=listener,
        )
        done = point
        total += weight * measured(
            problem, evaluated(problem, state), outer_batches, dtype=np.float64
        )
    return total
