"""Trainings by other optimizers, against the libraries and the papers that they are of."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipes import prepared, tiny

from metatune.data import stratified_batches
from metatune.fit.making import artefact_of
from metatune.hypergrad import as_argument
from metatune.inner import prepare
from metatune.inner.losses import sequence_losses as losses_of
from metatune.inner.metrics import held_out_batches
from metatune.ladder.measuring import held_out_loss
from metatune.recipe import schema
from metatune.tunables.hyper import Hyper
from metatune.verdict import alignment
from metatune.verdict.contestants.contestant import BY_SIZE
from metatune.verdict.points import Plain
from metatune.verdict.trainings import OPTIMIZERS, setting_of, shortened, trainings

RESULT = {"status": "unfinished", "unit": "nats per byte", "best_outer_step": 0, "outer_steps": 0}
RESULT |= dict.fromkeys(("objective_before", "objective_after", "difference", "standard_error"))
RESULT |= {"held_out_seeds": [], "before": [], "after": []}


def default_of(training):
    return artefact_of(training, training.initial_eta(), RESULT)


@pytest.fixture(scope="module")
def training():
    return prepared(tiny())


@pytest.fixture(scope="module")
def hyper(training):
    """Of the first inner steps, as the recipe has them."""

    def at(step) -> Hyper:
        return training.sampled.hyper_at(training.initial_eta(), step)

    return at


def gradients(params, count):
    """Some, all different."""
    keys = jax.random.split(jax.random.key(3), count)
    leaves, tree = jax.tree.flatten(params)
    return [
        jax.tree.unflatten(
            tree,
            [
                jax.random.normal(each, leaf.shape)
                for each, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
            ],
        )
        for key in keys
    ]


def flat(tree):
    return np.concatenate(
        [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)]
    )


def test_prodigy_is_optax_s_by_a_schedule(training, hyper):
    """Three updates with rates of their own, against optax that is given the schedule."""
    made = OPTIMIZERS["prodigy"](training)
    state = made.initialise(jax.random.key(0))
    own = training.recipe.inner.optimizer
    rates = jnp.asarray([1.0, 0.5, 0.25])
    theirs = optax.chain(
        optax.clip_by_global_norm(own.clip_norm),
        optax.contrib.prodigy(
            lambda count: rates[count],
            betas=(own.b1, own.b2),
            eps=own.eps,
            weight_decay=own.weight_decay,
        ),
    )
    params = wanted = state.params
    opt_state, their_state = state.opt_state, theirs.init(params)
    for step, grads in enumerate(gradients(params, 3)):
        at = hyper(step)
        rate = jax.tree.map(
            lambda leaf, step=step: jnp.full_like(leaf, rates[step]), at.learning_rate
        )
        at = at._replace(learning_rate=rate)
        params, opt_state = made.sampled.update(grads, opt_state, params, at)
        moves, their_state = theirs.update(grads, their_state, wanted)
        wanted = optax.apply_updates(wanted, moves)
    assert flat(params) == pytest.approx(flat(wanted), rel=1e-5, abs=1e-8)
    assert not np.allclose(flat(params), flat(state.params))


def test_schedule_free_is_the_recipe_with_that_optimizer(training):
    own = training.recipe.inner.optimizer
    spec = schema.ScheduleFreeAdamWSpec(
        learning_rate=own.learning_rate,
        schedule=schema.ConstantSpec(warmup=own.schedule.warmup),
        weight_decay=own.weight_decay,
        clip_norm=own.clip_norm,
    )
    other = prepare(tiny(inner={"optimizer": spec}))
    wanted = held_out_loss(trainings(other, default_of(other)).of_artefact(default_of(other)), 2)
    point = Plain(schedule="constant", optimizer="schedule_free")
    found = held_out_loss(trainings(training, default_of(training)).followed(point), 2)
    assert found == pytest.approx(wanted, rel=1e-6)


def test_a_descent_follows_the_angle_of_gradient_and_last_update(training, hyper):
    """By hand: log factors are sums of β cos(g_t, θ_{t-1} - θ_t), and rates are times their exp."""
    made = OPTIMIZERS["online"](training)
    state = made.initialise(jax.random.key(0))
    params, beta = state.params, 0.3
    opt_state = state.opt_state._replace(rate=jnp.float32(beta))
    own = training.initialise(jax.random.key(0)).opt_state
    plain, log_factor, moved = params, 0.0, None
    for step, grads in enumerate(gradients(params, 3)):
        if moved is not None:
            one, other = flat(grads), flat(moved)
            log_factor += beta * one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        at = hyper(step)
        by = float(np.exp(log_factor))
        faster = jax.tree.map(lambda leaf, by=by: by * leaf, at.learning_rate)
        after, own = training.sampled.update(grads, own, plain, at._replace(learning_rate=faster))
        moved, plain = jax.tree.map(jnp.subtract, plain, after), after
        params, opt_state = made.sampled.update(grads, opt_state, params, at)
    assert log_factor != 0
    assert float(opt_state.log_factor) == pytest.approx(log_factor, rel=1e-4)
    assert flat(params) == pytest.approx(flat(plain), rel=1e-5, abs=1e-8)


def test_the_logits_of_an_alignment_follow_the_objective_after_a_step_of_the_head(training, hyper):
    """Against differences: each domain's gradient of its own sequences, the head moved by them."""
    state, at = training.initialise(jax.random.key(1)), hyper(0)
    shares = np.full((6, 2), 0.5)
    batch = stratified_batches(training.corpus, seed=(1,), batch_size=4, shares=shares)(0)
    (held_out,) = held_out_batches(
        training.recipe.outer, training.corpus, "validation", seed=(2,), sequences=8
    )
    problem, logits = as_argument(training.reweighted), jnp.asarray([0.3, -0.4], jnp.float32)
    found = alignment._gradient(problem, logits, state.params, at, batch, held_out)

    def objective(params):
        losses = losses_of(training.model, params, held_out.tokens)
        return jnp.mean(losses * held_out.weight)

    def of_domain(head, number):
        params = {**state.params, "lm_head": {"weight": head}}
        own = np.flatnonzero(np.asarray(batch.domain) == number)
        return jnp.mean(losses_of(training.model, params, batch.tokens[own]))

    head = state.params["lm_head"]["weight"]
    gradients = [jax.grad(of_domain)(head, number) for number in range(2)]
    rate = float(np.ravel(at.learning_rate["lm_head"]["weight"])[0])

    def after(z):
        """A step so small that the objective is a straight line over it, scaled up."""
        p, step = jax.nn.softmax(z), 1e-2
        moved = head - step * (p[0] * gradients[0] + p[1] * gradients[1])
        return objective({**state.params, "lm_head": {"weight": moved}}) * rate / step

    epsilon = 0.5
    for number in range(2):
        z = np.zeros(2, np.float32)
        z[number] = epsilon
        slope = float((after(logits + z) - after(logits - z)) / (2 * epsilon))
        assert float(found[number]) == pytest.approx(slope, rel=0.05)
    assert float(found.sum()) == pytest.approx(0, abs=1e-3 * float(abs(found[0])))


def test_an_alignment_goes_to_what_it_is_aligned_with(training):
    """The target is code alone; and no further than the reach, but for Adam's first steps."""
    made = trainings(training, default_of(training))
    shares = {
        reach: alignment.aligned(made.of_artefact(made.default), 3, reach) for reach in (1, 2)
    }
    logits = {reach: np.log(found[0] / found[1]) for reach, found in shares.items()}
    assert 0 < logits[1] < logits[2]
    assert logits[2] <= 1.1 * 2 * 2
    assert shares[1] == alignment.aligned(made.of_artefact(made.default), 3, 1)
    assert sum(shares[2]) == pytest.approx(1, abs=1e-12)


def test_who_cannot_align_says_why(training):
    assert setting_of(training, default_of(training)).unaligned is None
    accuracy = replace(training.recipe.outer, objective=schema.ObjectiveSpec(measure="accuracy"))
    other = replace(training, recipe=replace(training.recipe, outer=accuracy))
    assert "accuracy, has no gradient" in str(alignment.refusal(other))
    assert alignment.head_of({"model": {"norm": 1}}) is None
    tied = {"model": {"embed_tokens": {"weight": 1}}}
    assert alignment.head_of(tied) == ("model", "embed_tokens", "weight")


def test_a_shortened_training_is_the_recipe_of_fewer_steps(training):
    """Its schedules squeezed, as a recipe's are."""
    short = tiny(
        inner={"steps": 3},
        tune={"mixture": None, "learning_rates": schema.LearningRatesSpec(per="layer")},
    )
    other = prepare(short)
    point = Plain(schedule="constant", warmup=0.0, shares=(0.5, 0.5))
    wanted = trainings(other, default_of(other)).followed(replace(point, shares=()))
    found = trainings(training, default_of(training)).followed(point, 0.5)
    assert found.training.recipe.inner.steps == 3
    assert held_out_loss(found, 1) == pytest.approx(held_out_loss(wanted, 1), rel=1e-6)
    assert shortened(training, 1.0) is training


def test_contestants_are_told_what_there_is(training):
    setting = setting_of(training, default_of(training))
    assert setting.mixtures["recipe"] == (0.5, 0.5)
    assert setting.mixtures["target"] == setting.target == (1.0, 0.0)
    sizes = np.asarray([len(domain.train) for domain in training.corpus.domains])
    assert setting.mixtures[BY_SIZE] == pytest.approx(tuple(sizes / sizes.sum()))
    assert setting.coordinates == sum(leaf.size for leaf in training.initial_eta().values())
    assert (setting.optimizer, setting.steps, setting.plain) == ("adamw", 6, True)
    averaged = prepared(tiny(tune=schema.TuneSpec(averaging=schema.AveragingSpec())))
    told = setting_of(averaged, default_of(averaged))
    assert (dict(told.mixtures), told.plain) == ({}, False)


def test_mixtures_keep_to_the_caps():
    mixture = schema.MixtureSpec(max_epochs=1.0, production_tokens=2_000_000)
    training = prepare(tiny(tune={"mixture": mixture}))
    setting = setting_of(training, default_of(training))
    assert setting.caps
    for shares in setting.mixtures.values():
        assert sum(shares) == pytest.approx(1)
        assert all(s <= cap + 1e-9 for s, cap in zip(shares, setting.caps, strict=True))
