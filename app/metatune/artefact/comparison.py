"""Compares an artefact with the model, the tokenizer and the data that it is to be used for."""

from collections.abc import Collection
from typing import NamedTuple

from metatune.artefact.format import Artefact, LossWeights, Mixture
from metatune.recipe.faults import nearest


class Counterpart(NamedTuple):
    """What an artefact is compared with.

    Attributes:
        source: the path that it was read from.
        parameters: checkpoint names.
        tokenizer_sha256: None where it has no tokenizer.
        domains: names; None where it has no data.
    """

    source: str
    parameters: tuple[str, ...]
    tokenizer_sha256: str | None
    domains: tuple[str, ...] | None


def differences(artefact: Artefact, other: Counterpart) -> list[str]:
    """What doesn't match, a line each with nearest names; empty if everything does."""
    curves = tuple(artefact.learning_rates.parameters)
    lines = one_sided("parameters", curves, other.parameters, other.source)
    tokenizer = artefact.provenance.get("tokenizer_sha256")
    if tokenizer and other.tokenizer_sha256 and tokenizer != other.tokenizer_sha256:
        lines.append(
            f"another tokenizer: the artefact's has the hash {tokenizer}, that of {other.source} "
            f"{other.tokenizer_sha256}"
        )
    if other.domains is not None:
        for schedule in (artefact.mixture, artefact.loss_weights):
            if isinstance(schedule, Mixture | LossWeights):
                lines += one_sided("domains", schedule.domains, other.domains, other.source)
                break
    return lines


def one_sided(what: str, ours: Collection[str], theirs: Collection[str], source: str) -> list[str]:
    """The names that only one side has, under a head for each side."""
    lines = []
    for head, names, others in (
        (f"{what} of the artefact that {source} doesn't have", ours, theirs),
        (f"{what} of {source} that the artefact doesn't have", theirs, ours),
    ):
        known = set(others)
        alone = [name for name in names if name not in known]
        if alone:
            lines.append(f"{len(alone)} {head}:")
        for name in alone:
            near = nearest(name, others)
            lines.append(f"  {name}" + (f" (nearest: {near})" if near else ""))
    return lines
