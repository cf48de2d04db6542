"""The result of a run: measured once, on text and seeds never used before."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from metatune.fit.replaying.record import record
from metatune.fit.searching.checkpoints import Search
from metatune.fit.searching.sharing import record as shared
from metatune.fit.telling.progress import SearchDisplay
from metatune.fit.trainers.evaluation import Score
from metatune.inner import InnerTraining
from metatune.inner.seeds import Purpose
from metatune.recipe.measures import unit


class MeasuredResult(NamedTuple):
    """What measuring came to.

    Attributes:
        result: the artefact's `result`.
        record: of the first pair of trainings, the tuned one to compare with when it is done again;
            None where they are done elsewhere.
    """

    result: dict[str, Any]
    record: dict[str, Any] | None


def measure(
    training: InnerTraining,
    search: Search,
    display: SearchDisplay,
    score: Score,
    programs: Sequence[str] = (),
) -> MeasuredResult:
    """Trains with the recipe's defaults and with the best found, on the same unseen seeds.

    Args:
        training: the inner training.
        search: the finished search.
        display: is told of every pair.
        score: how a training is done and measured.
        programs: that it compiles, as `SearchDisplay.listener` takes them.

    Returns:
        The result, and a record of the first pair of trainings.
    """
    test = training.recipe.outer.test
    before, after = [], []
    curves: list[np.ndarray] = []
    for index in range(test.seeds):
        for losses, eta, what in (
            (before, training.initial_eta(), "default"),
            (after, search.best_eta, "tuned"),
        ):
            losses.append(
                score(
                    eta,
                    purpose=Purpose.TEST,
                    index=index,
                    split="test",
                    sequences=test.sequences,
                    listener=display.listener(f"test seed {index + 1}, {what}", programs),
                    keep=curves.append if index == 0 else None,
                )
            )
        display.say(
            f"test seed {index + 1}/{test.seeds}  default {before[-1]:.4f}  tuned {after[-1]:.4f}"
        )
    result = {
        **_search_result(training, search, "complete"),
        "objective_before": float(np.mean(before)),
        "objective_after": float(np.mean(after)),
        **paired(before, after),
        "held_out_seeds": list(range(test.seeds)),
        "before": before,
        "after": after,
    }
    if not curves:
        return MeasuredResult(result, None)
    default, tuned = curves
    return MeasuredResult(result, record(tuned, default))


def unfinished(training: InnerTraining, search: Search) -> dict[str, Any]:
    """The artefact's `result` while the search goes on: nothing is measured yet."""
    return {
        **_search_result(training, search, "unfinished"),
        "objective_before": None,
        "objective_after": None,
        "difference": None,
        "standard_error": None,
        "held_out_seeds": [],
        "before": [],
        "after": [],
    }


def paired(before: list[float], after: list[float]) -> dict[str, float | None]:
    """Mean of the paired differences (negative is better) and its standard error.

    A single pair has no standard error.
    """
    differences = np.subtract(after, before)
    error = differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return {
        "difference": float(differences.mean()),
        "standard_error": None if error is None else float(error),
    }


def _search_result(training: InnerTraining, search: Search, status: str) -> dict[str, Any]:
    outer = training.recipe.outer
    return {
        "status": status,
        "unit": unit(training.recipe),
        "best_outer_step": search.best_step,
        "outer_steps": search.step,
        **({} if outer.ema is None else {"best_is_average": search.best_averaged}),
        **({"sharing": shared(search)} if search.shared else {}),
    }
