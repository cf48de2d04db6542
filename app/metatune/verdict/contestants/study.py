"""Searches by Optuna: a point for each number of a trial, told what the trials before came to.

A study lives in memory, and a search that goes on asks for all of its points again: what was
trained is answered from the record, so that it comes to the same. The sampler has a seed of its own
for each trial: one that begins anew with the seed of the study repeats its points.
"""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, Literal

from metatune.verdict.contestants.contestant import ContestSetting, Evaluate, fitting
from metatune.verdict.points import Coordinates, Plain, Point

Sampler = Literal["random", "tpe"]

STARTUP: Final = 10
"""Random trials before TPE has something to go by, as Optuna has it."""

REACH: Final = 1.5
"""How far from the recipe's own each meta-parameter is looked for: of a rate, times or over 4.5."""

MOST: Final = 1000
"""Meta-parameters, beyond which a search without derivatives is a walk in the dark."""

TARGET: Final = "target share"

QUIET: Final = threading.Lock()
"""Held while Optuna is told to be quiet."""


def search(
    sampler: Sampler,
    ranges: Mapping[str, tuple[float, float, bool]],
    first: Mapping[str, float],
    point: Callable[[Mapping[str, float]], Point],
    budget: int,
    evaluate: Evaluate,
    key: int,
) -> None:
    """Asks for a point, trains, tells its loss; the first point is the recipe's own.

    Args:
        sampler: of Optuna.
        ranges: lower and upper end of each number by its name, and whether its logarithm is drawn.
        first: the numbers of the first trial.
        point: of the numbers.
        budget: whole trainings.
        evaluate: trains and measures.
        key: of the randomness.
    """
    import optuna  # takes long to import, and only this command has use for it

    distributions: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(low, high, log=log)
        for name, (low, high, log) in ranges.items()
    }
    with _quiet():
        study = optuna.create_study()
        study.enqueue_trial(dict(first))
    for number in range(budget):
        with _quiet():
            study.sampler = _sampler(sampler, (key + 7919 * number) % 2**32)
            trial = study.ask(distributions)
        loss = evaluate(point(trial.params))
        with _quiet():
            study.tell(trial, loss)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without its news and the warnings of options that may change one day.

    Both are switched for the whole process: one thread at a time.
    """
    import optuna

    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(verbosity)


def few(setting: ContestSetting) -> dict[str, tuple[float, float, bool]]:
    """The numbers that anyone would search in: peak, warmup, decay and the target's share."""
    found = {
        "rate": (1 / 16, 16.0, True),
        "warmup": (0.0, 0.3, False),
        "decay": (0.0, 1.0, False),
    }
    if setting.mixtures and setting.target:
        found[TARGET] = (0.0, 1.0, False)
    return found


FEW_FIRST: Final[Mapping[str, float]] = {"rate": 1.0, "warmup": 0.05, "decay": 0.5, TARGET: 0.0}
"""Of the first trial: about what a recipe has."""


def of_few(setting: ContestSetting, numbers: Mapping[str, float]) -> Plain:
    """The point of such numbers: warmup, plateau, and a linear decay to zero."""
    plain = Plain(
        rate=numbers["rate"],
        schedule="wsd",
        warmup=numbers["warmup"],
        decay=min(numbers["decay"], 1 - numbers["warmup"]),
    )
    if TARGET not in numbers:
        return plain
    share, own = numbers[TARGET], next(iter(setting.mixtures.values()))
    shares = tuple((1 - share) * a + share * b for a, b in zip(own, setting.target, strict=True))
    return replace(plain, mixture="towards the target", shares=fitting(shares, setting.caps))


def all_of(setting: ContestSetting) -> dict[str, tuple[float, float, bool]]:
    """All meta-parameters."""
    return {str(i): (-REACH, REACH, False) for i in range(setting.coordinates)}


def of_all(numbers: Mapping[str, float]) -> Coordinates:
    """The point of all meta-parameters."""
    return Coordinates(tuple(numbers[str(i)] for i in range(len(numbers))))


def _sampler(sampler: Sampler, seed: int) -> Any:
    import optuna

    if sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
