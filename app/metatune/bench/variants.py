"""How a hypergradient is computed: mixed mode or reverse over reverse, and what is added to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from metatune.bench.sizes import Shape
from metatune.hypergrad import MixFlow, Reverse

FLOAT: Final = 4
"""Bytes of a float32."""
ADAM: Final = 3
"""Copies of the parameters in a state of Adam: θ and two moments."""
STEP_BY_STEP: Final = 8
"""Up to so many inner steps, the paper's horizons, each is a segment of its own: that takes the
least memory in one program, but the program grows with the horizon."""


@dataclass(frozen=True)
class Variant:
    """A way to compute a hypergradient.

    Every variant recomputes an inner step in the backward sweep rather than keep its activations.

    Attributes:
        mixed: forward over reverse for the curvature of the inner loss; reverse over reverse
            otherwise.
        remat: recompute each block.
        chunks: attention and loss a chunk at a time.
        saved: keep the inner gradients of the forward sweep, and replay from them.
    """

    mixed: bool
    remat: bool
    chunks: bool
    saved: bool

    @property
    def name(self) -> str:
        """Such as `mixflow+remat+saved`."""
        parts = [part for part in ("remat", "chunks", "saved") if getattr(self, part)]
        return "+".join(["mixflow" if self.mixed else "reverse", *parts])

    @property
    def is_standard(self) -> bool:
        """Whether JAX differentiates the training as it stands, as one would write it."""
        return not self.mixed and not self.saved

    def estimator(self, steps: int) -> MixFlow | Reverse:
        """The estimator of a horizon."""
        if self.is_standard:
            return Reverse(steps)
        return MixFlow(segment(steps), mixed_mode=self.mixed, save_gradients=self.saved)

    def carry_bytes(self, shape: Shape) -> int:
        """What the inner steps leave for the backward sweep, whatever happens inside a step.

        States and gradients of Adam that are not arguments of the program. Where the horizon is
        one segment, the state before every step is stacked, with the gradients of a replay; else
        that before every step but the first is kept.
        """
        stacked = self.is_standard or segment(shape.steps) > 1
        states = shape.steps if stacked else shape.steps - 1
        gradients = shape.steps if self.saved or (stacked and not self.is_standard) else 0
        return (ADAM * states + gradients) * FLOAT * shape.parameters


def segment(steps: int) -> int:
    """Inner steps per segment: one, or all of a long horizon, for the compiler's sake."""
    return 1 if steps <= STEP_BY_STEP else steps


VARIANTS: Final[Mapping[str, Variant]] = {
    variant.name: variant
    for variant in (Variant(*parts) for parts in product((False, True), repeat=4))
}
"""All of them, by name."""

DEFAULT: Final = (
    "reverse",
    "reverse+remat",
    "reverse+remat+chunks",
    "reverse+remat+saved",
    "reverse+remat+chunks+saved",
    "mixflow+remat+saved",
    "mixflow+remat+chunks+saved",
)
"""Those compared unless others are asked for; the first is what the others are compared with."""
