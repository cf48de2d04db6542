"""The entry to every estimator, and the training alone.

The programs of a segment are compiled once, whatever the number of inner steps; what lies between
segments lives in Python.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from metatune.hypergrad import programs
from metatune.hypergrad.estimator import Estimator, Job, Listener, shortened, tell
from metatune.hypergrad.forward.push import Carry
from metatune.hypergrad.problem import Batches, Hypergradient, Problem, State, as_argument
from metatune.hypergrad.reverse.checkpoints import Checkpoints
from metatune.hypergrad.segments import bounds, fetch
from metatune.hypergrad.shapes import Batch, Eta, Leaf
from metatune.hypergrad.sharding import brought_home

KEEP_ALL = Checkpoints()


def hypergradient(
    problem: Problem,
    eta: Eta,
    state: State,
    batches: Batches,
    outer_batches: Sequence[Batch],
    *,
    steps: int,
    estimator: Estimator,
    start: int = 0,
    window: int | None = None,
    points: Mapping[int, float] | None = None,
    checkpoints: Checkpoints = KEEP_ALL,
    key: Key[Array, ""] | None = None,
    control: Eta | None = None,
    carry: Carry | None = None,
    listener: Listener | None = None,
) -> Hypergradient:
    """The derivative of the objective after `steps` inner steps with respect to η.

    `F = mean over outer batches of objective(θ_T, batch)`; its gradient is accumulated batch by
    batch, so that many outer batches need no more memory than one.

    With a `window` the derivative is truncated: steps before the last `window` are run, but what η
    did in them is left out (Shaban et al., Truncated Back-propagation for Bilevel Optimization,
    2019). With `start`, a training that is under way goes on for `steps` more.

    Args:
        problem: the training and its objective.
        eta: meta-parameters η, any pytree of floating-point arrays.
        state: the state before inner step `start`; left untouched. What `problem.start` is given,
            where there is one and the training begins at step 0.
        batches: the batch of an inner step; asked more than once for the same step, and must give
            the same each time.
        outer_batches: held-out batches of one shape.
        steps: the horizon: inner steps from `start` to the objective.
        estimator: how to differentiate.
        start: the first inner step.
        window: differentiate through so many steps at the end; None for all.
        points: numbers of inner steps, 1 to `steps`, after each of which the objective is taken,
            with its weight there; None for the end alone, with a weight of one.
        checkpoints: which states between segments are kept, and where; for reverse mode.
        key: where an estimator that draws directions takes its randomness from, `jax.random.key`;
            the others have no use for it.
        control: a guess of the hypergradient, a pytree like η, that `ForwardGradient` takes for a
            control variate: it stays unbiased, and errs by how far off the guess is. Zeros for the
            first estimate; the next guess is in the diagnostics.
        carry: of `Progress.carry`, to go on with an estimate that was stopped, bit for bit, all
            other arguments being the same; for forward mode.
        listener: is told after each segment where the computation stands.

    Returns:
        Value, gradient, trained state and diagnostics.

    Raises:
        ValueError: no inner step, an empty window, no outer batch, or a point that is no inner
            step; a batch that doesn't split into micro-batches.
        EstimatorError: the estimator can't be used for this; says which can.
        CheckpointError: a state can't be kept, for want of room or of permission.
        ReplayError: a segment that was run again led elsewhere.
    """
    for name, value in (("steps", steps), ("window", window)):
        if value is not None and value < 1:
            raise ValueError(f"{name} = {value}: at least one inner step is needed")
    if not outer_batches:
        raise ValueError("outer_batches is empty: the objective needs at least one batch")
    taken = sorted((points or {steps: 1.0}).items())
    if not taken or not 1 <= taken[0][0] <= taken[-1][0] <= steps:
        raise ValueError(f"points = {points}: each must be from 1 to steps, {steps}")
    problem, stop = as_argument(problem), start + steps
    differentiated = min(window or steps, steps)
    _refuse_uneven(problem, batches(start))
    found = shortened(estimator, differentiated).estimate(
        Job(
            problem=problem,
            eta=eta,
            state=jax.tree.map(_strong, state),
            batches=batches,
            outer_batches=outer_batches,
            start=start,
            first=stop - differentiated,
            stop=stop,
            points={start + point: weight for point, weight in taken},
            checkpoints=checkpoints,
            key=key,
            control=control,
            carry=carry,
            listener=listener,
        )
    )
    value, gradient, seen = brought_home((found.value, found.gradient, found.diagnostics), eta)
    return found._replace(value=value, gradient=gradient, diagnostics=seen)


def _refuse_uneven(problem: Problem, batch: Batch) -> None:
    """Each leaf of a batch has to split into micro-batches."""
    for leaf in jax.tree.leaves(batch):
        if problem.micro_batches > 1 and (not leaf.ndim or len(leaf) % problem.micro_batches):
            raise ValueError(
                f"a batch with a leaf of shape {leaf.shape} doesn't split into "
                f"{problem.micro_batches} micro-batches of one size; choose a number that divides "
                "its first axis"
            )


def _strong(leaf: Shaped[Leaf, "*shape"]) -> Shaped[Array, "*shape"]:
    """An array whose type is its own, as that of a state that comes back from a store is."""
    return jnp.asarray(leaf, jnp.result_type(leaf))


def train(
    problem: Problem,
    eta: Eta,
    state: State,
    batches: Batches,
    *,
    steps: int,
    start: int = 0,
    segment: int = 16,
    donate: bool = False,
    listener: Listener | None = None,
) -> tuple[State, Float[Array, "{steps}"]]:
    """Runs the inner training alone, in the memory of one state.

    Args:
        problem: the training.
        eta: meta-parameters η.
        state: the state before inner step `start`, as of `hypergradient`; left untouched unless
            donated.
        batches: the batch of an inner step.
        steps: the number of inner steps.
        start: the first of them.
        segment: inner steps per compiled program at most.
        donate: gives the memory of `state` to the next one, so that there is only one at a time.
        listener: is told after each segment where the training stands.

    Returns:
        The trained state, and the inner losses.
    """
    problem, losses, segment = as_argument(problem), [], min(segment, steps)
    _refuse_uneven(problem, batches(start))
    if not donate:
        state = jax.tree.map(jnp.copy, state)
    if problem.start is not None and start == 0:
        state = programs.begin(problem, eta, state)
    for first, stop in bounds(start, start + steps, segment):
        drawn = fetch(batches, first, stop, segment)
        state, segment_losses = programs.advance(problem, eta, state, drawn)
        losses.append(segment_losses[: stop - first])
        tell(listener, "forward", stop - start, steps, losses[-1])
    return state, jnp.concatenate(losses)
