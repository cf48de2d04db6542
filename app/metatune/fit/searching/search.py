"""Where a search stands: all that the next outer step depends on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Search(NamedTuple):
    """Where the search stands: what a checkpoint holds.

    Attributes:
        step: outer steps done.
        eta: meta-parameters for the next outer step.
        opt_state: state of the outer optimizer.
        best_eta: the best so far.
        best_step: outer steps that had led to it; -1 before the first judgement.
        best_held_out: what the judges measured there, in `recipe.measures.unit`.
        inner: state of the inner training that goes on from outer step to outer step; () of none.
        control: control variate of the next hypergradient; () of none.
        age: inner steps that it is old.
        life: which inner training it is.
        average: moving average of the meta-parameters of all outer steps; () of none.
        best_averaged: whether the best is such an average.
        phase: number of the phase.
        phase_start: outer steps done before it began.
        shared: which cells share a learning rate, and what was seen of them; () where none do.
        changes: of what is shared, from the first on, as plain JSON values.
        signal: what it keeps of differences of trainings, as of `memory.SlopeMemory`; () of none.
        choice: which way it follows where growth dominates, as of `choice.FollowedWay` in plain
            JSON values; None where nothing was chosen.
        trust: what it judges its points by, as of `trust.Trust`; () where it doesn't.
    """

    step: int
    eta: Any
    opt_state: Any
    best_eta: Any
    best_step: int = -1
    best_held_out: float = float("inf")
    inner: Any = ()
    control: Any = ()
    age: int = 0
    life: int = 0
    average: Any = ()
    best_averaged: bool = False
    phase: int = 0
    phase_start: int = 0
    shared: Any = ()
    changes: Sequence[Mapping[str, Any]] = ()
    signal: Any = ()
    choice: Mapping[str, Any] | None = None
    trust: Any = ()
