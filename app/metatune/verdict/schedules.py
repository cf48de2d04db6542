"""The schedules of a point: the recipe's own artefact, with the point's changes in it."""

import re
from dataclasses import replace
from typing import Final

import jax
import numpy as np

from metatune.artefact import Artefact, LearningRates, Mixture
from metatune.artefact.curves import fractions, where_changed
from metatune.artefact.kinds import kind_of
from metatune.fit.making import sections_of
from metatune.inner import InnerTraining
from metatune.inner.schedules import base_rates
from metatune.recipe import schema
from metatune.verdict.points import Coordinates, Plain, Point

LAYER: Final = re.compile(r"\.(\d+)\.")

FINAL: Final = 0.0
"""Where a decay that is searched for ends, of the peak."""


def artefact_of(training: InnerTraining, default: Artefact, point: Point) -> Artefact:
    """What a training follows at a point.

    Args:
        training: the recipe's.
        default: the artefact of the recipe as it is.
        point: the point.
    """
    if isinstance(point, Coordinates):
        return replace(default, **sections_of(training, eta_of(training, point)))
    changed = replace(default, learning_rates=rates(training, default, point))
    if not point.shares:
        return changed
    row = np.asarray([point.shares], np.float64)
    domains = tuple(training.corpus.names)
    return replace(changed, mixture=Mixture((0.0,), "constant", domains, row))


def eta_of(training: InnerTraining, point: Coordinates) -> dict[str, jax.Array]:
    """Meta-parameters so far from the recipe's own."""
    leaves, tree = jax.tree.flatten(training.initial_eta())
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = np.split(np.asarray(point.offsets, np.float64), ends[:-1])
    moved = [
        leaf + np.asarray(part.reshape(leaf.shape), leaf.dtype)
        for leaf, part in zip(leaves, parts, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def coordinates(training: InnerTraining) -> int:
    """How many meta-parameters a training has."""
    return sum(leaf.size for leaf in jax.tree.leaves(training.initial_eta()))


def rates(training: InnerTraining, default: Artefact, point: Plain) -> LearningRates:
    """The learning rates of a plain point, by checkpoint name."""
    inner = training.recipe.inner
    # Prodigy's own rate is a factor, one by default.
    names = tuple(default.learning_rates.parameters)
    own = schedule(inner.optimizer.schedule, point)
    peaks = dict.fromkeys(names, 1.0) if point.optimizer == "prodigy" else training.peaks()
    curves = {peak: base_rates(own, peak * point.rate, inner.steps) for peak in set(peaks.values())}
    kept = where_changed(np.stack(list(curves.values()), axis=1))
    factors = below(names, point.layer_decay)
    return LearningRates(
        fractions(kept.tolist(), inner.steps),
        "constant",
        {name: factors[name] * curves[peaks[name]][kept] for name in names},
    )


def schedule(own: schema.ScheduleSpec, point: Plain) -> schema.ScheduleSpec:
    """The base schedule of a plain point.

    Args:
        own: the recipe's.
        point: the point.
    """
    warmup = own.warmup if point.warmup is None else point.warmup
    if point.schedule == "recipe":
        return replace(own, warmup=warmup)
    if point.schedule == "constant":
        return schema.ConstantSpec(warmup=warmup)
    if point.schedule == "cosine":
        return schema.CosineSpec(warmup=warmup)
    if point.decay is None:
        return schema.WarmupStableDecaySpec(warmup=warmup)
    return schema.WarmupStableDecaySpec(warmup=warmup, decay=point.decay, final=FINAL)


def below(names: tuple[str, ...], factor: float) -> dict[str, float]:
    """The factor of each parameter's rate: one at the output, less by `factor` a layer downwards.

    Embeddings lie below the first layer, heads and the last norm above the last one.
    """
    found = {name: LAYER.search(name) for name in names}
    layers = 1 + max((int(match[1]) for match in found.values() if match), default=-1)

    def height(name: str) -> int:
        if (match := found[name]) is not None:
            return 1 + int(match[1])
        return 0 if kind_of(name) == "embedding" else layers + 1

    return {name: factor ** (layers + 1 - height(name)) for name in names}
