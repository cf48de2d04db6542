"""A segment: inner steps that are one compiled program.

Every segment of a training runs the same program, whatever the horizon: the last one is filled up
with steps that are skipped.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

from metatune.hypergrad.problem import Batches, Problem, State, inner_step
from metatune.hypergrad.shapes import Eta, Floats, Leaf, Scalar, Step, Tree


class Segment(NamedTuple):
    """Inner steps `start` to `stop` (exclusive) with their data.

    Attributes:
        start: the first inner step.
        stop: one past the last inner step.
        batches: the batches of the steps, stacked on a new first axis and filled up with the last
            one to the length of the program, [length, ...].
    """

    start: np.int32 | Step
    stop: np.int32 | Step
    batches: PyTree[Shaped[Leaf, "length ..."]]


def bounds(start: int, stop: int, length: int) -> list[tuple[int, int]]:
    """Cuts inner steps `start` to `stop` into segments of `length`; the last may be shorter."""
    return [(first, min(first + length, stop)) for first in range(start, stop, length)]


def fetch(batches: Batches, start: int, stop: int, length: int) -> Segment:
    """Fetches the batches of a segment."""
    drawn = [batches(step) for step in range(start, stop)]
    drawn += [drawn[-1]] * (length - len(drawn))
    return Segment(np.int32(start), np.int32(stop), jax.tree.map(_stack, *drawn))


def _stack(*leaves: Shaped[Leaf, "..."]) -> Shaped[Leaf, "..."]:
    return (np if isinstance(leaves[0], np.ndarray) else jnp).stack(leaves)


def scan_segment(
    body: Callable[[Tree, PyTree], tuple[Tree, PyTree]],
    carry: Tree,
    segment: Segment,
    inputs: PyTree = None,
    reverse: bool = False,
) -> tuple[Tree, PyTree]:
    """Runs `body` over the steps of a segment, and over nothing where it is filled up.

    Args:
        body: `(carry, (step, batch, input)) -> (carry, output)`.
        carry: what passes from step to step.
        segment: the steps and their batches.
        inputs: further inputs, stacked like the batches, [length, ...].
        reverse: from the last step to the first.

    Returns:
        The last carry, and the outputs stacked, [length, ...], zero where nothing ran.
    """
    length = len(jax.tree.leaves(segment.batches)[0])
    steps = segment.start + jnp.arange(length, dtype=jnp.int32)
    # Traced once for both uses below; inline, so that the program is the same without.
    body = jax.jit(body, inline=True)

    def guarded(carry: Tree, given: PyTree) -> tuple[Tree, PyTree]:
        outputs = jax.eval_shape(body, carry, given)[1]
        skipped = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), outputs)
        return jax.lax.cond(
            given[0] < segment.stop, lambda: body(carry, given), lambda: (carry, skipped)
        )

    return jax.lax.scan(guarded, carry, (steps, segment.batches, inputs), reverse=reverse)


def run_segment(
    body: Callable[[Tree, PyTree], tuple[Tree, PyTree]],
    carry: Tree,
    segment: Segment,
    inputs: PyTree = None,
    reverse: bool = False,
) -> tuple[Tree, PyTree]:
    """The same as `scan_segment` in less memory, where nothing is differentiated from outside.

    It takes as many turns as there are steps, so that no branch holds a second copy of the carry
    and of the outputs: reverse mode asks for a number of turns that is known when compiled. A
    segment of one step is no loop, which would copy what it begins with. Nothing is fused across
    the ends of a step, as nothing is across those of a branch: the bits are those of
    `scan_segment`.

    Args:
        body: `(carry, (step, batch, input)) -> (carry, output)`.
        carry: what passes from step to step.
        segment: the steps and their batches.
        inputs: further inputs, stacked like the batches, [length, ...].
        reverse: from the last step to the first.

    Returns:
        The last carry, and the outputs stacked, [length, ...], zero where nothing ran.
    """
    given = (segment.batches, inputs)
    length, count = len(jax.tree.leaves(segment.batches)[0]), segment.stop - segment.start
    # Traced once for both uses below; inline, so that the program is the same without.
    body = jax.jit(body, inline=True)

    def apart(carry: Tree, given: PyTree) -> tuple[Tree, PyTree]:
        carry, given = jax.lax.optimization_barrier((carry, given))
        return jax.lax.optimization_barrier(body(carry, given))

    if length == 1:
        first = jax.tree.map(lambda leaf: leaf[0], given)
        carry, outputs = apart(carry, (segment.start, *first))
        return carry, jax.tree.map(lambda leaf: leaf[None], outputs)

    def at(index: Step) -> PyTree:
        index_in = partial(jax.lax.dynamic_index_in_dim, index=index, keepdims=False)
        return segment.start + index, *jax.tree.map(index_in, given)

    def turn(number: Step, held: tuple[Tree, PyTree]) -> tuple[Tree, PyTree]:
        carry, stacks = held
        index = count - 1 - number if reverse else number
        carry, outputs = apart(carry, at(index))
        put = partial(jax.lax.dynamic_update_index_in_dim, index=index, axis=0)
        return carry, jax.tree.map(put, stacks, outputs)

    shapes = jax.eval_shape(lambda carry: body(carry, at(jnp.int32(0)))[1], carry)
    stacks = jax.tree.map(lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), shapes)
    return jax.lax.fori_loop(0, count, turn, (carry, stacks))


def advance(
    problem: Problem, eta: Eta, state: State, segment: Segment, remat: bool = False
) -> tuple[State, Float[Array, "length"]]:
    """Trains through a segment.

    Args:
        problem: the training.
        eta: meta-parameters η.
        state: the state before the segment.
        segment: the steps and their batches.
        remat: recompute each step when differentiated by JAX.

    Returns:
        The state after the segment, and the inner losses.
    """

    def body(state: State, given: PyTree) -> tuple[State, Scalar]:
        step, batch, _ = given
        state, loss, _ = inner_step(problem, eta, state, batch, step)
        return state, loss

    return scan_segment(jax.checkpoint(body) if remat else body, state, segment)


def inexact(tree: Tree) -> tuple[Floats, Callable[[Floats], Tree]]:
    """The floating-point leaves of a pytree, and how to put others in their place.

    Integers (such as an optimizer's step count) have no derivative and would need cotangents of
    a type of their own; taken apart here, they stay out of the calculus.
    """
    leaves, treedef = jax.tree.flatten(tree)
    floating = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]

    def rebuild(values: Floats) -> Tree:
        replacements: Iterator[Float[Array, "..."]] = iter(values)
        merged = [
            next(replacements) if is_floating else leaf
            for leaf, is_floating in zip(leaves, floating, strict=True)
        ]
        return jax.tree.unflatten(treedef, merged)

    return [leaf for leaf, is_f in zip(leaves, floating, strict=True) if is_f], rebuild
