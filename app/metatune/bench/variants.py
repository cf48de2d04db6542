"""How a hypergradient is computed: mixed mode or reverse over reverse, and what is added to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import isqrt
from typing import Final

from metatune.bench.sizes import Shape
from metatune.hypergrad import MixFlow, Reverse

FLOAT: Final = 4
"""Bytes of a float32."""
ADAM: Final = 3
"""Copies of the parameters in a state of Adam: θ and two moments."""
STEP_BY_STEP: Final = 8
"""Up to so many inner steps, each is a segment of its own: the horizons of the paper."""


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

        States and gradients of Adam that are not arguments of the program. The standard way stacks
        the state before every step; the others keep that before every segment but the first, and
        where segments are longer than a step, replay one at a time.
        """
        steps, length = shape.steps, segment(shape.steps)
        if self.is_standard:
            states, gradients = steps, 0
        else:
            replayed = length if length > 1 else 0
            states = -(-steps // length) - 1 + replayed
            gradients = steps if self.saved else replayed
        return (ADAM * states + gradients) * FLOAT * shape.parameters


def segment(steps: int) -> int:
    """Inner steps per segment: one, and of long horizons the root, so that few states are kept."""
    return 1 if steps <= STEP_BY_STEP else isqrt(steps)


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
