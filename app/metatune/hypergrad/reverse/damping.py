"""A cap on how the adjoint of a training grows.

Source: Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks, ICML
2013, section 3.2 (there the gradient is clipped once, here the adjoint on its way).
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Damping:
    """A cap on the adjoint, exact where it never binds.

    `p ← p c / |p_θ|  where |p_θ| > c,  c = max_growth |∂F/∂θ|`: parameters and moments are scaled
    together by what the parameters' part exceeds the cap by. The hypergradient of steps after the
    last one where it binds is exact; that of earlier ones is biased, towards zero in norm.

    Attributes:
        max_growth: largest norm of the adjoint of the parameters, in norms of the objective's
            gradient, of all points of the objective so far together.
        every: after each inner step, or after each segment, which lets through what grows and
            shrinks again within one.
    """

    max_growth: float
    every: Literal["step", "segment"] = "step"

    def __post_init__(self) -> None:
        """Refuses a cap that lets nothing through.

        Raises:
            ValueError: a cap of zero or below.
        """
        if not self.max_growth > 0:
            raise ValueError(f"max_growth = {self.max_growth}: must be above 0")
