"""What Grain makes of weights: whole numbers, of which the smallest is 100."""

from collections.abc import Mapping
from typing import Final

INTEGER_SCALE: Final = 100
"""Grain scales the smallest weight to this and truncates the others to whole numbers."""


def truncation(shares: Mapping[str, float]) -> float:
    """How far Grain's whole numbers take a share from what it should be, at most."""
    kept = [share for share in shares.values() if share > 0]
    whole = [int(INTEGER_SCALE * share / min(kept)) for share in kept]
    return max(abs(w / sum(whole) - share) for w, share in zip(whole, kept, strict=True))
