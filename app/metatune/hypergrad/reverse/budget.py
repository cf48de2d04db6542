"""What keeping states costs, and the cheapest way that a number of bytes allows."""

from math import isqrt
from typing import Final, NamedTuple

import jax.numpy as jnp
from jaxtyping import PyTree

from metatune.hypergrad.problem import State
from metatune.hypergrad.reverse.adjoint import SegmentRun
from metatune.hypergrad.reverse.boundaries import Boundaries
from metatune.hypergrad.reverse.policies import Every, Kept, Recursive
from metatune.hypergrad.stores import CheckpointError

SCALES: Final = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


class SweepCost(NamedTuple):
    """What both sweeps over a training take.

    Attributes:
        peak_bytes: the most that lies in the store at a time.
        peak_states: the most states among it.
        recomputed_segments: segments run again for want of a kept state.
    """

    peak_bytes: int
    peak_states: int
    recomputed_segments: int


def cost(kept: Kept, segments: int, state_bytes: int, saved_bytes: int) -> SweepCost:
    """Walks through both sweeps without computing anything.

    Args:
        kept: what is kept.
        segments: of the training.
        state_bytes: of parameters and optimizer state.
        saved_bytes: of what a segment saves for its pullback; 0 if nothing is saved.
    """
    store = _Ledger({"state": state_bytes, "saved": saved_bytes})
    nothing = SegmentRun(State((), ()), jnp.zeros(0), ())
    boundaries = Boundaries(
        lambda index, state: nothing,
        segments,
        saves=saved_bytes > 0,
        kept=kept,
        store=store,
        checksum=lambda state: 0,
    )
    boundaries.forward(nothing.state, lambda index, losses: None)
    for index in reversed(range(segments)):
        boundaries.take(index)
    return SweepCost(store.peak_bytes, boundaries.peak, boundaries.recomputed)


def cheapest(segments: int, state_bytes: int, saved_bytes: int, budget_bytes: int) -> Kept:
    """What to keep for the fewest segments run again within a budget.

    Chosen from all states, the square root, and the recursion with as many slots as fit, each with
    and without what segments save.

    Raises:
        CheckpointError: nothing fits; says what would, and with which options.
    """

    def costs(kept: Kept) -> SweepCost:
        return cost(kept, segments, state_bytes, saved_bytes)

    def most_slots(saved: bool) -> list[Kept]:
        low, high = 0, min(segments, budget_bytes // state_bytes) + 1  # fit; don't, or needn't
        while high - low > 1:
            middle = (low + high) // 2
            fits = costs(Kept(Recursive(middle), saved)).peak_bytes <= budget_bytes
            low, high = (middle, high) if fits else (low, middle)
        return [Kept(Recursive(low), saved)] if low else []

    if costs(Kept(Every(1))).peak_bytes <= budget_bytes:
        return Kept(Every(1))
    candidates = [Kept(Every(isqrt(segments - 1) + 1), saved) for saved in (True, False)]
    candidates += [Kept(Every(1), False), *most_slots(True), *most_slots(False)]
    fitting = [kept for kept in candidates if costs(kept).peak_bytes <= budget_bytes]
    if not fitting:
        least = costs(Kept(Recursive(1), False)).peak_bytes
        raise CheckpointError(
            f"no way to keep states of {amount(state_bytes)} fits a budget of "
            f"{amount(budget_bytes)}: the smallest that would is {amount(least)}, with the policy "
            "`recursive` and 1 slot, which `auto` then takes; raise the budget, or keep states "
            "where there is more room (device, host, disk)"
        )
    return min(fitting, key=lambda kept: costs(kept).recomputed_segments)


def amount(size: int) -> str:
    """Bytes in words: `1.50 GiB (1610612736 bytes)`."""
    for scale, unit in SCALES:
        if size >= scale:
            return f"{size / scale:.2f} {unit} ({size} bytes)"
    return f"{size} bytes"


class _Ledger:
    """A store that holds nothing but knows how much would lie in it."""

    def __init__(self, sizes: dict[str, int]):
        self.peak_bytes = 0
        self._sizes = sizes
        self._bytes = 0

    def put(self, key: tuple[str, int], tree: PyTree) -> None:
        del tree
        self._bytes += self._sizes[key[0]]
        self.peak_bytes = max(self.peak_bytes, self._bytes)

    def expect(self, key: tuple[str, int]) -> None:
        del key

    def get(self, key: tuple[str, int]) -> PyTree:
        return State((), ())

    def pop(self, key: tuple[str, int]) -> PyTree:
        self._bytes -= self._sizes[key[0]]
        return State((), ())
