"""Natural divisions of groups of parameters: by what they are for, by layer, then one by one."""

import re
from collections.abc import Hashable, Mapping, Sequence

from metatune.artefact.kinds import kind_of
from metatune.tunables.groups import Groups

LAYER = re.compile(r".*?\.(\d+)(?=\.)")


def divisions(groups: Groups, chosen: Sequence[int]) -> list[tuple[int, ...]]:
    """The natural ways to divide some groups in two.

    Groups of several kinds are divided into those of one kind and the others. Those of one kind in
    several layers are cut between layers; what is in none, such as a last norm, comes after them.
    Those of one layer are divided into one and the others.

    Args:
        groups: the partition of the parameters that they are of.
        chosen: their indices.

    Returns:
        The indices on one side of each division; none of a single group.
    """
    kinds = {at: _kinds(groups, at) for at in chosen}
    if len(set(kinds.values())) > 1:
        return _one_and_the_others(kinds)
    layers = {at: _layer(groups, at) for at in chosen}
    if (found := sorted(set(layers.values())))[1:]:
        return [tuple(at for at in chosen if layers[at] < cut) for cut in found[1:]]
    return _one_and_the_others({at: at for at in chosen})


def described(groups: Groups, chosen: Sequence[int]) -> str:
    """Some groups in a few words."""
    if len(chosen) == groups.size:
        return "all parameters"
    if len(chosen) == 1:
        return groups.labels[chosen[0]]
    inside = {kind for at in chosen for kind in _kinds(groups, at)}
    others = {kind for at in set(range(groups.size)) - set(chosen) for kind in _kinds(groups, at)}
    kinds = ", ".join(sorted(kind or "no kind" for kind in inside))
    if not inside & others:
        return kinds
    ends = groups.labels[chosen[0]], groups.labels[chosen[-1]]
    return f"{len(chosen)} of {kinds} ({' to '.join(ends)})"


def _one_and_the_others(values: Mapping[int, Hashable]) -> list[tuple[int, ...]]:
    """For each value those that have it; of two values for one, since the other is the rest."""
    distinct = list(dict.fromkeys(values.values()))
    if len(distinct) < 3:
        distinct = distinct[1:]
    return [tuple(at for at, value in values.items() if value == one) for one in distinct]


def _kinds(groups: Groups, at: int) -> frozenset[str | None]:
    return frozenset(kind_of(name) for name in groups.members[groups.labels[at]])


def _layer(groups: Groups, at: int) -> float:
    """The layer that all members of a group are in; infinite if there is no such."""
    found = {LAYER.match(name) for name in groups.members[groups.labels[at]]}
    layers = {float(match[1]) if match else float("inf") for match in found}
    return layers.pop() if len(layers) == 1 else float("inf")
