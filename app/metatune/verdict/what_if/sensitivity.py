"""What a run is sensitive to: each domain some points up, by window, and faster or slower rates."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from metatune.artefact.kinds import KINDS, kind_of
from metatune.inner import InnerTraining
from metatune.recipe.faults import RecipeError
from metatune.tunables.groups import Groups
from metatune.verdict.what_if.asking import Asking, OpenedAsking
from metatune.verdict.what_if.changes import ALL, MIXTURE, RATES, parsed, quoted
from metatune.verdict.what_if.model import Bend, PredictedChange, predicted

POINTS: Final = 0.05
"""Of a share."""

FACTOR: Final = 1.5
"""Of rates."""

MOST_GROUPS: Final = 12
"""Of rates, that have a row each where they aren't kinds."""


class SensitivityRow(NamedTuple):
    """A row of the table.

    Attributes:
        change: as it would be typed.
        part_of: the change over all windows that it is a part of, of whose curvature it is given
            its share, as uncertain as it is large; None where it has trainings of its own.
        windows: how many windows that change has.
        refusal: why there is no such change; None where there is.
    """

    change: str
    part_of: str | None = None
    windows: int = 1
    refusal: str | None = None


def rows(asking: Asking) -> list[SensitivityRow]:
    """The changes of the table, those of all windows before their parts."""
    return [_checked(asking, row) for row in (*_shares(asking.training), *_rates(asking.training))]


def questions(found: list[SensitivityRow]) -> int:
    """How many rows have trainings of their own; a factor and its inverse share them."""
    own = [row.change for row in found if row.refusal is None and row.part_of is None]
    return len(own) - sum("/=" in change for change in own)


def table(
    opened: OpenedAsking, found: list[SensitivityRow]
) -> list[tuple[SensitivityRow, PredictedChange | None]]:
    """What each change would do; None for one that can't be."""
    asking, told = opened.asking, []
    gradients = opened.gradients()
    for row in found:
        if row.refusal is not None:
            told.append((row, None))
            continue
        delta = asking.moved(asking.point(parsed([row.change])))
        if row.part_of is None:
            told.append((row, opened.prediction(delta, row.change)))
            continue
        whole = asking.moved(asking.point(parsed([row.part_of])))
        slopes, of_whole = (
            [float(each @ at.astype(np.float64)) for each in gradients] for at in (delta, whole)
        )
        bends = _parts(opened.bends(whole, of_whole, row.part_of), row.windows)
        told.append((row, predicted(slopes, bends)))
    return told


def _parts(bends: list[Bend | None], windows: int) -> list[Bend | None]:
    """Of a change in one of so many windows: a part of the curvature, and as much left open."""
    return [
        each and Bend(each.second / windows, (abs(each.second) / 2 + abs(each.rest)) / windows)
        for each in bends
    ]


def _shares(training: InnerTraining) -> Iterator[SensitivityRow]:
    tuned: Any = {each.key: each for each in training.tunables}.get(MIXTURE)
    if tuned is None:
        return
    for name in training.corpus.names:
        whole = f"{MIXTURE}.{quoted(name)}+={POINTS:g}"
        yield SensitivityRow(whole)
        if tuned.windows > 1:
            for window in range(1, tuned.windows + 1):
                change = f"{MIXTURE}.{quoted(name)}[{window}]+={POINTS:g}"
                yield SensitivityRow(change, whole, tuned.windows)


def _rates(training: InnerTraining) -> Iterator[SensitivityRow]:
    tuned: Any = {each.key: each for each in training.tunables}.get(RATES)
    if tuned is None or not isinstance(tuned.cells, Groups):
        return
    for name in (ALL, *_groups(tuned.cells)):
        for operator in ("*=", "/="):
            yield SensitivityRow(f"{RATES}.{quoted(name)}{operator}{FACTOR:g}")


def _groups(cells: Groups) -> tuple[str, ...]:
    """Kinds that rates are of, else the groups as they are, if they are few."""
    pure = all(len({kind_of(name) for name in own}) == 1 for own in cells.members.values())
    if pure:
        every = {kind_of(name) for own in cells.members.values() for name in own}
        found = tuple(kind for kind in KINDS if kind in every)
    else:
        found = cells.labels if len(cells.labels) <= MOST_GROUPS else ()
    return found if len(found) > 1 else ()


def _checked(asking: Asking, row: SensitivityRow) -> SensitivityRow:
    try:
        if row.part_of is not None:
            asking.point(parsed([row.part_of]))
        asking.point(parsed([row.change]))
    except RecipeError as error:
        return row._replace(refusal=error.faults[0].problem)
    return row
