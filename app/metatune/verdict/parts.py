"""What of it: each tunable alone, each window or kind of parameter set back to the recipe's own."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from metatune.artefact import Artefact
from metatune.inner import InnerTraining
from metatune.verdict.statistics import PairedDifference, difference
from metatune.verdict.surgery import kinds, rates_back, shares_back, windows_of

LEVEL: Final = 0.05
"""Of the interval of each part; these are not allowed for each other: they are told, not chosen."""

RATES: Final = "learning_rates"
MIXTURE: Final = "mixture"


class SchedulePart(NamedTuple):
    """A variant of the tuned schedules, and what of their gain it lacks.

    Attributes:
        name: what it is.
        lost: its loss minus that of the tuned schedules.
        share: lost, of the gain; None where there is none.
    """

    name: str
    lost: PairedDifference
    share: float | None


def tuned_sections(training: InnerTraining) -> tuple[str, ...]:
    """The sections of an artefact that a recipe tunes, in its order."""
    found = [path.split(".")[1] for _, path, _ in training.recipe.tune.entries()]
    return tuple(dict.fromkeys(found))


def variants(training: InnerTraining, default: Artefact, tuned: Artefact) -> dict[str, Artefact]:
    """The tuned schedules with parts of them set back to the recipe's own, by what they are.

    Each tunable alone and, of three or more, all but each; then each window and each kind of
    parameter set back.

    Args:
        training: the recipe's.
        default: the recipe's own schedules.
        tuned: those that were tuned.
    """
    sections, found = tuned_sections(training), dict[str, Artefact]()
    if len(sections) > 1:
        for key in sections:
            found[f"{key} alone"] = replace(default, **{key: getattr(tuned, key)})
    if len(sections) > 2:
        for key in sections:
            found[f"without {key}"] = replace(tuned, **{key: getattr(default, key)})
    counts = {each.key: each.windows for each in training.tunables}
    back: dict[str, Callable[[np.ndarray], Artefact]] = {
        RATES: lambda where: rates_back(default, tuned, where[:, None]),
        MIXTURE: lambda where: shares_back(default, tuned, where),
    }
    for key, set_back in back.items():
        if key not in sections or (count := counts[key]) < 2:
            continue
        window = windows_of(tuned.horizon_steps, count)
        for at in range(count):
            found[f"{key}, window {at + 1} of {count} set back"] = set_back(window == at)
    multipliers = tuned.learning_rates.multipliers
    groups = kinds(tuned)
    if multipliers is not None and len(multipliers.groups) > 1 and len(groups) > 1:
        every = np.arange(len(tuned.learning_rates.parameters))
        for kind, columns in groups.items():
            where = np.isin(every, columns)[None, :]
            found[f"{RATES} of {kind} set back"] = rates_back(default, tuned, where)
    return found


def ablation(
    found: Mapping[str, Artefact],
    losses: Callable[[str, Artefact], list[float]],
    tuned: Artefact,
    default: Artefact,
) -> tuple[PairedDifference, list[SchedulePart]]:
    """Trains all variants, and tells what each lacks.

    Args:
        found: the variants.
        losses: of schedules by a name, over some seeds, always the same.
        tuned: those that were tuned.
        default: the recipe's own.

    Returns:
        The gain on these seeds, and the parts.
    """
    own = losses("tuned", tuned)
    gain = difference(losses("default", default), own, LEVEL)
    parts = []
    for name, each in found.items():
        lost = difference(losses(name, each), own, LEVEL)
        told = gain.mean > 0 and np.isfinite(lost.mean) and np.isfinite(gain.mean)
        parts.append(SchedulePart(name, lost, lost.mean / gain.mean if told else None))
    return gain, parts


def as_plain(gain: PairedDifference, parts: list[SchedulePart]) -> dict[str, Any]:
    """For the document."""
    return {
        "gain": gain._asdict(),
        "variants": [
            {"name": each.name, "lost": each.lost._asdict(), "share": each.share} for each in parts
        ],
    }
