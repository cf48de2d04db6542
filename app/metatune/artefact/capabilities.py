"""What a trainer may be able to express of an artefact, and what an artefact asks for."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from metatune.artefact.document import held
from metatune.artefact.format import Artefact
from metatune.artefact.sections import AS_ASKED, SECTIONS

Support = Literal["exact", "quantised", "fitted", "no"]
"""How well a target takes a schedule: to the last digit, in steps of its own, nearly, or not."""

Capabilities = Mapping[str, Support]
"""What a target can express, of every one of `HEADS`."""

HEADS: Final = {
    name: head for each in SECTIONS.values() for name, head in each.capabilities.items()
}
"""What a target may be able to do, in the head of a column."""


def able(more: Capabilities | None = None, **supports: Support) -> Capabilities:
    """The capabilities of a target: `more` of another, and its own; none of what isn't named.

    Raises:
        ValueError: a name that no section has.
    """
    named: dict[str, Support] = {**(more or {}), **supports}
    if unknown := sorted(set(named) - set(HEADS)):
        raise ValueError(f"no section of an artefact needs {', '.join(unknown)}")
    full: dict[str, Support] = {name: named.get(name, "no") for name in HEADS}
    return MappingProxyType(full)


DOMAINS: Final = able(
    rates="exact",
    curves="exact",
    mixture="exact",
    moving_mixture="exact",
    loss_weights="exact",
    moving_loss_weights="exact",
)
WHOLE_PARAMETERS: Final = able(
    DOMAINS,
    class_weights="exact",
    optimizer="exact",
    clip_norm="exact",
    loss_terms="exact",
    averaging="exact",
)
SCHEDULES: Final = able(WHOLE_PARAMETERS, elements="exact", initialisation="exact")
EVERYTHING: Final = able(SCHEDULES, learned_update="exact")


def asked(artefact: Artefact) -> dict[str, str]:
    """What was tuned in `artefact` and must be expressed: a line for each capability it needs."""
    needs: dict[str, str] = {}
    for section, value in held(artefact, AS_ASKED):
        needs |= section.needs(value, artefact.horizon_steps)
    return needs


def dropped(artefact: Artefact, capabilities: Capabilities) -> dict[str, str]:
    """What `artefact` asks for and a target of such `capabilities` can't express."""
    return {name: what for name, what in asked(artefact).items() if capabilities[name] == "no"}
