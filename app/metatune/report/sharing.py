"""How learning rates came to be shared, in words."""

from collections.abc import Mapping, Sequence
from typing import Any


def headline(sharing: Mapping[str, Any]) -> str:
    """How many rates there are, and how many changes led to them.

    Args:
        sharing: of an artefact's result.
    """
    kinds = [change["change"] for change in sharing["changes"]]
    return (
        f"shared learning rates: {sharing['blocks']} for {sharing['cells']} groups and windows, "
        f"after {kinds.count('split')} splits and {kinds.count('merge')} merges"
    )


def sentences(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each change of what shares a learning rate."""
    return [_sentence(change) for change in changes]


def _sentence(change: Mapping[str, Any]) -> str:
    # Of the outer step from a point; what it leads to is the next.
    after = f"from point {change['step'] + 1} on"
    if change["change"] == "split":
        one, other = change["into"]
        return f"{after}: split {one} | {other} (p = {change['p']:.2g})"
    apart = f"{abs(change['difference']):.3f} ± {change['spread']:.3f}"
    return f"{after}: merged {change['into'][0]} (log rates apart by {apart})"
