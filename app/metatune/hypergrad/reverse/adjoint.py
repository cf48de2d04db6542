"""What a reverse-mode estimator has to offer: one segment forward, and its pullback."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, PyTree

from metatune.hypergrad.problem import Problem, State
from metatune.hypergrad.reverse.damping import Damping
from metatune.hypergrad.segments import Segment
from metatune.hypergrad.shapes import Eta, Floats, Params


class SegmentRun(NamedTuple):
    """A segment run forward.

    Attributes:
        state: the state after the segment.
        losses: inner losses.
        saved: whatever the pullback wants to see again, a pytree; () unless the estimator `saves`.
    """

    state: State
    losses: Float[Array, "length"]
    saved: PyTree


class Adjoint(NamedTuple):
    """Derivatives of the objective, on their way back.

    Attributes:
        params: with respect to the parameters at this point.
        opt_state: with respect to the floating-point leaves of the optimizer state.
        eta: with respect to η through all steps after this point.
    """

    params: Params
    opt_state: Floats
    eta: Eta


@runtime_checkable
class ReverseMode(Protocol):
    """A reverse-mode estimator, a frozen dataclass: a static argument of the compiled programs."""

    @property
    def segment(self) -> int:
        """Inner steps per segment."""
        ...

    @property
    def saves(self) -> bool:
        """Whether `forward` saves anything for the pullback."""
        ...

    @property
    def recomputed_gradients(self) -> int:
        """Inner gradients that the way back computes once more, of each inner step."""
        ...

    def saving(self) -> "ReverseMode":
        """The same, or its like, that saves the inner gradients for the pullback."""
        ...

    @property
    def damping(self) -> Damping | None:
        """A cap on the adjoint; None for the exact derivative."""
        ...

    def forward(self, problem: Problem, eta: Eta, state: State, segment: Segment) -> SegmentRun:
        """Runs a segment."""
        ...

    def pullback(
        self,
        problem: Problem,
        eta: Eta,
        state: State,
        segment: Segment,
        saved: PyTree,
        adjoint: Adjoint,
        largest: Float[Array, "*M"] | None,
    ) -> tuple[Adjoint, Float[Array, "*M"] | None]:
        """Takes the adjoint from behind a segment to before it.

        Args:
            problem: the training.
            eta: meta-parameters η.
            state: the state before the segment.
            segment: the steps and their batches.
            saved: by `forward`.
            adjoint: from behind the segment.
            largest: norm of the adjoint of the parameters after each inner step, of each of M
                trainings where there are several; None for no cap on steps.

        Returns:
            The adjoint, and the logarithm of what the cap multiplied it by; None without one.
        """
        ...
