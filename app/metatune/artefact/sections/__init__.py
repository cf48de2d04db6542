"""What an artefact may hold of each tuned quantity, a file each.

A new one is a file here, a row of `SECTIONS` and a field of `Artefact`.
"""

from typing import Final

from metatune.artefact.sections.averaging import AVERAGING
from metatune.artefact.sections.initialisation import INITIALISATION
from metatune.artefact.sections.learned_update import LEARNED_UPDATE
from metatune.artefact.sections.learning_rates import LEARNING_RATES
from metatune.artefact.sections.loss_terms import LOSS_TERMS
from metatune.artefact.sections.loss_weights import LOSS_WEIGHTS
from metatune.artefact.sections.mixture import MIXTURE
from metatune.artefact.sections.optimizer import OPTIMIZER
from metatune.artefact.sections.rater import RATER
from metatune.artefact.sections.section import Section

__all__ = ["AS_ASKED", "AS_SAID", "AS_WRITTEN", "BEFORE_RESULT", "SECTIONS"]

SECTIONS: Final = {
    section.key: section
    for section in (
        LEARNING_RATES,
        MIXTURE,
        LOSS_WEIGHTS,
        RATER,
        OPTIMIZER,
        LOSS_TERMS,
        INITIALISATION,
        LEARNED_UPDATE,
        AVERAGING,
    )
}
"""By key, in the order in which a README speaks of them."""


def _first(*keys: str) -> tuple[Section, ...]:
    """These first, then the others."""
    rest = (key for key in SECTIONS if key not in keys)
    return tuple(SECTIONS[key] for key in (*keys, *rest))


BEFORE_RESULT: Final = ("learning_rates", "mixture", "loss_weights", "optimizer", "rater")
"""Those that stand before the result in a tuned.json."""

# Orders that files have had since version 1: what is new needs no place here.
AS_WRITTEN: Final = _first(*BEFORE_RESULT, "loss_terms", "learned_update")
"""In the order of a tuned.json."""

AS_ASKED: Final = _first("learning_rates", "mixture", "loss_weights", "learned_update")
"""In the order in which an export refuses them."""

AS_SAID: Final = _first(
    "learning_rates", "learned_update", "mixture", "loss_weights", "initialisation"
)
"""In the order in which the README of an export speaks of them."""
