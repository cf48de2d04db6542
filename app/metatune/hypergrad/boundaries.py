"""The states between segments: kept where a policy says so, recomputed elsewhere."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from metatune.hypergrad.checkpoints import Policy
from metatune.hypergrad.estimator import Forward
from metatune.hypergrad.problem import PyTree, State
from metatune.hypergrad.stores import Store

Heard = Callable[[int, jax.Array], None]


class ReplayError(RuntimeError):
    """A segment that was run again led elsewhere: the hypergradient would be wrong."""


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
        run: Callable[[int, State], Forward],
        segments: int,
        *,
        saves: bool,
        policy: Policy,
        store: Store,
    ):
        """Prepares for both sweeps.

        Args:
            run: runs a segment, given its number and the state before it.
            segments: how many there are.
            saves: whether a run saves anything for the pullback.
            policy: which boundaries are kept.
            store: where they are kept.
        """
        self.recomputed = self.peak = 0
        self._run, self._segments, self._saves = run, segments, saves
        self._policy, self._store = policy, store
        self._kept: list[int] = []
        self._hand: tuple[State, PyTree] | None = None
        self._checksums: dict[int, np.ndarray] = {}

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
                self._checksums[segment] = np.asarray(checksum(state))
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
        hand, self._hand = self._hand, None
        if hand is not None:
            return hand
        if self._kept[-1] != segment:
            return self._replay(segment)
        self._kept.pop()
        saved = self._store.pop(("saved", segment)) if self._saves else ()
        return self._store.pop(("state", segment)), saved

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
        self.recomputed += self._saves
        return state, self._run(last, state).saved if self._saves else ()

    def _advance(
        self, segment: int, state: State, leaves: set[int], last: int
    ) -> tuple[State, jax.Array]:
        """Runs a segment; keeps what it saved if it won't be run again before its pullback."""
        after = self._run(segment, state)
        if segment == last:
            self._hand = (state, after.saved)
        elif self._saves and {segment, segment + 1} <= leaves:
            self._store.put(("saved", segment), after.saved)
        return after.state, after.losses

    def _keep(self, segment: int, state: State) -> None:
        self._store.put(("state", segment), state)
        self._kept.append(segment)
        self.peak = max(self.peak, len(self._kept))

    def _compare(self, segment: int, state: State) -> None:
        if checksum(state) != self._checksums[segment]:
            raise ReplayError(
                f"the state before segment {segment} came out differently when it was computed "
                "again: batches is not a pure function of the step, or an operation of the "
                "training is not deterministic; make it so, or keep all states"
            )


@jax.jit
def checksum(tree: PyTree) -> jax.Array:
    """The sum, modulo 2³², of the bit patterns of all leaves in words of 32 bits at most."""
    words = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}

    def total(leaf: jax.Array) -> jax.Array:
        if leaf.dtype == bool:
            leaf = leaf.astype(jnp.uint8)
        bits = jax.lax.bitcast_convert_type(leaf, words[leaf.dtype.itemsize])
        return jnp.sum(bits, dtype=jnp.uint32)

    return sum((total(leaf) for leaf in jax.tree.leaves(tree)), jnp.uint32(0))
