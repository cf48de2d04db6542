"""A cap on how the adjoint of a training grows, and what becomes of an adjoint above it.

Source: Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks, ICML
2013, section 3.2 (there the gradient is clipped once, here the adjoint on its way).
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Damping:
    """A cap on the adjoint, exact where it never binds.

        p ← p c / |p_θ|  where |p_θ| > c,  c = max_growth |∂F/∂θ|

    p = (p_θ, p_υ) is the adjoint of a state: of `params` and of the floating-point leaves of
    `opt_state`, which are scaled together by what the parameters' part exceeds the cap by. |·| is
    the Euclidean norm over all leaves, F the problem's `objective`.

    With `restart` the adjoint begins anew where it exceeds the cap behind a segment, at step t:

        p_θ ← ∂F/∂θ at θ_t,  p_υ ← 0,  c ← max_growth |p_θ|

    so that a window's derivative looks no further ahead than to a step which it still says
    something of: of M trainings in one program, where the median of |p_θ| / c is above one.

    Bias: the hypergradient of steps after the last one where it binds is exact; that of earlier
    ones is biased, scaled towards zero in norm, restarted to what is good for F at step t (Wu et
    al., 2018). Cost: a norm of the adjoint a step, or a segment; a gradient of F for a restart.

    >>> import jax.numpy as jnp
    >>> from metatune.hypergrad.reverse.adjoint import Adjoint
    >>> from metatune.hypergrad.reverse.growth import capped
    >>> adjoint = Adjoint(jnp.array([6.0, 8.0]), [jnp.array(1.0)], jnp.array(0.0))
    >>> scaled, _ = capped(adjoint, largest=jnp.array(5.0), trainings=None)
    >>> scaled.params.tolist(), scaled.opt_state[0].tolist()
    ([3.0, 4.0], 0.5)

    Source: Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks, ICML
    2013, section 3.2, algorithm 1; for restarts Wu, Ren, Liao & Grosse, Understanding Short-Horizon
    Bias in Stochastic Meta-Optimization, ICLR 2018 (there with one horizon for all).

    Attributes:
        max_growth: largest norm of the adjoint of the parameters, in norms of the objective's
            gradient, of all points of the objective so far together.
        every: after each inner step, or after each segment, which lets through what grows and
            shrinks again within one.
        restart: begin anew, in place of being scaled; by segment.
    """

    max_growth: float
    every: Literal["step", "segment"] = "step"
    restart: bool = False

    def __post_init__(self) -> None:
        """Refuses a cap that lets nothing through, and restarts within segments.

        Raises:
            ValueError: a cap of zero or below; restarts by step, where no state is at hand.
        """
        if self.restart and self.every != "segment":
            raise ValueError(
                f"damping.every = {self.every!r} with restart: the adjoint begins anew between "
                "segments; give 'segment'"
            )
        if not self.max_growth > 0:
            raise ValueError(f"max_growth = {self.max_growth}: must be above 0")
