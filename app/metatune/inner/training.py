"""The inner training of a recipe, ready to run and to be differentiated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metatune import data, models, tunables
from metatune.hypergrad import Problem, State
from metatune.inner import losses, optimizers, schedules
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.schema import Recipe
from metatune.tunables import Hyper, Tunable
from metatune.tunables.mixture import starting_shares


class Trajectory(NamedTuple):
    """The hyperparameters of every inner step, float32 numbers held as float64.

    Attributes:
        learning_rates: absolute rate of each update by checkpoint name, [steps] each.
        mixture: shares of the domains, [steps, domains]; rows sum to one in float64.
        loss_weights: weights of the domains' losses, [steps, domains], rows average one.
    """

    learning_rates: Mapping[str, np.ndarray]
    mixture: np.ndarray
    loss_weights: np.ndarray


@dataclass(frozen=True, eq=False)
class InnerTraining:
    """A recipe's inner training.

    Attributes:
        recipe: the recipe.
        model: the language model.
        corpus: the domains, cut into windows and splits.
        tunables: what is tuned; η has a slice for each, by key.
        names: `ParameterNames` at the leaves of a tree like the parameters.
        reweighted: the training on stratified batches, differentiable by the mixture.
        sampled: the same training on batches drawn at the mixture's shares.
        initialise: a key to a freshly initialised state; compiled.
        hyper_over: η to the hyperparameters of all inner steps, stacked on axis 0; compiled.
    """

    recipe: Recipe
    model: models.LanguageModel
    corpus: data.Corpus
    tunables: tuple[Tunable, ...]
    names: Any
    reweighted: Problem
    sampled: Problem
    initialise: Callable[[jax.Array], State]
    hyper_over: Callable[[Mapping[str, jax.Array]], Hyper]

    def initial_eta(self) -> dict[str, jax.Array]:
        """The meta-parameters that leave the recipe as it is."""
        return {tunable.key: tunable.initial() for tunable in self.tunables}

    def trajectory(self, eta: Mapping[str, Any]) -> Trajectory:
        """What every inner step uses at these meta-parameters: the very numbers of the training."""
        hyper: Hyper = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), self.hyper_over(dict(eta))
        )
        rates: dict[str, np.ndarray] = {}
        curves = jax.tree.leaves(hyper.learning_rate)
        for leaf, values in zip(jax.tree.leaves(self.names), curves, strict=True):
            columns = values.reshape(len(values), -1)
            per_name = np.broadcast_to(columns, (len(values), len(leaf.names)))
            rates |= {name: per_name[:, i].copy() for i, name in enumerate(leaf.names)}
        shares = hyper.mixture / hyper.mixture.sum(-1, keepdims=True)
        return Trajectory(rates, shares, hyper.loss_weights)

    def decayed(self) -> tuple[str, ...]:
        """Checkpoint names of the parameters that weight decay applies to."""
        params = jax.eval_shape(self.model.init, jax.random.key(0))
        return optimizers.decayed(self.recipe.inner.optimizer, self.names, params)


def prepare(recipe: Recipe, source: str = "recipe") -> InnerTraining:
    """Loads the data and builds the training of a recipe; computes nothing yet.

    Args:
        recipe: what to train and tune.
        source: the recipe's file, for faults.

    Raises:
        RecipeError: with all faults of data, model and tunables together.
    """
    faults: list[Fault] = []
    corpus = tuning = None
    vocab_size = data.tokenizer(recipe.data.tokenizer).vocab_size
    try:
        corpus = data.load(recipe.data)
    except RecipeError as error:
        faults += error.faults
    wrong = models.config_faults(recipe.model.config, vocab_size=vocab_size)
    faults += wrong
    if not wrong:
        model = models.build(
            recipe.model.config,
            vocab_size=vocab_size,
            dtype=recipe.model.dtype,
            remat=recipe.model.remat,
        )
        names = model.names()
        try:
            tuning = tunables.build(recipe, names)
        except RecipeError as error:
            faults += error.faults
    if corpus is None or tuning is None or faults:
        raise RecipeError(source, faults)
    params = jax.eval_shape(model.init, jax.random.key(0))
    hyper_at = _hyper_at(recipe, params, tuning)
    optimizer = optimizers.direction(recipe.inner.optimizer, names)
    reweighted = Problem(
        losses.reweighted_loss(model),
        _update(optimizer),
        losses.held_out_loss(model),
        hyper_at,
    )
    return InnerTraining(
        recipe,
        model,
        corpus,
        tuning,
        names,
        reweighted,
        reweighted._replace(loss=losses.sampled_loss(model)),
        jax.jit(_initialise(model, optimizer)),
        jax.jit(_over_steps(hyper_at, recipe.inner.steps)),
    )


def _initialise(
    model: models.LanguageModel, optimizer: optax.GradientTransformation
) -> Callable[[jax.Array], State]:
    def initialise(key: jax.Array) -> State:
        params = model.init(key)
        return State(params, optimizer.init(params))

    return initialise


def _over_steps(hyper_at: Any, steps: int) -> Callable[[Mapping[str, jax.Array]], Hyper]:
    def over_steps(eta: Mapping[str, jax.Array]) -> Hyper:
        return jax.vmap(hyper_at, in_axes=(None, 0))(eta, jnp.arange(steps))

    return over_steps


def _hyper_at(recipe: Recipe, params: Any, tuning: tuple[Tunable, ...]) -> Any:
    """The map η ↦ λ_t: the recipe's own choices, then each tunable in turn.

    `params` are the parameters, or their shapes.
    """
    inner = recipe.inner
    rates = schedules.base_rates(
        inner.optimizer.schedule, inner.optimizer.learning_rate, inner.steps
    )
    shares = np.asarray(starting_shares(recipe))
    # A rate has its parameter's rank, so that nothing is broadcast by accident.
    ranks = jax.tree.map(lambda leaf: (1,) * leaf.ndim, params)

    def hyper_at(eta: Mapping[str, jax.Array], step: jax.Array) -> Hyper:
        base = jnp.asarray(rates)[step]
        hyper = Hyper(
            jax.tree.map(base.reshape, ranks, is_leaf=lambda leaf: isinstance(leaf, tuple)),
            jnp.asarray(shares),
            jnp.ones(len(shares)),
        )
        for tunable in tuning:
            hyper = tunable.apply(eta[tunable.key], step, hyper)
        return hyper

    return hyper_at


def _update(optimizer: optax.GradientTransformation) -> Any:
    """`θ' = θ - rate * direction`, with a rate for each parameter."""

    def update(grads: Any, opt_state: Any, params: Any, hyper: Hyper) -> tuple[Any, Any]:
        directions, opt_state = optimizer.update(grads, opt_state, params)
        params = jax.tree.map(
            lambda p, d, rate: p - rate * d, params, directions, hyper.learning_rate
        )
        return params, opt_state

    return update
