"""What a contestant is, and all that it is told of the training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from metatune.verdict.points import Point

DIVERGED: Final = 1e3
"""The loss of a training that diverged: a large number, not infinite and none at all. A sampler
forgets a trial without a number, and comes back to where trainings diverge."""

BY_SIZE: Final = "by size"
"""The mixture in proportion to how much text there is of each domain."""

ALIGNED_EVERY: Final = 8
"""Inner steps of a proxy between two looks at how gradients are aligned."""

PROXY: Final = 1 + 2 / ALIGNED_EVERY
"""Trainings that a proxy takes as long as: a look is the gradient of a batch and of held-out text,
about two inner steps."""


class Evaluate(Protocol):
    """Trains for a contestant."""

    def __call__(self, point: Point, share: float = 1.0) -> float:
        """A training, and its loss on the validation split; `DIVERGED` where it diverged.

        Args:
            point: where.
            share: of the inner steps, to which schedules are squeezed.
        """
        ...

    def aligned(self, reach: float) -> tuple[float, ...]:
        """The shares that a proxy ends with, as of `verdict.alignment`; it takes `PROXY` trainings.

        Args:
            reach: how far the logits of the shares may go.

        Returns:
            Empty where it diverged.
        """
        ...


@dataclass(frozen=True)
class ContestSetting:
    """The training that contestants are to choose for.

    Attributes:
        optimizer: kind of the recipe's inner optimizer.
        steps: inner steps of a training.
        mixtures: shares of the domains by the name of a mixture that anyone would try, the
            recipe's own first; empty where no mixture is tuned.
        target: shares of the target; empty where it weighs text that isn't trained on, too.
        caps: largest shares; empty for none.
        coordinates: how many meta-parameters there are.
        layers: of the model.
        plain: whether start and update are the optimizer's own: neither corrected, averaged nor
            begun from what was tuned.
        unaligned: why gradients can't be aligned; None where they can.
    """

    optimizer: str = "adamw"
    steps: int = 100
    mixtures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    target: tuple[float, ...] = ()
    caps: tuple[float, ...] = ()
    coordinates: int = 1
    layers: int = 2
    plain: bool = True
    unaligned: str | None = None


class Contestant(Protocol):
    """A way to choose; a new one is one file and one row of the table.

    Attributes:
        name: in the record, on the screen and on the command line.
        summary: what it does, in a line.
    """

    @property
    def name(self) -> str:  # noqa: D102
        ...

    @property
    def summary(self) -> str:  # noqa: D102
        ...

    def refusal(self, setting: ContestSetting) -> str | None:
        """Why it doesn't apply to a training; None where it does."""
        ...

    def search(self, setting: ContestSetting, budget: int, evaluate: Evaluate, key: int) -> None:
        """Looks for the best point: of those that it evaluates, the best is chosen.

        It depends on its arguments and on the losses alone, and does with a larger budget first
        what it does with a smaller one. So a search that was killed is done again from the
        beginning: what was trained before is answered from the record.

        Args:
            setting: the training.
            budget: whole trainings that it may take, one or more.
            evaluate: trains and measures.
            key: of its randomness.
        """
        ...


def fitting(shares: tuple[float, ...], caps: tuple[float, ...]) -> tuple[float, ...]:
    """Shares under the caps: what a domain has too much goes to the others in proportion.

    >>> fitting((1.0, 0.0, 0.0), (0.5, 1.0, 1.0))
    (0.5, 0.25, 0.25)

    Args:
        shares: that sum to one.
        caps: largest shares, which sum to one at least; empty for none.
    """
    if not caps:
        return shares
    found, capped = list(shares), set[int]()
    while over := [i for i in range(len(caps)) if found[i] > caps[i] and i not in capped]:
        capped |= set(over)
        left = 1.0 - sum(caps[i] for i in capped)
        free = [i for i in range(len(caps)) if i not in capped]
        weight = sum(shares[i] for i in free)
        for i in range(len(caps)):
            own = shares[i] / weight if weight else 1 / max(1, len(free))
            found[i] = caps[i] if i in capped else left * own
    return tuple(found)
