"""Whether there is text enough: how often a longer training reads each domain."""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from metatune.artefact import Artefact
from metatune.transfer.sizes import Side

MOST: Final = 4.0
"""Epochs up to which text that is read again is about as good as fresh text.

Source: Muennighoff et al., 2023, Scaling Data-Constrained Language Models, arXiv 2305.16264.
"""


def epochs(artefact: Artefact, target: Side, supply: Mapping[str, int]) -> dict[str, float]:
    """How often the target reads each domain at the tuned shares; empty where that isn't known.

    Args:
        artefact: whose mixture is carried over as it is.
        target: the training to come.
        supply: tokens of each domain.
    """
    if artefact.mixture is None or target.steps is None or target.tokens is None:
        return {}
    shares = artefact.mixture.over(range(target.steps), target.steps)
    return {
        name: float(np.mean(row)) * target.tokens / supply[name]
        for name, row in shares.items()
        if supply.get(name)
    }


def warnings(
    artefact: Artefact, target: Side, supply: Mapping[str, int] | None = None
) -> Iterator[str]:
    """A line of each domain that is read more often than is of use.

    Args:
        artefact: of the proxy.
        target: the training to come.
        supply: tokens of each domain; by default what the artefact says of its own data.
    """
    if supply is None:
        said = artefact.provenance.get("domains", {})
        supply = {name: its.get("tokens", 0) for name, its in said.items()}
    for name, times in epochs(artefact, target, supply).items():
        if times > MOST:
            yield (
                f"warning: the tuned shares read {name} {times:.1f} times over ({supply[name]:,} "
                f"tokens); beyond {MOST:g} epochs more of it is worth ever less: give it more text,"
                " or tune the mixture anew with this supply"
            )
