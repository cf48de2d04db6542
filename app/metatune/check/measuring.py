"""Measuring: everything that a certificate is judged by, in trainings and hypergradients."""

import math
from dataclasses import replace
from typing import Final

import numpy as np
from jax.flatten_util import ravel_pytree

from metatune.check.numbers import (
    DEFAULT,
    AtHorizon,
    Compared,
    FlippedChoices,
    Moved,
    Numbers,
    Sample,
    Settings,
    coordinate_names,
)
from metatune.check.slopes import measured_slopes, random_directions, slopes_over_step
from metatune.check.smoothness import moved
from metatune.check.subject import (
    HYPERGRADIENT,
    Draw,
    FixedDraw,
    Subject,
    Task,
    samples,
)
from metatune.hypergrad import EstimatorError, Forward, MixFlow
from metatune.hypergrad.estimator import Estimator

FRACTIONS: Final = (4, 2)
"""Of the horizon, one over each, for the signs of shorter ones; the last is judged."""

CHUNK: Final = 2
"""Directions that forward mode pushes at a time, for the memory of as many states."""

FORWARD: Final = 2.5
"""Trainings that a direction of forward mode takes as long as, about."""


def measure(subject: Subject, settings: Settings = DEFAULT) -> Numbers:
    """Measures everything that there is sense in.

    Args:
        subject: what to check.
        settings: how much to look at.
    """
    found = samples(subject, settings.seeds, "hypergradient")
    draw = subject.draw(0)
    held = FixedDraw(subject, draw)
    size = len(subject.flat)
    eps = float(np.finfo(subject.flat.dtype).eps)
    shapes = {key: tuple(leaf.shape) for key, leaf in subject.eta.items()}
    random = random_directions(size, settings.directions, settings.seed)
    finite = all(sample.finite_losses for sample in found)
    differentiable = finite and all(np.isfinite(sample.gradient).all() for sample in found)
    steady, slopes, over_step, compared, stretches, whole = None, (), (), None, (), None
    flipped = None
    if finite:
        steady = _moved(held, random[0] * math.sqrt(size), settings.step)
    if differentiable:
        rounding = eps * abs(found[0].value)
        names = coordinate_names(shapes)
        slopes = measured_slopes(held, found[0], random, names, rounding)
        over_step = slopes_over_step(held, found[0], random, settings.step)
        compared = _compared(subject, draw, found[0], random)
        stretches, whole = _spans(subject, found)
        flipped = flipped_choices(held, found[0].gradient, settings.step)
    return Numbers(
        horizon=subject.horizon,
        own=subject.own or subject.horizon,
        estimator=type(subject.estimator).__name__,
        eps=eps,
        shapes=shapes,
        settings=settings,
        before=held.objective(held.evaluated(draw.state)),
        samples=found,
        slopes=slopes,
        compared=compared,
        moved=steady,
        stretches=stretches,
        whole=whole,
        blocks=tuple(block.name for block in subject.blocks),
        over_step=over_step,
        flipped=flipped,
    )


def cost(subject: Subject, settings: Settings) -> float:
    """Of what `measure` takes of a subject whose numbers are finite, in trainings, at the least.

    More where central differences don't settle at once.
    """
    coordinates = min(settings.directions, len(subject.flat))
    before = bool(subject.window and subject.window < subject.steps)
    differences = 2 * 2 * (settings.directions + coordinates)
    whole = _whole(subject)
    others = [whole] if whole else [_shorter(subject, fraction) for fraction in FRACTIONS]
    hypergradients = 1 + sum(other.pace for other in others if other)
    return (
        settings.seeds * hypergradients * HYPERGRADIENT
        + before
        + differences
        + 2 * settings.directions  # over a step
        + _cost_along(another(subject.estimator), settings.directions)
        + 3  # of the metasmoothness
        + 2 * (subject.choices is not None)
    )


def another(estimator: Estimator) -> Estimator:
    """An exact estimator that works in another way.

    Reverse-mode estimators are compared with forward mode, all others with MixFlow: both are exact
    for the training as it is computed, so that only rounding lies between.
    """
    if estimator.backward:
        return Forward(estimator.segment, chunk=CHUNK)
    return MixFlow(estimator.segment)


def _cost_along(other: Estimator, directions: int) -> float:
    return HYPERGRADIENT if other.backward else FORWARD * directions


def _compared(subject: Subject, draw: Draw, sample: Sample, directions: np.ndarray) -> Compared:
    other = another(subject.estimator)
    name = type(other).__name__
    derivatives = directions @ sample.gradient
    errors = np.sqrt(directions**2 @ sample.errors**2)
    work = Task(f"derivatives by {name}", _cost_along(other, len(directions)))
    try:
        exact = subject.along(draw, work, directions, other)
    except EstimatorError as error:
        return Compared(name, derivatives, np.array([]), errors, str(error))
    return Compared(name, derivatives, exact, errors, "")


def _moved(held: FixedDraw, signs: np.ndarray, step: float) -> Moved:
    what = "metasmoothness, training {} of 3"
    flat = [ravel_pytree(held.trained(k * step * signs, what.format(k + 1)))[0] for k in range(3)]
    eps = float(np.finfo(flat[0].dtype).eps)
    return moved(*(np.asarray(trained, np.float64) for trained in flat), eps=eps)


def flipped_choices(held: FixedDraw, gradient: np.ndarray, step: float) -> FlippedChoices | None:
    """Of the choices at η, those that aren't made a step down the hypergradient."""
    choices, length = held.subject.choices, float(np.linalg.norm(gradient))
    if choices is None:
        return None
    down = -step * math.sqrt(len(gradient)) * gradient / (length or 1.0)
    found = []
    for number, by in enumerate((np.zeros_like(down), down), 1):
        params = held.trained(by, f"choices of experts, training {number} of 2")
        found.append([np.asarray(choices(params, batch)) for batch in held.draw.outer_batches])
    kept = np.concatenate(
        [
            (here[..., :, None] == there[..., None, :]).any(-1).reshape(-1)
            for here, there in zip(*found, strict=True)
        ]
    )
    return FlippedChoices(float(1 - kept.mean()), kept.size)


def _spans(
    subject: Subject, found: tuple[Sample, ...]
) -> tuple[tuple[AtHorizon, ...], AtHorizon | None]:
    if whole := _whole(subject):
        steps = subject.horizon.differentiated
        reference = samples(whole, len(found), f"{whole.steps} steps")
        own = AtHorizon(f"the last {steps} steps", steps, found)
        return (own,), AtHorizon("the whole", whole.steps, reference)
    stretches = []
    for fraction in FRACTIONS:
        if shorter := _shorter(subject, fraction):
            short = samples(shorter, len(found), f"{shorter.steps} steps")
            stretches.append(AtHorizon(f"1/{fraction} of the steps", shorter.steps, short))
    return tuple(stretches), None


def _shorter(subject: Subject, fraction: int) -> Subject | None:
    steps = subject.steps // fraction
    shorter = subject.shorter(steps) if steps else None
    return shorter and replace(shorter, pace=steps / subject.steps)


def _whole(subject: Subject) -> Subject | None:
    whole = subject.whole
    return whole and replace(whole, pace=whole.steps / subject.steps)
