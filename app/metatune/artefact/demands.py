"""What a carried artefact asks of its trainer beyond schedules, as it stands in its provenance."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from metatune.artefact.format import Artefact

FITTED: Final = "fitted"
"""In the provenance of an artefact that was carried to other sizes: what was done."""


class Demands(NamedTuple):
    """What the trainer of a carried artefact must do.

    Attributes:
        rule: that it was carried by.
        initial_scale: what each parameter's fresh numbers are multiplied by, by checkpoint name,
            against those that its config asks for; without those that stay.
        eps: what Adam's ε is multiplied by for a parameter, by checkpoint name, and what is added
            inside of the root by the square of that; empty where all have one.
        settings: of the optimizer, those that the rule changed, by name.
        residual: multiplier of what each branch adds to the residual stream, where that could not
            be made part of the weights.
        logits: likewise, of the logits.
        attention: likewise, of the attention scores.
    """

    rule: str
    initial_scale: Mapping[str, float] = {}
    eps: Mapping[str, float] = {}
    settings: Mapping[str, float] = {}
    residual: float = 1.0
    logits: float = 1.0
    attention: float = 1.0


class Destination(NamedTuple):
    """The training that an artefact was carried to.

    Attributes:
        source: what it is called.
        model_config: fields of its config.json.
        steps: its updates; None where that wasn't said.
    """

    source: str
    model_config: Mapping[str, Any]
    steps: int | None


def demands(artefact: Artefact) -> Demands | None:
    """Those of a carried artefact; None of one as it was tuned."""
    fitted = artefact.provenance.get(FITTED)
    return None if fitted is None else Demands(**fitted["demands"])


def destination(artefact: Artefact) -> Destination | None:
    """Where a carried artefact was carried to; None of one as it was tuned."""
    fitted = artefact.provenance.get(FITTED)
    return None if fitted is None else Destination(**fitted["to"])


def recorded(given: Demands, to: Destination, said: Sequence[str]) -> dict[str, Any]:
    """What stands in the provenance; plain JSON values."""
    return {"demands": given._asdict(), "to": to._asdict(), "said": list(said)}


def fitted_lines(artefact: Artefact) -> list[str]:
    """What was done to an artefact that was carried to other sizes, a line each."""
    return list(artefact.provenance.get(FITTED, {}).get("said", ()))
