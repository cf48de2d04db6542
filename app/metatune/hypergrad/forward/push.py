"""Directions pushed through a whole training, segment by segment, in memory flat in its length."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from math import gcd
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float

from metatune.hypergrad import programs
from metatune.hypergrad.estimator import EstimatorError, Job
from metatune.hypergrad.forward.tangents import Tangents
from metatune.hypergrad.problem import Growth, State
from metatune.hypergrad.reverse.budget import amount
from metatune.hypergrad.reverse.checkpoints import Checkpoints
from metatune.hypergrad.segments import bounds, fetch, inexact
from metatune.hypergrad.shapes import Scalar, Tree
from metatune.hypergrad.sharding import (
    TOGETHER,
    MemberAxis,
    gather,
    local,
    member_axis,
    mesh_for,
    replicate,
    shard,
    stacked_place,
)
from metatune.hypergrad.stores import Device, device_bytes


class Carry(NamedTuple):
    """What passes from segment to segment: all that is needed to go on.

    Attributes:
        derivatives: of the objective along the directions of the chunks that are finished.
        step: inner steps before this one are done, of the chunk that isn't finished.
        state: the state before `step`.
        tangents: of that state, along those directions that have begun; None if none has.
        losses: inner losses of each segment so far.
        value: the objective at the points so far, of the chunk that isn't finished.
        along: its derivatives along the directions of this chunk.
        norms: of the tangents, of each chunk so far, at the boundaries between its segments so far,
            of parameters and of optimizer state.
    """

    derivatives: Float[Array, "finished"]
    step: int
    state: State
    tangents: Tangents | None
    losses: tuple[Float[Array, "segment"], ...]
    value: Scalar
    along: Float[Array, "directions"]
    norms: tuple[tuple[Float[Array, "2"], ...], ...]


class Pushed(NamedTuple):
    """A training with the derivatives of its objective.

    Attributes:
        value: the objective F(θ_T).
        derivatives: of F along each direction.
        state: the trained state.
        losses: inner losses.
        growth: of the tangents, in all directions together.
    """

    value: Scalar
    derivatives: Float[Array, "directions"]
    state: State
    losses: Float[Array, "steps"]
    growth: Growth


class Cut(NamedTuple):
    """Inner steps `first` to `stop` (exclusive) with the first `active` directions of a chunk."""

    first: int
    stop: int
    active: int


@dataclass(frozen=True)
class Push:
    """How directions are pushed.

    Where the mesh of a training has an axis for them, directions are cut over it, filled up to a
    number that it divides with those of zeros.

    Attributes:
        segment: inner steps per compiled program.
        chunk: directions at a time, each chunk through a training of its own; None for all.
        clip: largest global norm of the tangent of an inner gradient; None for no clipping.
        budget_bytes: what the tangents may take; None for what is free on the device.
    """

    segment: int
    chunk: int | None
    clip: float | None
    budget_bytes: int | None

    def __call__(self, job: Job, directions: Float[Array, "n N"], onsets: Sequence[int]) -> Pushed:
        """Pushes directions through the training of a job.

        Args:
            job: the training and its objective.
            directions: in the coordinates of η, a row each.
            onsets: the inner step that each first acts in, [n], in ascending order.

        Raises:
            EstimatorError: a training that forward mode can't differentiate, or a carry of another
                job; see also `refuse`.
        """
        axis, asked = member_axis(job.state), len(directions)
        onsets = filled_up(onsets, axis)
        directions = jnp.pad(directions, ((0, len(onsets) - asked), (0, 0)))
        size = min(self.chunk or len(directions), len(directions))
        carry = _begun(job, directions, size)
        while True:
            rows = slice(len(carry.derivatives), len(carry.derivatives) + size)
            passes = -(-len(directions) // size), len(carry.derivatives) // size
            chunk = _Chunk(self, job, directions[rows], onsets[rows], passes, axis)
            carry = chunk.train(carry)
            derivatives = jnp.concatenate([carry.derivatives, carry.along])
            if len(derivatives) == len(directions):
                losses = jnp.concatenate(carry.losses)
                growth = self._growth(
                    job, [onsets[at : at + size] for at in range(0, len(directions), size)], carry
                )
                return Pushed(carry.value, derivatives[:asked], carry.state, losses, growth)
            left = len(directions) - len(derivatives)
            carry = _of_chunk(job, derivatives, min(size, left), carry.norms)

    def _growth(self, job: Job, onsets: Sequence[Sequence[int]], carry: Carry) -> Growth:
        """That of all chunks, at those boundaries that each of them has."""
        found = []
        for begun, norms in zip(onsets, carry.norms, strict=True):
            steps = [job.start, *(cut.stop for cut in cuts(job, begun, self.segment))]
            undamped = jnp.zeros(len(steps) - 1)
            params, opt_state = jnp.stack(norms, axis=1)
            found.append(Growth(np.asarray(steps), params, opt_state, undamped, tangents=True))
        shared = reduce(np.intersect1d, [growth.steps for growth in found])
        first, *others = (growth.at(shared) for growth in found)
        return first._replace(
            params=reduce(jnp.hypot, [growth.params for growth in others], first.params),
            opt_state=reduce(jnp.hypot, [growth.opt_state for growth in others], first.opt_state),
        )

    def refuse(self, job: Job, onsets: Sequence[int]) -> None:
        """Refuses, before any inner step, what can't be done.

        Args:
            job: the training and its objective.
            onsets: of directions, as of `__call__`.

        Raises:
            EstimatorError: the tangents that a device has exceed the budget, or a chunk isn't
                divided by the axis that directions are cut over, or the job has checkpoints.
        """
        refuse_checkpoints(job)
        axis = member_axis(job.state)
        if self.chunk is not None and self.chunk % axis.parts:
            raise EstimatorError(
                f"chunk = {self.chunk}: the mesh cuts directions into members = {axis.parts} "
                f"parts, which don't divide it; set chunk to {axis.filled_up(self.chunk)}"
            )
        count = len(onsets)
        size, held = min(self.chunk or count, count), self._held(job, onsets)
        one = device_bytes((job.state.params, inexact(job.state.opt_state)[0]))
        budget = self.budget_bytes or Device().free_bytes()
        if held * one > budget:
            of_each = f", {held} of them on a device," if held < size else ""
            fewer = max(1, size // held * (budget // one))
            raise EstimatorError(
                f"{size} tangents at a time (of {count} directions){of_each} of {amount(one)} each "
                f"take {amount(held * one)}, but the budget is {amount(budget)}: set chunk to "
                f"{axis.filled_up(fewer)} or fewer, which takes a training for each chunk, use "
                "forward_gradient with few directions, or mixflow, whose memory doesn't grow with "
                "the number of meta-parameters"
            )

    def _held(self, job: Job, onsets: Sequence[int]) -> int:
        """Tangents that a device has at a time at most, with those that don't act yet."""
        axis, held = member_axis(job.state), 0
        onsets = filled_up(onsets, axis)
        size = min(self.chunk or len(onsets), len(onsets))
        for at in range(0, len(onsets), size):
            chunk = onsets[at : at + size]
            mesh = own_mesh(job, [cut.active for cut in cuts(job, chunk, self.segment, axis)])
            held = max(held, -(-len(chunk) // (axis.parts if mesh is None else mesh.size)))
        return held


class _Chunk:
    """Directions that are pushed together."""

    def __init__(
        self,
        how: Push,
        job: Job,
        directions: Float[Array, "n N"],
        onsets: Sequence[int],
        passes: tuple[int, int],
        axis: MemberAxis,
    ):
        """Prepares.

        Args:
            how: how they are pushed.
            job: the training and its objective.
            directions: in the coordinates of η, a row each.
            onsets: their first steps.
            passes: how many trainings all chunks take, and how many have been.
            axis: that directions are cut over, where the training lies on several devices.
        """
        self.how, self.job, self.count = how, job, len(directions)
        self.passes, self.passed = passes
        self.axis, self.cuts = axis, list(cuts(job, onsets, how.segment, axis))
        self.mesh = own_mesh(job, [cut.active for cut in self.cuts])
        self.problem, self.eta, self.directions = self.replicate((job.problem, job.eta, directions))

    def replicate(self, tree: Tree) -> Tree:
        """Puts arrays on all devices."""
        return replicate(tree, self.mesh)

    def train(self, carry: Carry) -> Carry:
        """From wherever it is to the end."""
        job = self.job
        carry = carry._replace(state=self.replicate(carry.state))
        with explain_custom_vjp():
            for cut in self.cuts:
                if cut.first >= carry.step:
                    carry = self._with_objective(self._advance(carry, cut))
                    step = self.passed * job.steps + cut.stop - job.start
                    steps = self.passes * job.steps
                    job.tell("forward", step, carry.losses[-1], steps=steps, carry=carry)
        return carry._replace(state=gather(carry.state, self.mesh, like=job.state))

    def _with_objective(self, carry: Carry) -> Carry:
        """With what the objective adds, if this is a point of it."""
        job = self.job
        if carry.step not in job.points:
            return carry
        state = gather(carry.state, self.mesh, like=job.state)
        added, *bar = job.objective(state, job.points[carry.step])
        found = jnp.zeros(0, self.directions.dtype)
        if carry.tangents is not None:
            found = programs.contract(self.mesh, self.replicate(tuple(bar)), carry.tangents)
            found = local(found, self.mesh).astype(self.directions.dtype)
        # Directions that haven't acted have no tangents, and no effect.
        found = jnp.pad(found, (0, self.count - len(found)))
        return carry._replace(value=carry.value + added, along=carry.along + found)

    def _advance(self, carry: Carry, cut: Cut) -> Carry:
        """Through a segment."""
        own = self.mesh
        segment = self.replicate(fetch(self.job.batches, cut.first, cut.stop, self.how.segment))
        state, tangents, norms = carry.state, carry.tangents, carry.norms[-1]
        if cut.active:
            if cut.first == 0 and self.job.start_counts:
                tangents = self._at_the_start(cut.active)
            widened = _widened(tangents, cut.active, state, self.axis if own is None else None)
            tangents = shard(widened, own)
            norms = norms or (self._norms(tangents),)
            state, tangents, losses = programs.push(
                self.problem,
                self.how.clip,
                self.axis if own is None else own,
                self.eta,
                self.directions[: cut.active],
                state,
                tangents,
                segment,
            )
        else:
            state, losses = programs.advance(self.problem, self.eta, state, segment)
        # One segment waits in the queue while another runs; more would hold on to their batches.
        jax.block_until_ready(carry.losses[-1:])
        losses = local(losses, self.mesh)[: cut.stop - cut.first]
        norms = (*(norms or (self._norms(None),)), self._norms(tangents))
        return carry._replace(
            step=cut.stop,
            state=state,
            tangents=tangents,
            losses=(*carry.losses, losses),
            norms=(*carry.norms[:-1], norms),
        )

    def _norms(self, tangents: Tangents | None) -> Float[Array, "2"]:
        """Of the two parts of the tangents, [2]; None for none, as none has begun."""
        if tangents is None:
            return jnp.zeros(2)
        return local(programs.norms(self.mesh, tangents), self.mesh)

    def _at_the_start(self, active: int) -> Tangents:
        """The tangents of the first directions where η moves the state that steps begin with."""
        given = self.replicate(self.job.state)
        along = self.directions[:active]
        return programs.start_pushed(self.problem, self.eta, along, given, self.axis.name)


def refuse_checkpoints(job: Job) -> None:
    """Refuses a choice that would have no effect.

    Raises:
        EstimatorError: the job has checkpoints to keep.
    """
    if job.checkpoints != Checkpoints():
        raise EstimatorError(
            "only reverse mode keeps states for a backward sweep: leave checkpoints out, or use "
            "mixflow"
        )


def _of_chunk(
    job: Job,
    derivatives: Float[Array, "finished"],
    count: int,
    norms: tuple[tuple[Float[Array, "2"], ...], ...] = (),
) -> Carry:
    """Where a chunk of so many directions begins, after those with these derivatives and norms."""
    along, begun = jnp.zeros(count, derivatives.dtype), _copied(job.begin())
    return Carry(derivatives, job.start, begun, None, (), jnp.zeros(()), along, (*norms, ()))


def _begun(job: Job, directions: Float[Array, "n N"], size: int) -> Carry:
    """Where the estimate begins, or goes on; `size` directions at a time."""
    if job.carry is None:
        return _of_chunk(job, jnp.zeros(0, directions.dtype), size)
    carry = Carry(*job.carry)
    if not job.start < int(carry.step) <= job.stop or len(carry.derivatives) >= len(directions):
        raise EstimatorError(
            f"a carry at step {carry.step} with {len(carry.derivatives)} derivatives is none of an "
            f"estimate from step {job.start} to {job.stop} along {len(directions)} directions: "
            "give the arguments that it was made with"
        )
    return Carry(
        jnp.asarray(carry.derivatives),
        int(carry.step),
        _copied(carry.state),
        _copied(carry.tangents),
        tuple(jnp.asarray(losses) for losses in carry.losses),
        jnp.asarray(carry.value),
        jnp.asarray(carry.along),
        tuple(tuple(map(jnp.asarray, norms)) for norms in carry.norms),
    )


def filled_up(onsets: Sequence[int], axis: MemberAxis) -> list[int]:
    """Onsets of directions, and of those of zeros that fill them up, with the last of them."""
    further = axis.filled_up(len(onsets)) - len(onsets)
    return [*onsets, *[onsets[-1]] * further]


def own_mesh(job: Job, active: Sequence[int]) -> Mesh | None:
    """The devices that directions of a chunk are spread over, each with a whole training.

    Args:
        job: of a training.
        active: how many of them act, of each cut.
    """
    together = gcd(*active)
    return mesh_for(together, (job.problem, job.eta, job.state)) if together else None


def cuts(
    job: Job, onsets: Sequence[int], segment: int, axis: MemberAxis = TOGETHER
) -> Iterator[Cut]:
    """Segments, cut where directions begin to act.

    Each with a number of directions that an axis divides: those that act later are pushed as zeros.
    """
    edges = {job.start, *(max(job.start, at) for at in onsets if at < job.stop), job.stop}
    edges |= {point for point in job.points if job.start < point < job.stop}
    for lo, hi in pairwise(sorted(edges)):
        active = axis.filled_up(sum(at <= lo for at in onsets))
        yield from (Cut(first, stop, active) for first, stop in bounds(lo, hi, segment))


def _widened(
    tangents: Tangents | None, active: int, state: State, axis: MemberAxis | None
) -> Tangents:
    """Tangents with further directions, which begin at zero.

    On several devices each lies as what it is the tangent of, cut over an axis; None where
    directions are spread over a mesh of their own.
    """
    floats = Tangents(state.params, inexact(state.opt_state)[0])

    def place(like: Float[Array, "*shape"]) -> NamedSharding | None:
        traced = axis is None or isinstance(like, Tracer)
        return None if traced else stacked_place(like.sharding, axis)

    if tangents is None:
        return jax.tree.map(
            lambda like: jnp.zeros((active, *like.shape), like.dtype, device=place(like)), floats
        )

    def widened(
        leaf: Float[Array, "begun *shape"], like: Float[Array, "*shape"]
    ) -> Float[Array, "active *shape"]:
        further = active - len(leaf)
        if not further:
            return leaf
        wide = jnp.pad(leaf, ((0, further), *((0, 0),) * (leaf.ndim - 1)))
        there = place(like)
        return wide if there is None else jax.device_put(wide, there)

    return jax.tree.map(widened, tangents, floats)


def _copied(tree: Tree) -> Tree:
    """A copy, whose memory may be given away."""
    return jax.tree.map(jnp.copy, tree)


@contextmanager
def explain_custom_vjp() -> Iterator[None]:
    """Says what to do about a function that has no forward mode."""
    try:
        yield
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise EstimatorError(
            "forward mode can't differentiate the update, the hyperparameters or the gradient of "
            "the loss: it comes upon a function with a custom_vjp; use "
            "MixFlow(mixed_mode=False) or Reverse, or write the function with jax.custom_jvp"
        ) from error
