"""The trainings of a contest: all of one optimizer share their compiled programs."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metatune.artefact import Artefact
from metatune.hypergrad import State
from metatune.inner import InnerTraining, optimizers
from metatune.inner.optimizers import InnerOptimizer
from metatune.ladder.measuring import Followed, following
from metatune.recipe import schema
from metatune.tunables import Hyper
from metatune.tunables.mixture import starting_shares
from metatune.verdict import alignment
from metatune.verdict.contestants.contestant import BY_SIZE, ContestSetting, fitting
from metatune.verdict.points import RECIPE, Plain, Point
from metatune.verdict.schedules import artefact_of, below, coordinates

TARGET: Final = "target"
SMALL: Final = 1e-30
"""Of a product of norms, below which two vectors point nowhere."""

SHORTEST: Final = 1
"""Inner steps of a shortened training."""


@dataclass(frozen=True, eq=False)
class ContestTrainings:
    """Makes the training of a point.

    Attributes:
        training: the recipe's.
        default: the artefact of the recipe as it is.
        others: trainings by other optimizers, by their names, as far as there were any.
        lock: held while one of these is made: each is made once, or it is compiled once more.
    """

    training: InnerTraining
    default: Artefact
    others: dict[str, InnerTraining]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def followed(self, point: Point, share: float = 1.0) -> Followed:
        """The training of a point.

        Args:
            point: the point.
            share: of the inner steps, to which its schedules are squeezed.
        """
        tuned = artefact_of(self.training, self.default, point)
        return following(shortened(self._training(point), share), tuned)

    def of_artefact(self, tuned: Artefact) -> Followed:
        """The training by schedules that were tuned."""
        return following(self.training, tuned)

    def _training(self, point: Point) -> InnerTraining:
        kind = point.optimizer if isinstance(point, Plain) else RECIPE
        if kind == RECIPE or not isinstance(point, Plain):
            return self.training
        with self.lock:
            if kind not in self.others:
                self.others[kind] = OPTIMIZERS[kind](self.training)
            made = self.others[kind]
        return _descending(made, point.online_rate) if kind == "online" else made


def trainings(training: InnerTraining, default: Artefact) -> ContestTrainings:
    """Those of a recipe; none is made yet.

    Args:
        training: the recipe's.
        default: the artefact of the recipe as it is.
    """
    return ContestTrainings(training, default, {})


def shortened(training: InnerTraining, share: float) -> InnerTraining:
    """A training of a share of the inner steps, whose schedules are an artefact's."""
    if share == 1:
        return training
    recipe = training.recipe
    steps = max(SHORTEST, round(share * recipe.inner.steps))
    return replace(training, recipe=replace(recipe, inner=replace(recipe.inner, steps=steps)))


def setting_of(training: InnerTraining, default: Artefact) -> ContestSetting:
    """What contestants are told of a training.

    Args:
        training: the recipe's.
        default: its artefact.
    """
    recipe, corpus = training.recipe, training.corpus
    mixtures: dict[str, tuple[float, ...]] = {}
    target, caps = (), ()
    tuned: Any = {each.key: each for each in training.tunables}.get("mixture")
    if tuned is not None and len(corpus.names) > 1:
        caps = tuned.caps or ()
        tokens = np.asarray([len(domain.train) for domain in corpus.domains], np.float64)
        mixtures[RECIPE] = starting_shares(recipe.tune.mixture, recipe.data.trained)
        mixtures[BY_SIZE] = fitting(tuple(map(float, tokens / tokens.sum())), caps)
        weights = dict(zip((each.name for each in corpus.measured), corpus.target, strict=True))
        if not any(weight and name not in corpus.names for name, weight in weights.items()):
            target = tuple(float(weights[name]) for name in corpus.names)
            mixtures[TARGET] = fitting(target, caps)
        # Each once, by the first of its names.
        firsts = {shares: name for name, shares in reversed(mixtures.items())}
        mixtures = {name: mixtures[name] for name in reversed(firsts.values())}
    names = tuple(default.learning_rates.parameters)
    heights = set(below(names, 0.5).values())
    return ContestSetting(
        optimizer=recipe.inner.optimizer.kind,
        steps=recipe.inner.steps,
        mixtures=mixtures,
        target=target,
        caps=caps,
        coordinates=coordinates(training),
        layers=max(1, len(heights) - 2),
        plain=all(
            part is None
            for part in (default.learned_update, default.averaging, default.initialisation)
        ),
        unaligned=alignment.refusal(training),
    )


def with_optimizer(training: InnerTraining, optimizer: InnerOptimizer) -> InnerTraining:
    """A training by another optimizer."""
    init, given = optimizer.init, training.initialise

    @jax.jit
    def begun(params: Any) -> State:
        # Copies, because a training donates its state's buffers.
        params = jax.tree.map(jnp.copy, params)
        return State(params, init(params))

    def initialise(key: jax.Array) -> State:
        return begun(given(key).params)

    sampled = replace(training.sampled, update=optimizer.update, evaluated=optimizer.evaluated)
    return replace(training, sampled=sampled, initialise=initialise)


def _schedule_free(training: InnerTraining) -> InnerTraining:
    own = training.recipe.inner.optimizer
    if not isinstance(own, schema.AdamWSpec):
        raise ValueError(f"schedule-free AdamW in the place of {own.kind}")
    spec = schema.ScheduleFreeAdamWSpec(
        learning_rate=own.learning_rate,
        schedule=schema.ConstantSpec(warmup=own.schedule.warmup),
        weight_decay=own.weight_decay,
        decay=own.decay,
        b1=own.b1,
        b2=own.b2,
        eps=own.eps,
        eps_root=own.eps_root,
        clip_norm=own.clip_norm,
    )
    built = optimizers.build(spec, training.names, training.model.config.transposed)
    return with_optimizer(training, built)


def _prodigy(training: InnerTraining) -> InnerTraining:
    own = training.recipe.inner.optimizer
    if not isinstance(own, schema.AdamWSpec):
        raise ValueError(f"Prodigy in the place of {own.kind}")

    def at(rate: jax.Array | float) -> optax.GradientTransformation:
        prodigy = optax.contrib.prodigy(
            rate, betas=(own.b1, own.b2), eps=own.eps, weight_decay=own.weight_decay
        )
        norm = own.clip_norm
        clipped = optax.identity() if norm is None else optax.clip_by_global_norm(norm)
        return optax.chain(clipped, prodigy)

    def update(grads: Any, state: Any, params: Any, hyper: Hyper) -> tuple[Any, Any]:
        # The schedule's factor is that of any parameter: all have the same.
        rate = jnp.ravel(jax.tree.leaves(hyper.learning_rate)[0])[0]
        moves, state = at(rate).update(grads, state, params)
        return optax.apply_updates(params, moves), state

    return with_optimizer(training, InnerOptimizer(at(1.0).init, update))


class Descending(NamedTuple):
    """The state of a training whose rates hypergradient descent moves.

    Attributes:
        inner: of the optimizer.
        moved: by the last update, θ_{t-1} - θ_t.
        log_factor: of all rates.
        rate: of the descent.
    """

    inner: Any
    moved: Any
    log_factor: jax.Array
    rate: jax.Array


def _online(training: InnerTraining) -> InnerTraining:
    """Rates times a factor, `log factor += β cos(g_t, θ_{t-1} - θ_t)`.

    The derivative of the loss at θ_t in the rate of the last update is minus the product of the
    gradient with the update's direction; it is taken without the lengths of the two, as in the
    multiplicative rule of the paper.

    Source: Baydin et al., 2018, section 3.
    """
    update = training.sampled.update
    given = training.initialise

    def adapted(grads: Any, state: Descending, params: Any, hyper: Hyper) -> tuple[Any, Descending]:
        lengths = optax.tree.norm(grads) * optax.tree.norm(state.moved)
        along = optax.tree.vdot(grads, state.moved) / jnp.maximum(lengths, SMALL)
        log_factor = state.log_factor + state.rate * along
        factor = jnp.exp(log_factor)
        faster = jax.tree.map(lambda rate: rate * factor, hyper.learning_rate)
        after, inner = update(grads, state.inner, params, hyper._replace(learning_rate=faster))
        moved = jax.tree.map(jnp.subtract, params, after)
        return after, Descending(inner, moved, log_factor, state.rate)

    @jax.jit
    def beside(state: State) -> State:
        nought = jnp.zeros((), jnp.float32)
        still = jax.tree.map(jnp.zeros_like, state.params)
        return State(state.params, Descending(state.opt_state, still, nought, nought))

    def initialise(key: jax.Array) -> State:
        return beside(given(key))

    sampled = replace(training.sampled, update=adapted)
    return replace(training, sampled=sampled, initialise=initialise)


def _descending(training: InnerTraining, rate: float) -> InnerTraining:
    """The same, begun with the descent's rate: it is of the state, not of the program."""
    given = training.initialise

    def initialise(key: jax.Array) -> State:
        state = given(key)
        return State(state.params, state.opt_state._replace(rate=jnp.float32(rate)))

    return replace(training, initialise=initialise)


OPTIMIZERS: Final[dict[str, Callable[[InnerTraining], InnerTraining]]] = {
    "schedule_free": _schedule_free,
    "prodigy": _prodigy,
    "online": _online,
}
