"""Fewer groups of parameters: those whose curves of the learning rate are nearest become one.

Optimizers that treat the parameters of a group in one kernel are slow with many small groups.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metatune.artefact.errors import ArtefactError
from metatune.artefact.format import Artefact
from metatune.artefact.horizon import base_rates
from metatune.artefact.sections.rates import LearningRates, Multipliers
from metatune.recipe.faults import Fault

FLOOR = 1e-12
"""Of a curve's largest rate: rates below count as this in distances, which are in logarithms."""


class _Cluster(NamedTuple):
    """Parameters that share a curve and their weight decay."""

    names: tuple[str, ...]
    kind: tuple[object, ...]
    weight: float
    logs: np.ndarray


def merged(
    artefact: Artefact, groups: int, sizes: Mapping[str, int] | None = None
) -> tuple[Artefact, str]:
    """The artefact with at most `groups` groups of parameters, and what that does to their rates.

    Two groups become one where that adds least to Σ size (log r - log r̂)², over parameters and
    knots (Ward's method); it has the geometric mean of their rates, weighted by size. Parameters
    of different weight decay stay apart.

    Args:
        artefact: as it was tuned.
        groups: at most; 1 or above.
        sizes: elements of each parameter, by checkpoint name; all alike where they aren't given.

    Raises:
        ArtefactError: fewer groups than there are weight decays, or rates within parameters.
    """
    rates = artefact.learning_rates
    if rates.elements is not None:
        problem = "rates were tuned within parameters, each of which is a group of its own"
        raise ArtefactError("export", [Fault("groups", groups, problem, "leave it out")])
    clusters = _distinct(artefact, sizes or {})
    before = len(clusters)
    if groups < len(kinds := {cluster.kind for cluster in clusters}):
        problem = f"parameters have {len(kinds)} weight decays, each of which is a group at least"
        raise ArtefactError("export", [Fault("groups", groups, problem, "give more")])
    if before <= groups:
        return artefact, f"{before} groups of parameters: no more than the {groups} asked for"
    clusters = _joined(clusters, groups)
    changed, off = _with_means(artefact, clusters)
    weighted = "weighted by size" if sizes else "each parameter alike"
    return changed, (
        f"fitted: {before} groups of parameters merged into {len(clusters)}, with the geometric "
        f"means of their rates, {weighted}: a rate is off by up to {100 * off:.3g} %"
    )


def together(artefact: Artefact, joined: Sequence[Sequence[str]]) -> tuple[Artefact, float]:
    """The artefact with one curve for all parameters of each of `joined`, their geometric mean.

    Args:
        artefact: as it was tuned.
        joined: parameters of one weight decay, by checkpoint name.

    Returns:
        That, and how far a rate is off, relative to itself, at most.
    """
    taken = {name for names in joined for name in names}
    rest = (
        one._replace(names=tuple(name for name in one.names if name not in taken))
        for one in _distinct(artefact, {})
    )
    curves = artefact.learning_rates.parameters
    means = []
    for names in joined:
        values = np.stack([curves[name] for name in names])
        with np.errstate(divide="ignore"):  # a rate of 0 makes a mean of 0
            means.append(_Cluster(tuple(names), (), 1.0, np.log(values).mean(axis=0)))
    return _with_means(artefact, [*(one for one in rest if one.names), *means])


def _with_means(artefact: Artefact, clusters: list[_Cluster]) -> tuple[Artefact, float]:
    """The artefact with the curves of `clusters`, and how far a rate is off, at most."""
    rates = artefact.learning_rates
    of = {name: one for one in clusters for name in one.names}
    alike = {id(one): _alike(rates, one) for one in clusters}
    curves = {
        name: own if alike[id(of[name])] else np.exp(of[name].logs)
        for name, own in rates.parameters.items()
    }
    off = max(
        float(np.abs(curves[name] / own - 1)[own > 0].max(initial=0.0))
        for name, own in rates.parameters.items()
    )
    changed = dataclasses.replace(
        rates, parameters=curves, multipliers=_multipliers(artefact, clusters, curves)
    )
    return dataclasses.replace(artefact, learning_rates=changed), off


def _distinct(artefact: Artefact, sizes: Mapping[str, int]) -> list[_Cluster]:
    """The groups as they are: equal curves, weight decays, and optimizers."""
    decayed, schedules = set(artefact.optimizer.decayed), artefact.optimizer.schedules
    tuned = (schedules.weight_decay if schedules else None) or {}
    found: dict[tuple[object, ...], list[str]] = {}
    for name, curve in artefact.learning_rates.parameters.items():
        own = tuple(np.asarray(tuned.get(name, ())).tolist())
        kind = (name in decayed, own, artefact.optimizer.place(name))
        found.setdefault((*curve.tolist(), kind), []).append(name)
    clusters = []
    for (*curve, kind), names in found.items():
        values = np.asarray(curve, np.float64)
        logs = np.log(np.maximum(values, FLOOR * max(values.max(), FLOOR)))
        weight = float(sum(sizes.get(name, 1) for name in names)) or FLOOR
        clusters.append(_Cluster(tuple(names), (kind,), weight, logs))
    return clusters


def _alike(rates: LearningRates, cluster: _Cluster) -> bool:
    """Whether the curves of a cluster are one, which keeps its digits."""
    curves = [rates.parameters[name] for name in cluster.names]
    return all(np.array_equal(curve, curves[0]) for curve in curves)


def _joined(clusters: list[_Cluster], count: int) -> list[_Cluster]:
    """The nearest two as one, again and again until `count` are left."""
    held: dict[int, _Cluster] = dict(enumerate(clusters))
    logs = np.stack([one.logs for one in clusters])
    weights = np.array([one.weight for one in clusters])
    numbers = {kind: i for i, kind in enumerate(dict.fromkeys(one.kind for one in clusters))}
    kinds = np.array([numbers[one.kind] for one in clusters])

    def costs(place: int) -> np.ndarray:
        """What joining the cluster at a place with each other adds to the sum."""
        apart = ((logs - logs[place]) ** 2).sum(axis=1)
        found = apart * weights * weights[place] / (weights + weights[place])
        found[kinds != kinds[place]] = np.inf
        found[[at for at in range(len(found)) if at == place or at not in held]] = np.inf
        return found

    table = np.stack([costs(place) for place in range(len(clusters))])
    while len(held) > count:
        first, second = sorted(map(int, np.unravel_index(np.argmin(table), table.shape)))
        a, b = held[first], held.pop(second)
        weight = a.weight + b.weight
        mean = (a.weight * a.logs + b.weight * b.logs) / weight
        held[first] = _Cluster((*a.names, *b.names), a.kind, weight, mean)
        logs[first], weights[first] = mean, weight
        table[second], table[:, second] = np.inf, np.inf
        table[first] = table[:, first] = costs(first)
    return list(held.values())


def _multipliers(
    artefact: Artefact, clusters: list[_Cluster], curves: Mapping[str, np.ndarray]
) -> Multipliers | None:
    """The factors of the base schedule that give the merged curves, at the knots of the rates."""
    rates: LearningRates = artefact.learning_rates
    if rates.multipliers is None:
        return None
    several = len(artefact.optimizer.kinds) > 1
    factors, members = {}, {}
    for cluster in clusters:
        first = cluster.names[0]
        base = base_rates(artefact, first if several else None)
        label = first if len(cluster.names) == 1 else f"{first} and {len(cluster.names) - 1} more"
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(base > 0, curves[first] / base, 1.0)
        factors[label] = tuple(factor.tolist())
        members[label] = cluster.names
    return Multipliers(rates.knots, factors, members, rates.interpolation)
