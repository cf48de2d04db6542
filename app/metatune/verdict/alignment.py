"""Gradient alignment: one training that moves its own mixture towards what serves the target.

The mixture weighs the domains' losses on batches that hold all of them, which in the mean is the
training at that mixture. Every few steps the gradient of each domain's loss in the unembedding, the
LM head, is multiplied with that of the objective on held-out text: a step of the training along the
gradient of domain d lowers the objective by the rate times that product, to first order. So the
logits z of the mixture p = softmax(z) follow, by Adam,

    dF/dz_i = -rate Σ_d <g_d, g_F> dp_d/dz_i = -rate p_i (<g_i, g_F> - Σ_d p_d <g_d, g_F>).

The mixture that the training ends with is what is found.

Source: Tan et al., FastMix: Fast Data Mixture Optimization via Gradient Descent, ICLR 2026, arXiv
2606.14971, and its repository hrtan/fastmix, whose README and `pretrain/train_fastmix_val.py` say
what the abstract doesn't: that gradients are those of the LM head alone, on a batch of each source
and on one of validation text; that their products are not normalised; that the logits are moved by
AdamW without decay (b1 0.9, b2 0.95) while training goes on with the softmax as weights of the
losses; and that this is done at regular intervals. There the logits begin equal; here, too. How far
they may go is in this training's own measure: a step of Adam times their number is `reach`.
"""

from dataclasses import replace
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from metatune.data import Batch, stratified_batches
from metatune.hypergrad import Problem, as_argument, train
from metatune.hypergrad.estimator import Listener
from metatune.inner import InnerTraining
from metatune.inner.metrics import held_out_batches
from metatune.inner.seeds import Purpose, Stream, data_seed, model_key
from metatune.ladder.measuring import Followed
from metatune.train.schedules import SegmentSchedules, scheduled
from metatune.tunables import Hyper
from metatune.verdict.contestants.contestant import ALIGNED_EVERY

BETAS: Final = (0.9, 0.95)
"""Of Adam on the logits, as the source has them."""

HEADS: Final = (("lm_head", "weight"), ("model", "embed_tokens", "weight"))
"""Where the unembedding is among the parameters: by itself, or the embedding's."""


def refusal(training: InnerTraining) -> str | None:
    """Why a training can't align gradients; None where it can."""
    if head_of(training.names) is None:
        return "the LM head isn't trained, whose gradients are aligned"
    if (measure := training.recipe.outer.objective.measure) != "loss":
        return f"the objective, {measure}, has no gradient to align with"
    return None


def head_of(tree: Any) -> tuple[str, ...] | None:
    """The path of the unembedding in a tree like the trained parameters; None where it has none."""
    for path in HEADS:
        found = tree
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            return path
    return None


def aligned(
    followed: Followed, index: int, reach: float, listener: Listener | None = None
) -> tuple[float, ...]:
    """The mixture that a training comes to which aligns gradients.

    Args:
        followed: the training by the recipe's own schedules.
        index: of the validation trainings, which: initialisation and data order.
        reach: how far a logit goes that always goes one way.
        listener: is told where the training stands.

    Returns:
        Shares of the domains, which sum to one; empty where the training diverged.
    """
    training, schedules, segment = followed
    recipe, corpus = training.recipe, training.corpus
    steps, count = recipe.inner.steps, len(corpus.names)
    uniform = np.full((steps, count), 1 / count)
    batches = stratified_batches(
        corpus,
        seed=data_seed(recipe.seed, Purpose.VALIDATION, index, Stream.TRAINING),
        batch_size=recipe.data.batch_size,
        shares=uniform,
    )
    hyper_at = scheduled(training, schedules.tuned).hyper_at
    problem = as_argument(replace(training.reweighted, hyper_at=hyper_at, start=None))
    stretch = min(ALIGNED_EVERY, segment)
    moves = optax.adam(reach / -(-steps // stretch), *BETAS)
    logits = jnp.zeros(count, jnp.float32)
    moved = moves.init(logits)
    state = training.initialise(model_key(recipe.seed, Purpose.VALIDATION, index))
    for first in range(0, steps, stretch):
        seed = data_seed(recipe.seed, Purpose.VALIDATION, index, Stream.HELD_OUT, first)
        (held_out, *_) = held_out_batches(
            recipe.outer,
            corpus,
            "validation",
            seed=seed,
            sequences=recipe.outer.objective.micro_batch,
        )
        at = _mixed(schedules.segment(first), logits)
        hyper = jax.tree.map(lambda leaf: leaf[0], at.hyper)
        gradient = _gradient(problem, logits, state.params, hyper, batches(first), held_out)
        updates, moved = moves.update(gradient, moved)
        logits = jnp.asarray(optax.apply_updates(logits, updates))
        state, losses = train(
            problem,
            _mixed(at, logits),
            state,
            batches,
            steps=min(stretch, steps - first),
            start=first,
            segment=stretch,
            donate=True,
            listener=listener,
        )
        if not np.isfinite(np.asarray([*losses, *logits])).all():
            return ()
    shares = np.asarray(jax.nn.softmax(logits), np.float64)
    return tuple(map(float, shares / shares.sum()))


def _mixed(segment: SegmentSchedules, logits: jax.Array) -> SegmentSchedules:
    """The same steps at another mixture."""
    shares = jax.nn.softmax(logits)
    own = jnp.asarray(segment.hyper.mixture)
    mixture = jnp.broadcast_to(shares[None, :], own.shape).astype(own.dtype)
    return segment._replace(hyper=segment.hyper._replace(mixture=mixture))


@jax.jit
def _gradient(
    problem: Problem,
    logits: Float[Array, "domains"],
    params: Any,
    hyper: Hyper,
    batch: Batch,
    held_out: Batch,
) -> Float[Array, "domains"]:
    """Of the objective in the logits, after a step of plain descent on the LM head."""
    path = head_of(params)
    assert path is not None, "a training whose head isn't trained is refused"

    def with_head(head: Any) -> Any:
        return _with(params, path, head)

    def objective(head: Any) -> jax.Array:
        found = problem.objective(with_head(head), held_out)
        return found if problem.whole is None else problem.whole(found)

    def loss(head: Any, shares: jax.Array) -> jax.Array:
        own = hyper._replace(mixture=shares, loss_weights=jnp.ones_like(hyper.loss_weights))
        return problem.loss(with_head(head), own, batch)

    head = _at(params, path)
    target = jax.grad(objective)(head)
    products = jax.lax.map(
        lambda one: jnp.vdot(jax.grad(loss)(head, one), target), jnp.eye(len(logits))
    )
    rate = jnp.mean(_at(hyper.learning_rate, path))
    shares = jax.nn.softmax(logits)
    return -rate * shares * (products - shares @ products)


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _with(tree: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    return {**tree, path[0]: _with(tree[path[0]], path[1:], value)}
