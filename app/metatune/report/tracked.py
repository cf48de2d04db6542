"""What TensorBoard shows of a search: its tags, its charts of several curves, its pictures."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from metatune.artefact import Artefact
from metatune.artefact.document import curves as curves_of
from metatune.artefact.sections import SECTIONS
from metatune.report.colours import kind_of_curve
from metatune.report.sampling import evenly, log_floor
from metatune.report.tensorboard import EventWriter

SCHEDULE_POINTS: Final = 1000
"""Of a tuned schedule of more inner steps: as many as TensorBoard keeps of a scalar."""

WINDOW_MEAN: Final = "window_mean"
"""What the names of all means over windows begin with: TensorBoard's pages of scalars fold them
into one group, and its page of custom scalars shows them together."""

SCHEDULE: Final = "schedule"
"""What the names of tuned schedules begin with."""

CHART_CURVES: Final = 12
"""Curves of a section that one chart shows; of more there is a chart for each kind."""

SIZES: Final = ("objective_sizes", "held_out_sizes")
"""What a line has of each size of `outer.robust`."""

SEARCH: Final = {
    "loss": ["objective", "held_out", "best_held_out"],
    "hypergradient": ["hypergradient_norm/.*", "standard_error/.*"],
    "hypergradient by window": ["window_norm/.*"],
    "signal to noise": ["signal/.*/median"],
    "growth of the derivative": ["adjoint/.*", "tangents/.*"],
}
"""Charts of the search on the page of custom scalars, with the tags that each shows."""

BY_SIZE: Final = {"loss by size": [f"{name}/.*" for name in SIZES]}
"""One more, of a search over several sizes."""

Curves = Mapping[str, Mapping[str, np.ndarray]]
"""Values over the inner steps by section, then by what they are of."""

Windows = Mapping[str, Mapping[str, int]]
"""Into how many stretches of equal length the inner training is cut, by section, then by the word
that a curve's name begins with or by the section itself; one for the whole training where there is
none."""


def layout(
    curves: Curves, windows: Windows, *, by_size: bool = False
) -> dict[str, dict[str, list[str]]]:
    """The page of custom scalars: charts, and expressions of the tags in each, by category.

    Of a section with many curves there is a chart for each kind of what they are of.

    Args:
        curves: of all sections, at any point of the search.
        windows: of them.
        by_size: whether the search is over several sizes.
    """
    over_points, over_steps = {}, {}
    for key, columns in curves.items():
        plotted = SECTIONS[key].plotted
        title = plotted.title if plotted else key
        counts = [_count(windows, key, name) for name in columns]
        over_points |= _charts(f"{title}, means over windows", WINDOW_MEAN, key, columns, counts)
        over_steps |= _charts(title, SCHEDULE, key, columns, [1] * len(columns))
    return {
        "search": SEARCH | (BY_SIZE if by_size else {}),
        "over points of the search": over_points,
        "as tuned, over inner steps": over_steps,
    }


def _charts(
    title: str, prefix: str, key: str, names: Mapping[str, np.ndarray], counts: Sequence[int]
) -> dict[str, list[str]]:
    """The charts of a section."""
    kinds = dict.fromkeys(kind_of_curve(name) for name in names)
    head = re.escape(f"{prefix}/{_tag(key)}/")
    if sum(counts) <= CHART_CURVES or len(kinds) == 1:
        return {title: [f"{head}.*"]}
    return {f"{title}: {kind}": [f"{head}{re.escape(kind)}(/.*)?$"] for kind in kinds}


def write_point(
    writer: EventWriter,
    *,
    step: int,
    scalars: Mapping[str, float],
    curves: Curves,
    windows: Windows,
) -> None:
    """Writes all that a point of a search has to show.

    Args:
        writer: where to.
        step: which point: how many outer steps have led to it.
        scalars: such as `objective`, `held_out`, `hypergradient_norm/learning_rates`.
        curves: of what is tuned.
        windows: of the curves; the mean over each is a scalar, so that it shows over outer steps.
    """
    for tag, value in scalars.items():
        writer.scalar(tag, value, step)
    for key, columns in curves.items():
        for name, tag in _tags(WINDOW_MEAN, key, columns):
            means = _means(columns[name], _count(windows, key, name))
            for number, mean in enumerate(means, 1):
                writer.scalar(f"{tag}/{number}", mean, step)
    write_pictures(writer, step, f"point {step}", curves)


def write_pictures(writer: EventWriter, step: int, where: str, curves: Curves) -> None:
    """Draws schedules; arguments as of `write_point`, and `where` in the search, for the titles."""
    # Here, as trainings write scalars alone.
    from metatune.report.pictures.thumbnails import heat_map, line_plot, stacked_area

    for key, columns in curves.items():
        if (plotted := SECTIONS[key].plotted) is None or not columns:
            continue
        title = f"{plotted.title}, {where}"
        if plotted.scale == "share":
            writer.image(f"{key}/shares", stacked_area(columns, title, plotted.axis), step)
            continue
        log = plotted.scale == "log"
        if log:
            logs = np.log10(log_floor(np.stack(list(columns.values()))))
            picture = heat_map(logs, list(columns), title, "log10(rate)")
            writer.image(f"{key}/heat_map", picture, step)
        axis = f"{plotted.axis} (log scale)" if log else plotted.axis
        writer.image(f"{key}/curves", line_plot(columns, title, axis, log=log), step)


def write_schedules(writer: EventWriter, artefact: Artefact) -> None:
    """Writes the tuned schedules as scalars over *inner* steps, at the end of a run.

    Args:
        writer: where to.
        artefact: what was tuned; the curves of its sections become e.g.
            `schedule/learning_rate/KIND/GROUP`, `schedule/mixture/DOMAIN`,
            `schedule/loss_weight/DOMAIN` (or CLASS), `schedule/optimizer/NAME`.
    """
    steps = evenly(artefact.horizon_steps, SCHEDULE_POINTS)
    for key, columns in curves_of(artefact, steps).items():
        for name, tag in _tags(SCHEDULE, key, columns):
            for step, value in zip(steps, columns[name], strict=True):
                writer.scalar(tag, value, step)


def _tags(prefix: str, key: str, names: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """Each curve of a section with its tag, in which its kind stands: charts ask for it."""
    for name in names:
        kind = kind_of_curve(name)
        yield name, "/".join([prefix, _tag(key), *([kind] if kind != name else []), name])


def _tag(key: str) -> str:
    """What the names of a section's curves begin with."""
    return plotted.tag if (plotted := SECTIONS[key].plotted) else key


def _count(windows: Windows, key: str, name: str) -> int:
    """Stretches that a curve of a section is told in."""
    known = windows.get(key, {})
    return known.get(name.partition(" ")[0], known.get(key, 1))


def _means(curve: np.ndarray, windows: int) -> np.ndarray:
    """The mean of a curve over each window."""
    window = np.arange(len(curve)) * windows // len(curve)
    return np.bincount(window, curve) / np.bincount(window)
