"""Loss weights of the domains, by window.

Their mean over the domains is one, so that they can't stand in for a learning rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metatune.artefact.sections import loss_weights as sections
from metatune.hypergrad.shapes import Scalar, StepLike
from metatune.recipe import schema
from metatune.tunables import class_weights
from metatune.tunables.class_weights import TunableClassWeights
from metatune.tunables.hyper import Hyper, Setting, Tunable
from metatune.tunables.shapes import Slices
from metatune.tunables.simplex import logits_of, shares
from metatune.tunables.token_classes import TokenClasses
from metatune.tunables.used import Used
from metatune.tunables.windows import window_of


@dataclass(frozen=True)
class TunableLossWeights:
    """`w_t = K softmax(η[window of t])` over K domains.

    Attributes:
        start: weights that the search starts from, in the order of the domains, not normalised.
        windows: how many windows.
        steps: horizon of the inner training.
    """

    start: tuple[float, ...]
    windows: int
    steps: int
    key: str = "loss_weights"

    def initial(self) -> Float[Array, "{self.windows} {len(self.start)}"]:
        """Logits of the starting weights, [windows, domains]; zeros where all are equal."""
        return jnp.tile(logits_of(self.start), (self.windows, 1))

    def apply(
        self, eta: Float[Array, "{self.windows} {len(self.start)}"], step: StepLike, hyper: Hyper
    ) -> Hyper:
        """Sets the weights of this window."""
        logits = eta[window_of(step, self.windows, self.steps)]
        return hyper._replace(loss_weights=len(self.start) * shares(logits))

    def penalty(self, eta: Float[Array, "{self.windows} {len(self.start)}"]) -> Scalar:
        """None."""
        return jnp.zeros((), eta.dtype)


def build(
    spec: schema.LossWeightsSpec, setting: Setting
) -> TunableLossWeights | TunableClassWeights | None:
    """The tunable of a recipe's `tune.loss_weights`; None for tokens before the data is read.

    Raises:
        RecipeError: as `class_weights.build`.
    """
    if spec.per != "domain":
        return class_weights.build(spec, setting)
    given = spec.initial or {}
    start = tuple(given.get(domain, 1.0) for domain in setting.domains)
    return TunableLossWeights(start, spec.windows, setting.steps)


def section(
    tunables: Sequence[Tunable], eta: Slices, used: Used
) -> sections.LossWeights | sections.ClassWeights | None:
    """The weights that every step used, if they were tuned."""
    tuned = next(
        (t for t in tunables if isinstance(t, TunableLossWeights | TunableClassWeights)), None
    )
    if tuned is None:
        return None
    rows = used.trajectory.class_weights
    if not isinstance(tuned, TunableClassWeights) or rows is None:
        rows = used.trajectory.loss_weights
        kept, schedule = used.scheduled(rows.T)
        return sections.LossWeights(domains=used.domains, weights=rows[kept], **schedule)
    shares = np.asarray(tuned.shares) / np.sum(tuned.shares)
    rows = rows[:, list(tuned.occurring)]
    kept, schedule = used.scheduled(rows.T)
    return sections.ClassWeights(
        classes=tuned.names,
        shares=shares,
        weights=rows[kept] / (rows[kept] @ shares)[:, None],  # which float32 has rounded
        of=_classes_of(tuned.classes),
        **schedule,
    )


def _classes_of(
    classes: TokenClasses,
) -> sections.Positions | sections.Vocabulary | sections.Labels | None:
    if classes.table is None:
        return sections.Labels() if classes.per == "label" else None
    if classes.per == "frequency":
        return sections.Vocabulary(classes.table)
    starts = 1 + np.searchsorted(classes.table, np.arange(len(classes.names)))
    return sections.Positions(1 + len(classes.table), tuple(map(int, starts)))
