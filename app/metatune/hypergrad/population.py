"""A population: several inner trainings, of other seeds and ages, with one η.

M trainings side by side are a `Problem` themselves. States and M copies of η are stacked on a first
axis; loss and objective are the sums of theirs, so that each training has its own gradient, and the
derivative of the sum in the copies of η is the M hypergradients. Nothing else is asked of an
estimator, nor of a policy for checkpoints.

Source: Calian et al., DataRater: Meta-Learned Dataset Curation, 2025 (there eight trainings).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

from metatune.hypergrad.driver import KEEP_ALL, hypergradient
from metatune.hypergrad.estimator import Estimator, EstimatorError, Listener
from metatune.hypergrad.problem import (
    Batches,
    Growth,
    Hypergradient,
    Problem,
    Progress,
    State,
)
from metatune.hypergrad.reverse.checkpoints import Checkpoints
from metatune.hypergrad.shapes import (
    Batch,
    Eta,
    Tree,
)
from metatune.hypergrad.sharding import gather, mesh_for, replicate, shard
from metatune.hypergrad.stacking import side_by_side, stack, stacked

NONE = State((), ())


class Member(NamedTuple):
    """A training of a population.

    Attributes:
        begin: makes the state before inner step `start`.
        batches: the batch of an inner step of its own.
        start: its first inner step.
        key: where an estimator that draws directions takes its randomness from.
        problem: of its own, such as that of a larger model, in the same η; None for that of all.
    """

    begin: Callable[[], State]
    batches: Batches
    start: int = 0
    key: Key[Array, ""] | None = None
    problem: Problem | None = None


def hypergradients(
    problem: Problem,
    eta: Eta,
    members: Sequence[Member],
    outer_batches: Sequence[Batch],
    *,
    steps: int,
    estimator: Estimator,
    vmap: bool = True,
    states: bool = True,
    window: int | None = None,
    points: Mapping[int, float] | None = None,
    checkpoints: Checkpoints = KEEP_ALL,
    control: Eta | None = None,
    listener: Listener | None = None,
) -> Hypergradient:
    """The hypergradients of a population, each of a training of its own.

        g = 1/M Σ_m dF_m/dη,  standard error s / √M

    F_m is the objective after the training of member m of the M `members`, which starts from its
    own state, at its own step, and reads its own batches; s is the standard deviation of the M
    hypergradients, of each coordinate of `eta` by itself.

    Bias: that of `estimator`; of the objective's mean over seeds and ages, none besides. Cost: M
    times that of one, in the memory of M with `vmap`, of one without.

    >>> import jax.numpy as jnp
    >>> from metatune.hypergrad import Member, MixFlow, Problem, State, hypergradients
    >>> problem = Problem(
    ...     loss=lambda theta, rate, x: (theta - x) ** 2 / 2,
    ...     update=lambda g, state, theta, rate: (theta - rate * g, state),
    ...     objective=lambda theta, x: (theta - x) ** 2 / 2,
    ...     hyper_at=lambda eta, step: jnp.exp(eta),
    ... )
    >>> def member(theta):
    ...     return Member(lambda: State(jnp.array(theta), ()), lambda step: jnp.zeros(1))
    >>> found = hypergradients(
    ...     problem, jnp.log(0.1), [member(1.0), member(2.0)], [jnp.array(0.0)], steps=3,
    ...     estimator=MixFlow(),
    ... )
    >>> [round(each, 4) for each in found.diagnostics.members.tolist()]  # -3 θ² exp η (1 - exp η)⁵
    [-0.1771, -0.7086]
    >>> round(float(found.gradient), 4)
    -0.4429

    Source: Calian et al., DataRater: Meta-Learned Dataset Curation, 2025 (there eight trainings).

    Args:
        problem: of each training that has none of its own.
        eta: meta-parameters η, those of all.
        members: the trainings, two or more.
        outer_batches: held-out batches, those of all.
        steps: as for `hypergradient`, those of all; so are `estimator`, `window`, `points` and
            `checkpoints`.
        estimator: how to differentiate.
        vmap: all in one program, in the memory of all, spread over as many local devices as divide
            them, or, where each lies on several, over the axis of its mesh for them; otherwise one
            after the other, in the memory of one beside what is returned.
        states: return the trained states, stacked, [M, ...]; otherwise none.
        window: of the steps, those at the end that are differentiated.
        points: where the objective is taken, and its weight there.
        checkpoints: which states between segments are kept, and where.
        control: as for `hypergradient`; one after the other only.
        listener: as for `hypergradient`.

    Returns:
        The means of value, gradient, losses and control; in the diagnostics the `members`'
        gradients, [M, ...], and the standard errors of their mean; one after the other, the values
        of each, too.

    Raises:
        ValueError: fewer than two members, or not divided by the axis of the mesh for them;
            problems of their own, with `vmap` or `states`.
        EstimatorError: random directions through all members at once; and as `hypergradient`.
    """
    if len(members) < 2:
        raise ValueError(f"a population of {len(members)}: must have two members or more")
    if (vmap or states) and any(each.problem is not None for each in members):
        raise ValueError(
            "members with problems of their own have states of other shapes: they are taken with "
            "vmap=False, states=False"
        )
    estimate = partial(
        hypergradient,
        outer_batches=outer_batches,
        steps=steps,
        estimator=estimator,
        window=window,
        points=points,
        checkpoints=checkpoints,
    )
    if not vmap:
        estimate = partial(estimate, control=control)
        return _one_by_one(estimate, problem, eta, members, states, listener)
    if estimator.draws:
        raise EstimatorError(
            "random directions in the meta-parameters of all members at once would add the noise "
            "of each to all others: take them one after the other, vmap=False"
        )
    found = _at_once(estimate, problem, eta, members, listener)
    return found if states else found._replace(state=NONE)


def standard_errors(gradients: Eta) -> Eta:
    """Of the mean over the members of a stacked pytree, `s / √M`."""

    def error(leaf: Float[Array, "M *shape"]) -> Float[Array, "*shape"]:
        return jnp.std(leaf, axis=0, ddof=1) / jnp.sqrt(len(leaf)).astype(leaf.dtype)

    return jax.tree.map(error, gradients)


def signal(gradients: Float[np.ndarray, "M n"]) -> Float[np.ndarray, "moving"]:
    """Signal to noise of each coordinate, `|mean| / standard error`.

    Args:
        gradients: of M trainings.

    Returns:
        Of the coordinates that aren't zero throughout, at most n; infinite without any noise.
    """
    mean = gradients.mean(0)
    error = gradients.std(0, ddof=1) / np.sqrt(len(gradients))
    moving = (mean != 0) | (error != 0)
    with np.errstate(divide="ignore"):
        return np.abs(mean[moving]) / error[moving]


def _at_once(
    estimate: Callable[..., Hypergradient],
    problem: Problem,
    eta: Eta,
    members: Sequence[Member],
    listener: Listener | None,
) -> Hypergradient:
    count = len(members)
    whole, axis = side_by_side(count, lambda number: members[number].begin())
    begun = [whole]
    del whole  # not held here while it is trained on
    mesh = mesh_for(count, (problem, eta, begun), one_process=True)
    starts = jnp.asarray([each.start for each in members], jnp.int32)

    def batches(step: int) -> Batch:
        drawn = [each.batches(each.start + step) for each in members]
        return shard(stack(drawn, batches=True), mesh, axis=1)

    def mean(heard: Progress) -> None:
        if listener is not None:
            listener(heard._replace(loss=heard.loss / count))  # of the sum

    found = estimate(
        replicate(stacked(problem, starts, axis), mesh),
        shard(stack([eta] * count), mesh),
        shard(begun.pop(), mesh),
        batches,
        listener=listener and mean,
    )
    gradients = gather(found.gradient, mesh)
    return Hypergradient(
        gather(found.value, mesh) / count,
        _mean(gradients),
        found.state,
        found.diagnostics._replace(
            losses=gather(found.diagnostics.losses, mesh) / count,
            standard_errors=standard_errors(gradients),
            members=gradients,
        ),
    )


def _one_by_one(
    estimate: Callable[..., Hypergradient],
    problem: Problem,
    eta: Eta,
    members: Sequence[Member],
    states: bool,
    listener: Listener | None,
) -> Hypergradient:
    found: list[Hypergradient] = []

    def over_all(heard: Progress) -> None:
        if listener is not None:
            before = len(found) * heard.steps
            total = len(members) * heard.steps
            listener(heard._replace(step=before + heard.step, steps=total))

    for each in members:
        result = estimate(
            problem if each.problem is None else each.problem,
            eta,
            each.begin(),
            each.batches,
            start=each.start,
            key=each.key,
            listener=listener and over_all,
        )
        jax.block_until_ready(result)  # else the next begins in the memory of this one
        found.append(result if states else result._replace(state=NONE))
    gradients = stack([result.gradient for result in found])
    seen = [result.diagnostics for result in found]
    values = jnp.stack([result.value for result in found])
    return Hypergradient(
        jnp.mean(values),
        _mean(gradients),
        stack([result.state for result in found]),
        seen[0]._replace(
            losses=jnp.mean(jnp.stack([each.losses for each in seen]), axis=0),
            peak_states=max(each.peak_states for each in seen),
            peak_bytes=max(each.peak_bytes for each in seen),
            recomputed_segments=sum(each.recomputed_segments for each in seen),
            standard_errors=standard_errors(gradients),
            control=_mean(stack([each.control for each in seen])),
            lost_directions=_in_all([each.lost_directions for each in seen]),
            diverged_sides=_in_all([each.diverged_sides for each in seen]),
            members=gradients,
            values=values,
            growth=_side_by_side([each.growth for each in seen]),
        ),
    )


def _in_all(
    counts: Sequence[int | Integer[Array | np.integer, ""] | None],
) -> int | Integer[Array | np.integer, ""] | None:
    """The sum over all members; None where nothing is counted."""
    known = [count for count in counts if count is not None]
    return sum(known[1:], start=known[0]) if known else None


def _side_by_side(found: Sequence[Growth | None]) -> Growth | None:
    """The growth of trainings of one length, each by itself, from where it was counted alike."""
    each = [growth._replace(steps=growth.steps - growth.steps[0]) for growth in found if growth]
    if not each:
        return None
    # In forward mode segments are cut where directions begin, at another age elsewhere.
    shared = reduce(np.intersect1d, [growth.steps for growth in each])
    params, opt_state, damped = (
        jnp.stack(parts, axis=1)
        for parts in zip(*(growth.at(shared)[1:4] for growth in each), strict=True)
    )
    return Growth(shared, params, opt_state, damped, each[0].tangents)


def _mean(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), tree)
