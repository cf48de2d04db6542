"""Persistent evolution strategies: hypergradients of a training that lives on, by values alone.

A derivative through the latest window of a long training leaves out what η did before. Here pairs
of trainings live on from window to window, and each keeps the sum ξ of its perturbations of η in
all windows so far. With ε_i = σ v_i that of the latest window,

    g = 1/(2 N σ²) · Σ_i ξ_i (F(η + ε_i) - F(η - ε_i))

has the derivative of the smoothed objective in the mean, through all windows since the trainings
began: the loss moves with each of the perturbations that led to it, whenever that was. Directions
of another distribution than the normal one leave a bias of O(σ²), as of `ZerothOrder`; and the
windows so far ran at the η of then, which is as if it had always been that of now while η moves
slowly. The variance grows with the number of windows.

Source: Vicol, Metz & Sohl-Dickstein, Unbiased Gradient Estimation in Unrolled Computation Graphs
with Persistent Evolution Strategies, ICML 2021, algorithm 2.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Shaped

from metatune.hypergrad.estimator import EstimatorError, Job, refuse_not_positive
from metatune.hypergrad.forward.directions import Distribution, draw, mean, refuse_unknown
from metatune.hypergrad.forward.pairs import compared
from metatune.hypergrad.forward.push import refuse_checkpoints
from metatune.hypergrad.forward.zeroth_order import Trainings
from metatune.hypergrad.problem import Diagnostics, Hypergradient, State
from metatune.hypergrad.shapes import Eta, Leaf, OptState


class Lived(NamedTuple):
    """What takes the place of the optimizer state in the state of trainings that live on.

    The parameters beside it are those of N pairs of trainings, [2, N, ...]: on axis 0 the side.

    Attributes:
        opt_state: optimizer states of the same trainings, [2, N, ...].
        total: sums ξ of the perturbations of the first side; those of the other are -ξ.
    """

    opt_state: OptState
    total: Float[Array, "N n"]


@dataclass(frozen=True)
class PersistentES:
    """The mean of ξ (F(η + ε) - F(η - ε)) / 2σ² over pairs of trainings that live on.

    Given the state of one training, the pairs begin there; given the state that it returned, with
    the next inner step for `start`, they go on. There is no training at η: value and inner losses
    are means over the trainings that haven't diverged. What a diverged one counts as `pairs` says,
    and for how long: until the pairs begin anew. Needs the `key` of `hypergradient`.

    Attributes:
        pairs: how many, N.
        step: σ, in the unconstrained coordinates of η: the objective is smoothed over so much.
        segment: inner steps per compiled program.
        distribution: `gaussian`, without a bias but that of smoothing, `rademacher` or `orthogonal`
            of perturbations, as of `ForwardGradient`.
        chunk: pairs at a time; states are kept of all.
    """

    pairs: int
    step: float = 0.1
    segment: int = 16
    distribution: Distribution = "gaussian"
    chunk: int = 1
    backward: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    def __post_init__(self):
        """Refuses what can't be meant."""
        refuse_unknown(self.distribution)
        refuse_not_positive(
            pairs=self.pairs, step=self.step, segment=self.segment, chunk=self.chunk
        )

    def begun(self, eta: Eta, state: State) -> State:
        """Pairs that haven't lived yet.

        Args:
            eta: meta-parameters η, n coordinates in all.
            state: of one training, where they begin.

        Returns:
            Their state, of the form that an estimate returns.
        """

        def of_all(leaf: Shaped[Leaf, "*shape"]) -> Shaped[Array, "2 pairs *shape"]:
            return jnp.broadcast_to(leaf, (2, self.pairs, *jnp.shape(leaf)))

        flat, _ = ravel_pytree(eta)
        params, opt_state = jax.tree.map(of_all, state)
        return State(params, Lived(opt_state, jnp.zeros((self.pairs, len(flat)), flat.dtype)))

    def estimate(self, job: Job) -> Hypergradient:
        """Unbiased for the smoothed objective where η rests; its errors are in the diagnostics.

        Not a number where both sides of every pair diverged.

        Raises:
            EstimatorError: no key, too many orthogonal directions, checkpoints or a carry; pairs of
                another number, or that would be differentiated through a part of their steps.
        """
        refuse_checkpoints(job)
        if job.carry is not None:
            raise EstimatorError("PersistentES can't go on from a carry: leave it out")
        directions = draw(job.key, job.eta, self.pairs, self.distribution)
        chunks = -(-self.pairs // self.chunk)
        trainings = Trainings(job, self.segment, chunks, alone=job.first - job.start)
        base, before, early = None, [], jnp.zeros(())
        total = self.step * directions
        if isinstance(job.state.opt_state, Lived):
            self._refuse_others(job)
            total = job.state.opt_state.total + total
        else:
            base, before, early = trainings.before()
        states, losses, values = [], [], []
        for at in range(0, self.pairs, self.chunk):
            rows = slice(at, at + self.chunk)
            along = directions[rows]
            if base is None:
                given = _chosen(job.state, rows)
            else:
                given = trainings.begun(base, along, self.step)
            after, found, sides = trainings.sides(given, along, self.step)
            states.append(after)
            losses.append(found)
            values.append(sides)
        pairs = compared(jnp.concatenate(values))
        gradient, errors = mean(
            job.eta,
            (pairs.differences / (2 * self.step)).astype(directions.dtype),
            total / self.step,
            # Sums over windows are no part of a basis.
            "gaussian" if base is None else self.distribution,
            kept=pairs.kept,
        )
        params, opt_state = _together(states)
        diagnostics = Diagnostics(
            jnp.concatenate([*before, _sound_mean(jnp.concatenate(losses))]),
            standard_errors=errors,
            lost_directions=jnp.sum(~pairs.kept),
            diverged_sides=pairs.diverged,
        )
        state = State(params, Lived(opt_state, total))
        return Hypergradient(early + pairs.mean, gradient, state, diagnostics)

    def _refuse_others(self, job: Job) -> None:
        """Refuses pairs that can't go on as asked."""
        count, size = job.state.opt_state.total.shape
        coordinates = sum(jnp.size(leaf) for leaf in jax.tree.leaves(job.eta))
        if (count, size) != (self.pairs, coordinates):
            raise EstimatorError(
                f"{count} pairs of trainings with {size} meta-parameters can't go on as "
                f"{self.pairs} pairs with {coordinates}: give the estimator and η that they were "
                "begun with, or the state of one training to begin anew"
            )
        if job.first > job.start:
            raise EstimatorError(
                f"pairs that live on are perturbed in all of their inner steps, {job.steps}, not "
                f"in the last {job.stop - job.first} alone: leave window out"
            )


def _chosen(state: State, rows: slice) -> State:
    """Those of some pairs, of [2, N, ...], as trainings side by side, [2n, ...]."""
    trained = State(state.params, state.opt_state.opt_state)
    return jax.tree.map(lambda leaf: leaf[:, rows].reshape(-1, *leaf.shape[2:]), trained)


def _together(states: list[State]) -> State:
    """All pairs, [2, N, ...], of trainings side by side, [2n, ...] each."""

    def joined(*leaves: Shaped[Array, "..."]) -> Shaped[Array, "2 N ..."]:
        return jnp.concatenate([leaf.reshape(2, -1, *leaf.shape[1:]) for leaf in leaves], axis=1)

    return jax.tree.map(joined, *states)


def _sound_mean(losses: Float[Array, "n steps"]) -> Float[Array, "steps"]:
    """The mean over those losses that are finite; none is no number."""
    sound = jnp.isfinite(losses)
    count = jnp.sum(sound, axis=0).astype(losses.dtype)
    return jnp.sum(jnp.where(sound, losses, 0), axis=0) / count
