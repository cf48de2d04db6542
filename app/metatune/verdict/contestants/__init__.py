"""Who competes: what a user would have done. A new one is a file and a row of `CONTESTANTS`."""

from collections.abc import Sequence
from typing import Final

from metatune.recipe.faults import RecipeError, unknown
from metatune.verdict.contestants.alignment import Alignment
from metatune.verdict.contestants.black_box import RANDOM, RANDOM_ALL, TPE, TPE_ALL
from metatune.verdict.contestants.contestant import DIVERGED, Contestant, ContestSetting, Evaluate
from metatune.verdict.contestants.grid import GridSweep
from metatune.verdict.contestants.halving import Halving
from metatune.verdict.contestants.layer_wise import LayerWise
from metatune.verdict.contestants.online import Online
from metatune.verdict.contestants.prodigy import Prodigy
from metatune.verdict.contestants.regression import Regression
from metatune.verdict.contestants.schedule_free import ScheduleFree

__all__ = ["CONTESTANTS", "DIVERGED", "ContestSetting", "Contestant", "Evaluate", "chosen"]

_ALL: Final[tuple[Contestant, ...]] = (
    GridSweep(),
    RANDOM,
    TPE,
    RANDOM_ALL,
    TPE_ALL,
    Halving(),
    LayerWise(),
    ScheduleFree(),
    Prodigy(),
    Online(),
    Regression(),
    Alignment(),
)

CONTESTANTS: Final = {contestant.name: contestant for contestant in _ALL}
"""By name, in the order in which they search."""


def chosen(only: Sequence[str] | None) -> list[Contestant]:
    """The contestants of `--only`, in the table's order; all of them for None.

    Raises:
        RecipeError: naming each word that is none.
    """
    if only is None:
        return list(_ALL)
    if faults := [
        unknown("--only", name, "contestant", name, tuple(CONTESTANTS))
        for name in only
        if name not in CONTESTANTS
    ]:
        raise RecipeError("verdict", faults)
    return [contestant for contestant in _ALL if contestant.name in only]
