"""The states between segments: kept where a policy says so, recomputed elsewhere."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Shaped, UInt32

from metatune.hypergrad.problem import State
from metatune.hypergrad.reverse.adjoint import SegmentRun
from metatune.hypergrad.reverse.policies import Kept

Heard = Callable[[int, Float[Array, "length"]], None]


@runtime_checkable
class Keeper(Protocol):
    """Keeps pytrees by key, as `stores.Store` does."""

    def put(self, key: tuple[str, int], tree: PyTree) -> None:
        """Keeps a pytree."""
        ...

    def get(self, key: tuple[str, int]) -> PyTree:
        """The pytree under a key."""
        ...

    def pop(self, key: tuple[str, int]) -> PyTree:
        """As `get`; lets go of it."""
        ...

    def expect(self, key: tuple[str, int]) -> None:
        """Is told that what is under a key, if anything is, comes next."""
        ...


class ReplayError(RuntimeError):
    """A segment that was run again led elsewhere: the hypergradient would be wrong."""


@jax.jit
def _checksum(tree: PyTree) -> UInt32[Array, ""]:
    words = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}

    def total(leaf: Shaped[Array, "..."]) -> UInt32[Array, ""]:
        if leaf.dtype == bool:
            leaf = leaf.astype(jnp.uint8)
        bits = jax.lax.bitcast_convert_type(leaf, words[leaf.dtype.itemsize])
        return jnp.sum(bits, dtype=jnp.uint32)

    return sum((total(leaf) for leaf in jax.tree.leaves(tree)), jnp.uint32(0))


def checksum(tree: PyTree) -> int:
    """The sum, modulo 2³², of the bit patterns of all leaves in words of 32 bits at most."""
    return int(_checksum(tree))


class Boundaries:
    """The state before each segment, forward once and then backward.

    A sweep over segments [lo, hi) keeps some of their boundaries and has the last one in hand. When
    the backward sweep comes to a boundary that isn't kept, a sweep starts at the last one that is,
    with the room that has been freed since.

    Attributes:
        recomputed: segments run again so far.
        peak: the most states kept at a time.
    """

    def __init__(
        self,
        run: Callable[[int, State], SegmentRun],
        segments: int,
        *,
        saves: bool,
        kept: Kept,
        store: Keeper,
        checksum: Callable[[State], int] = checksum,
    ):
        """Prepares for both sweeps.

        Args:
            run: runs a segment, given its number and the state before it.
            segments: how many there are.
            saves: whether a run saves anything for the pullback.
            kept: what is kept on the way.
            store: where they are kept.
            checksum: tells states apart, to find a segment that leads elsewhere when run again.
        """
        self.recomputed = self.peak = 0
        self._run, self._segments, self._saves = run, segments, saves
        self._policy, self._store, self._checksum = kept.states, store, checksum
        self._keeps_saved = saves and kept.saved
        self._kept: list[int] = []
        self._hand: tuple[State, PyTree] | None = None
        self._checksums: dict[int, int] = {}

    def forward(self, state: State, heard: Heard) -> State:
        """Runs all segments.

        Args:
            state: the state before the first.
            heard: is given the number of each segment and its losses, [length].

        Returns:
            The state after the last.
        """
        first, last = 0, self._segments - 1
        leaves = {first, *self._policy.keep(first, self._segments, kept=1), last}
        for segment in range(self._segments):
            if segment not in leaves:
                self._checksums[segment] = self._checksum(state)
            elif segment != last:
                self._keep(segment, state)
            state, losses = self._advance(segment, state, leaves, last)
            heard(segment, losses)
        return state

    def take(self, segment: int) -> tuple[State, PyTree]:
        """The state before a segment and what its run saved; segments come from last to first.

        Raises:
            ReplayError: a segment that was run again led elsewhere.
        """
        taken = self._taken(segment)
        if self._kept and self._kept[-1] == segment - 1:
            for what in ("state", "saved"):
                self._store.expect((what, segment - 1))
        return taken

    def _taken(self, segment: int) -> tuple[State, PyTree]:
        hand, self._hand = self._hand, None
        if hand is not None:
            return hand
        if self._kept[-1] != segment:
            return self._replay(segment)
        self._kept.pop()
        state = self._store.pop(("state", segment))
        if self._keeps_saved:
            return state, self._store.pop(("saved", segment))
        return state, self._saved_again(segment, state)

    def _replay(self, last: int) -> tuple[State, PyTree]:
        """Runs from the last boundary kept to the one before segment `last`."""
        first = self._kept[-1]
        state = self._store.get(("state", first))
        leaves = {first, *self._policy.keep(first, last + 1, kept=len(self._kept)), last}
        for segment in range(first, last):
            state, _ = self._advance(segment, state, leaves, last)
            self.recomputed += 1
            self._compare(segment + 1, state)
            if segment + 1 in leaves and segment + 1 != last:
                self._keep(segment + 1, state)
        return state, self._saved_again(last, state)

    def _saved_again(self, segment: int, state: State) -> PyTree:
        """What a segment saves, from running it again."""
        if not self._saves:
            return ()
        self.recomputed += 1
        return self._run(segment, state).saved

    def _advance(
        self, segment: int, state: State, leaves: set[int], last: int
    ) -> tuple[State, Float[Array, "length"]]:
        """Runs a segment; keeps what it saved if it won't be run again before its pullback."""
        after = self._run(segment, state)
        if segment == last:
            self._hand = (state, after.saved)
        elif self._keeps_saved and {segment, segment + 1} <= leaves:
            self._store.put(("saved", segment), after.saved)
        return after.state, after.losses

    def _keep(self, segment: int, state: State) -> None:
        self._store.put(("state", segment), state)
        self._kept.append(segment)
        self.peak = max(self.peak, len(self._kept))

    def _compare(self, segment: int, state: State) -> None:
        if self._checksum(state) != self._checksums[segment]:
            raise ReplayError(
                f"the state before segment {segment} came out differently when it was computed "
                "again: batches is not a pure function of the step, or an operation of the "
                "training is not deterministic; make it so, or keep all states"
            )
