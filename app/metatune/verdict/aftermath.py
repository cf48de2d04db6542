"""What follows a gain: what of the tuned schedules it is of, and the simple ones that keep it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np

from metatune.artefact import Artefact
from metatune.artefact.verdict import SIMPLE, USE
from metatune.inner.seeds import Purpose
from metatune.verdict.document import Told
from metatune.verdict.measuring import Measuring
from metatune.verdict.parts import ablation, as_plain, variants
from metatune.verdict.searching import seeds
from metatune.verdict.simple import NAME, Simple, measured, ships, simplest
from metatune.verdict.statistics import DEFAULT, diverged
from metatune.verdict.trainings import ContestTrainings
from metatune.verdict.words import Decision

FRESH: Final = 1 << 20
"""Numbers of test trainings from which on a verdict has its own: no run's result has seen them."""

SEEDS: Final = 5
"""Of validation trainings for each variant of the tuned schedules."""


def with_aftermath(
    told: Told, trainings: ContestTrainings, tuned: Artefact, measure: Measuring
) -> Told:
    """A verdict that also says what of the schedules the gain is of, with the simple ones.

    The simple ones are chosen on the validation split, and then measured on the test split, on the
    seeds of the contest. Those that diverge with any of these are left out.

    Args:
        told: a verdict with a gain.
        trainings: makes the trainings.
        tuned: the schedules that were tuned.
        measure: trains what isn't known.
    """
    training, default, first = trainings.training, trainings.default, seeds("parts")

    def loss(name: str, schedules: Artefact, index: int) -> float:
        return measure(
            "parts",
            name,
            hash_of(tuned),
            first + index,
            lambda: trainings.of_artefact(schedules),
            purpose=Purpose.VALIDATION,
            what=f"{name}, seed {index + 1} of {SEEDS}",
        )

    def asked(name: str, schedules: Artefact) -> list[Callable[[], float]]:
        return [partial(loss, name, schedules, index) for index in range(SEEDS)]

    def losses(name: str, schedules: Artefact) -> list[float]:
        return measure.streams.each(asked(name, schedules))

    made = variants(training, default, tuned)
    # All at once; what follows is answered from the record.
    whole = {"tuned": tuned, "default": default, **made}
    measure.streams.each([job for each in whole.items() for job in asked(*each)])
    gain, parts = ablation(made, losses, tuned, default)
    told = told._replace(parts=as_plain(gain, parts))
    windows = {each.key: each.windows for each in training.tunables}
    found = simplest(default, tuned, windows, losses)
    return told if found is None else _with_simple(told, found, trainings, tuned, measure)


def _with_simple(
    told: Told, found: Simple, trainings: ContestTrainings, tuned: Artefact, measure: Measuring
) -> Told:
    """The same with simple schedules, which are to be used where they do as well."""
    outcome, followed = told.outcome, trainings.of_artefact(found.artefact)

    def loss(seed: int) -> float:
        return measure(
            "test",
            NAME,
            f"{hash_of(tuned)}, {found.words}",
            FRESH + seed,
            lambda: followed,
            purpose=Purpose.TEST,
            what=f"test seed {seed + 1}, {NAME}",
        )

    after = measure.streams.each([partial(loss, seed) for seed in range(outcome.seeds)])
    before: Sequence[float] = outcome.losses[DEFAULT]
    usable, behind = ships(outcome, after)
    gain = outcome.gain.mean
    if diverged(after) or not np.isfinite([behind.mean, gain]).all():
        return told
    kept = (gain - behind.mean) / gain
    simplified = {
        "words": found.words,
        "losses": after,
        "behind_tuned": behind._asdict(),
        "kept": kept,
        "kept_in_validation": found.kept,
        "usable": usable,
    }
    told = told._replace(
        simplified=simplified, simple=measured(found.artefact, before, after, FRESH)
    )
    if told.decision.word != USE or not usable:
        return told
    why = f"{found.words}, {kept:.0%} of a gain of {gain:.4f}"
    return told._replace(decision=Decision(SIMPLE, None, why))


def hash_of(tuned: Artefact) -> str:
    """By what a record knows schedules that were tuned."""
    return f"{tuned.provenance['recipe_sha256']}, point {tuned.result['best_outer_step']}"
