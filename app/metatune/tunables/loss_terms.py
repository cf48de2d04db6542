"""Coefficients of the terms of the training loss, by window.

Each is a tunable by itself, whose key is its name, and moves from what the recipe says. The weight
of the next token's term is the unit: a weight of the whole loss would be a learning rate by
another name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import jax.numpy as jnp
from jaxtyping import Array, Float

from metatune.artefact.sections import loss_terms as sections
from metatune.hypergrad.shapes import Scalar, StepLike
from metatune.recipe import schema
from metatune.recipe.schema.inner import BALANCE_TERM, MULTI_TOKEN_TERM
from metatune.tunables.hyper import Hyper, Setting, Tunable
from metatune.tunables.optimizer import multiplied, remembered
from metatune.tunables.shapes import Slices
from metatune.tunables.used import Used
from metatune.tunables.windows import window_of

FORMS: Final[Mapping[str, Callable[[float, Scalar], Scalar]]] = {
    "z_loss": multiplied,
    MULTI_TOKEN_TERM: multiplied,
    BALANCE_TERM: multiplied,
    "label_smoothing": remembered,  # a share between 0 and 1, as a decay is, by its odds
}


@dataclass(frozen=True)
class LossTerm:
    """A coefficient of the loss, `FORMS[key](start, η[window of t])`.

    Attributes:
        key: its name.
        start: what the recipe says.
        windows: how many windows.
        steps: horizon of the inner training.
    """

    key: str
    start: float
    windows: int
    steps: int

    def initial(self) -> Float[Array, "{self.windows}"]:
        """Zeros, [windows]."""
        return jnp.zeros(self.windows, jnp.float32)

    def apply(self, eta: Float[Array, "{self.windows}"], step: StepLike, hyper: Hyper) -> Hyper:
        """Sets this coefficient."""
        value = FORMS[self.key](self.start, eta[window_of(step, self.windows, self.steps)])
        return hyper._replace(loss_terms={**(hyper.loss_terms or {}), self.key: value})

    def penalty(self, eta: Float[Array, "{self.windows}"]) -> Scalar:
        """None."""
        return jnp.zeros((), eta.dtype)


def build(spec: schema.LossTermsSpec, setting: Setting) -> tuple[LossTerm, ...]:
    """The tunables of a recipe's `tune.loss_terms`; none before the loss is known."""
    loss = setting.loss
    if loss is None:
        return ()
    return tuple(
        LossTerm(key, loss.coefficients()[key], settings.windows, setting.steps)
        for key, _, settings in schema.TuneSpec(loss_terms=spec).entries()
    )


def section(tunables: Sequence[Tunable], eta: Slices, used: Used) -> sections.LossTerms | None:
    """What the loss had beside the next token's term, as every step used it."""
    values = used.trajectory.loss_terms
    if not values:
        return None
    kept, schedule = used.scheduled(list(values.values()))
    return sections.LossTerms(
        values={name: curve[kept] for name, curve in values.items()},
        tuned=tuple(tunable.key for tunable in tunables if isinstance(tunable, LossTerm)),
        **schedule,
    )
