"""How the adjoint grows on its way back through the training, and a cap on that growth.

The adjoint before step t is the objective's gradient times the Jacobians of all later steps. Where
training is chaotic its norm grows by a factor `exp λ` for each step, λ > 0 (a finite-time Lyapunov
exponent): the derivative stays exact and says nothing any more, as it is that of one trajectory out
of many that end in the same place.

Source: Metz, Freeman, Schoenholz & Kachman, Gradients are Not All You Need, 2021, section 3.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from metatune.hypergrad.forward.tangents import Tangents
from metatune.hypergrad.problem import Growth
from metatune.hypergrad.reverse.adjoint import Adjoint
from metatune.hypergrad.reverse.damping import Damping
from metatune.hypergrad.shapes import Floats, Params

OfEach = Float[Array, "*M"]
"""A number of the training, or of each of M side by side."""


def norms(adjoint: Adjoint | Tangents, trainings: int | None) -> tuple[OfEach, OfEach]:
    """Norms of the two parts of an adjoint, or of tangents.

    Args:
        adjoint: whose leaves have the trainings on axis 0, if there are several.
        trainings: side by side; None for one.
    """
    return (
        jnp.sqrt(_square(adjoint.params, trainings)),
        jnp.sqrt(_square(adjoint.opt_state, trainings)),
    )


def capped(adjoint: Adjoint, largest: OfEach, trainings: int | None) -> tuple[Adjoint, OfEach]:
    """An adjoint whose parameters' part has a norm of at most `largest`.

    Args:
        adjoint: as of `norms`.
        largest: of each training.
        trainings: likewise.

    Returns:
        It, and the logarithm of what it was multiplied by.
    """
    norm = norms(adjoint, trainings)[0]
    # Exactly one where the cap doesn't bind, a factor that changes no bit.
    factor = jnp.where(norm > largest, largest / norm, jnp.ones_like(norm))

    def scaled(leaf: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return leaf * factor.reshape(factor.shape + (1,) * (leaf.ndim - factor.ndim)).astype(
            leaf.dtype
        )

    params, opt_state = jax.tree.map(scaled, (adjoint.params, adjoint.opt_state))
    return adjoint._replace(params=params, opt_state=opt_state), jnp.log(factor)


_norms = jax.jit(norms, static_argnums=1)
_capped = jax.jit(capped, static_argnums=2, donate_argnums=0)


@partial(jax.jit, static_argnums=1)
def _norm(tree: Params, trainings: int | None) -> OfEach:
    return jnp.sqrt(_square(tree, trainings))


class Watch:
    """What a backward sweep sees of its adjoint, and the cap that it keeps to.

    Numbers stay on the device until the sweep is over: nothing waits for them, but for a cap above
    which the adjoint begins anew.
    """

    def __init__(self, damping: Damping | None, trainings: int | None):
        """Begins behind the last step.

        Args:
            damping: the cap; None for none.
            trainings: side by side; None for one.
        """
        self._damping, self._trainings = damping, trainings
        self._largest: OfEach | None = None
        self._steps: list[int] = []
        self._norms: list[tuple[OfEach, OfEach]] = []
        self._logs: list[OfEach] = []

    @property
    def of_steps(self) -> OfEach | None:
        """Largest norm after each inner step; None for no such cap."""
        if self._damping is None or self._damping.every != "step":
            return None
        return self._largest

    def objective(self, bar: Params | None) -> None:
        """The objective has added `bar` to the adjoint of the parameters; None for nothing."""
        if bar is not None and self._damping is not None:
            more = self._damping.max_growth * _norm(bar, self._trainings)
            self._largest = more if self._largest is None else self._largest + more

    def segment(
        self,
        adjoint: Adjoint,
        logs: OfEach | None,
        anew: Callable[[], tuple[Params, Floats] | None],
    ) -> Adjoint:
        """The adjoint from before a segment as the cap lets it through, whose memory it takes.

        Args:
            adjoint: as the pullback gave it.
            logs: logarithm of what it was multiplied by on its way; None for no cap on steps.
            anew: one that begins there, in the parameters and in the optimizer state; None where
                none is to.
        """
        damping = self._damping
        if damping is not None and damping.restart:
            adjoint, logs = self._restarted(adjoint, damping.max_growth, anew)
        elif damping is not None and damping.every == "segment":
            adjoint, logs = _capped(adjoint, self._largest, self._trainings)
        if logs is None:
            logs = jnp.zeros(() if self._trainings is None else self._trainings)
        self._logs.append(logs)
        return adjoint

    def _restarted(
        self,
        adjoint: Adjoint,
        max_growth: float,
        anew: Callable[[], tuple[Params, Floats] | None],
    ) -> tuple[Adjoint, OfEach | None]:
        """The adjoint, begun anew where it has outgrown the cap, and the factor's logarithm."""
        norm = _norm(adjoint.params, self._trainings)
        # Not above it: an adjoint that isn't a number begins anew, too.
        if np.median(np.asarray(norm / self._largest)) <= 1 or (begun := anew()) is None:
            return adjoint, None
        after = _norm(begun[0], self._trainings)
        self._largest = max_growth * after
        return Adjoint(*begun, adjoint.eta), jnp.log(after / norm)

    def boundary(self, step: int, adjoint: Adjoint) -> None:
        """The adjoint of the state before `step`."""
        self._steps.append(step)
        self._norms.append(_norms(adjoint, self._trainings))

    def growth(self) -> Growth:
        """All that was seen."""
        params, opt_state = (jnp.stack(each[::-1]) for each in zip(*self._norms, strict=True))
        steps = np.asarray(self._steps[::-1], np.int64)
        return Growth(steps, params, opt_state, jnp.stack(self._logs[::-1]))


def _square(tree: PyTree[Float[Array, "..."]], trainings: int | None) -> OfEach:
    """The sum of squares, in float32 at least; of each training."""
    shape = () if trainings is None else (trainings,)
    total = jnp.zeros(shape, jnp.float32)
    for leaf in jax.tree.leaves(tree):
        wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        axes = tuple(range(len(shape), leaf.ndim))
        total = total + jnp.sum(jnp.square(wide), axis=axes)
    return total
