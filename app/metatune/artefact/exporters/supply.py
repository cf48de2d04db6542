"""Whether the data of a mixture last for the training to come, and what its shares count."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metatune.artefact.exporters.stages import averaged

if TYPE_CHECKING:  # which uses this
    from metatune.artefact.exporters.base import Production

TOKENS, DOCUMENTS = "tokens", "documents"


def needed(production: "Production", shares: Mapping[str, float]) -> dict[str, float]:
    """Tokens of each domain that the training reads.

    Args:
        production: the training.
        shares: mean over training of each domain's share.
    """
    total = production.steps * production.tokens_per_step
    return {name: share * total for name, share in shares.items()}


def supply(production: "Production", shares: Mapping[str, float], at_end: str) -> list[str]:
    """What a README says of domains that don't last, a line each.

    Args:
        production: the training.
        shares: mean over training of each domain's share.
        at_end: what the trainer does where a domain is exhausted.
    """
    held, lines = _held(production), []
    for name, tokens in needed(production, shares).items():
        have = held.get(name, {}).get(TOKENS)
        if have is None:
            lines.append(
                f"{name}: give it {tokens:,.0f} tokens or more, as the training reads; {at_end}"
            )
        elif tokens > have:
            lines.append(
                f"{name}: the training reads {tokens:,.0f} tokens, {tokens / have:.3g} times those "
                f"of the tuned data ({have:,}): give it more; {at_end}"
            )
    return lines


def supply_of_mixture(production: "Production", at_end: str) -> list[str]:
    """`supply` of the tuned mixture; nothing where none was tuned."""
    mixture = production.artefact.mixture
    if mixture is None:
        return []
    return supply(production, averaged(mixture, production.steps), at_end)


def documents(
    production: "Production", shares: Mapping[str, float]
) -> tuple[dict[str, float], str]:
    """Shares of documents that give `shares` of tokens, and how exactly.

    A document of a domain is taken to be as long as those of the tuned data are on average.

    Returns:
        Shares that sum to one, and a line for a README.
    """
    held = _held(production)
    if not all(held.get(name, {}).get(DOCUMENTS) and held[name].get(TOKENS) for name in shares):
        return dict(shares), (
            "shares count documents there, the tuned ones tokens, and the artefact doesn't say how "
            "long documents are: divide each by the mean tokens of its documents, by hand"
        )
    lengths = {name: held[name][TOKENS] / held[name][DOCUMENTS] for name in shares}
    counts = {name: share / lengths[name] for name, share in shares.items()}
    total = sum(counts.values())
    shown = ", ".join(f"{name} {length:,.0f}" for name, length in lengths.items())
    return {name: count / total for name, count in counts.items()}, (
        "shares count documents there, the tuned ones tokens: they are converted by the mean "
        f"tokens of the tuned data's documents ({shown}), right for documents as long"
    )


def _held(production: "Production") -> Mapping[str, Mapping[str, int]]:
    return production.artefact.provenance.get("domains") or {}
