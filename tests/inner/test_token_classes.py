"""Loss weights of tokens by where they stand, and by how frequent they are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny

from metatune.artefact import ClassWeights, Positions, Vocabulary, load, write
from metatune.data import heldout_batches, stratified_batches
from metatune.fit.making import artefact_of
from metatune.hypergrad import MixFlow, hypergradient
from metatune.inner import prepare
from metatune.inner.cross_entropy import token_losses
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.train import matching
from metatune.train.schedules import Schedules, scheduled

STEPS = 4
LENGTH = 11
SHARES = (0.25, 0.75)


@pytest.fixture(scope="module")
def recipe():
    return tiny(
        {"intermediate_size": 8, "initializer_range": 0.3},
        data={
            "domains": {
                "code": schema.SourceSpec(shipped="code_stdlib", max_tokens=60000),
                "drama": schema.SourceSpec(shipped="drama_shakespeare", max_tokens=60000),
            },
            "sequence_length": LENGTH,
        },
        inner={"steps": STEPS},
        tune=schema.TuneSpec(
            mixture=schema.MixtureSpec(initial=dict(zip(("code", "drama"), SHARES, strict=True))),
            loss_weights=schema.LossWeightsSpec(per="position", windows=2),
        ),
    )


def prepared(recipe, **weights):
    tune = dataclasses.replace(recipe.tune, loss_weights=schema.LossWeightsSpec(**weights))
    return prepare(dataclasses.replace(recipe, tune=tune))


@pytest.fixture(scope="module", params=["position", "frequency"])
def training(request, recipe):
    return prepared(recipe, per=request.param, windows=2, buckets=3)


def some_eta(training, dtype=jnp.float32):
    eta = training.initial_eta()
    shape = eta["loss_weights"].shape
    assert shape == (2, 3)
    drawn = np.random.default_rng(0).normal(size=shape)
    return {**eta, "loss_weights": jnp.asarray(drawn, dtype)}


def batch_of(training, step=0):
    shares = np.full((STEPS, 2), 0.5)
    return stratified_batches(training.corpus, seed=(0,), batch_size=4, shares=shares)(step)


def text_of(training):
    """The predicted tokens of each domain's windows to train on, [windows, length - 1]."""
    return [d.train.tokens(np.arange(len(d.train)))[:, 1:] for d in training.corpus.domains]


def classes_by_hand(training, targets):
    """Of predicted tokens, [sequences, length - 1]."""
    per = training.recipe.tune.loss_weights.per
    if per == "position":
        return np.broadcast_to([0] * 4 + [1] * 3 + [2] * 3, targets.shape)
    counted: dict[int, float] = {}
    for share, text in zip(SHARES, text_of(training), strict=True):
        for token, count in zip(*np.unique(text, return_counts=True), strict=True):
            counted[int(token)] = counted.get(int(token), 0.0) + share * (count / text.size)
    ordered = sorted(counted, key=lambda token: (-counted[token], token))
    bucket, before = {}, 0.0
    for token in ordered:
        bucket[token] = int((before + counted[token] / 2) * 3)
        before += counted[token]
    return np.vectorize(bucket.__getitem__)(targets)


def test_they_weigh_tokens_and_average_one_over_the_training_tokens(training):
    mean, spread = 0.0, np.zeros(3)
    weights = training.trajectory(some_eta(training)).class_weights
    for share, text in zip(SHARES, text_of(training), strict=True):
        classes = classes_by_hand(training, text)
        mean += share * weights[0][classes].mean()
        spread += share * np.bincount(classes.ravel(), minlength=3) / classes.size
    # Of bytes, the space alone is a fifth of some text.
    assert np.abs(spread - 1 / 3).max() < 0.2
    assert mean == pytest.approx(1, rel=1e-6)
    batch, params = batch_of(training), training.initialise(jax.random.key(0)).params
    hyper = training.reweighted.hyper_at(some_eta(training), 0)
    tokens = np.asarray(batch.tokens)
    model = training.model

    @jax.jit
    def token_by_token(params, tokens):
        hidden = model.hidden(params, tokens[:, :-1])
        return token_losses(hidden, model.unembedding(params), tokens[:, 1:], chunk=None)

    losses = token_by_token(params, tokens)
    by_token = weights[0][classes_by_hand(training, tokens[:, 1:])] * np.asarray(losses)
    expected = np.mean(np.asarray(SHARES)[batch.domain] * batch.weight * by_token.mean(1))
    got = float(jax.jit(training.reweighted.loss)(params, hyper, batch))
    assert got == pytest.approx(float(expected), rel=1e-5)


def test_equal_weights_change_nothing(training):
    batch, params = batch_of(training), training.initialise(jax.random.key(0)).params
    hyper = training.sampled.hyper_at(training.initial_eta(), 0)
    loss = jax.jit(training.sampled.loss)
    without = loss(params, hyper._replace(class_weights=None), batch)
    assert float(loss(params, hyper, batch)) == pytest.approx(float(without), rel=1e-6)


def test_the_artefact_says_what_the_classes_are_and_a_training_follows_it(
    recipe, training, tmp_path
):
    eta = some_eta(training)
    done: dict = {}
    write(tmp_path / "artefact", artefact_of(training, eta, done), "")
    found = load(tmp_path / "artefact")
    weights, per = found.loss_weights, training.recipe.tune.loss_weights.per
    assert isinstance(weights, ClassWeights)
    assert weights.classes == tuple(f"{per}_{n}" for n in (1, 2, 3))
    if per == "position":
        assert weights.of == Positions(LENGTH, (1, 5, 8))
    else:
        assert isinstance(weights.of, Vocabulary) and len(weights.of.classes) == 259
    # A recipe that tunes none of it trains on the same loss.
    rates = schema.TuneSpec(
        learning_rates=schema.LearningRatesSpec(per="global"), mixture=recipe.tune.mixture
    )
    other = prepare(dataclasses.replace(recipe, tune=rates))
    matching.refuse_misfit(found, other, "mine")
    segment = Schedules(other, found, STEPS).segment(0)
    batch, params = batch_of(training), training.initialise(jax.random.key(0)).params
    problem = scheduled(other, found)
    loss, followed = jax.jit(training.sampled.loss), jax.jit(problem.loss)
    for step in range(STEPS):
        want = loss(params, training.sampled.hyper_at(eta, step), batch)
        got = followed(params, problem.hyper_at(segment, jnp.int32(step)), batch)
        assert float(got) == pytest.approx(float(want), rel=1e-6)
    data = dataclasses.replace(recipe.data, sequence_length=LENGTH + 1)
    if per == "position":
        shorter = prepare(dataclasses.replace(recipe, tune=rates, data=data))
        with pytest.raises(ValueError, match="of 11 tokens, mine has .* sequences of 12 tokens"):
            matching.refuse_misfit(found, shorter, "mine")


def test_the_hypergradient_equals_central_differences(recipe, float64):
    model = dataclasses.replace(recipe.model, dtype="float64")
    wide = dataclasses.replace(recipe, model=model)
    training = prepared(wide, per="frequency", windows=2, buckets=3)
    state = jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        training.initialise(jax.random.key(0)),
    )
    shares = np.full((STEPS, 2), 0.5)
    batches = stratified_batches(training.corpus, seed=(0,), batch_size=4, shares=shares)
    held_out = heldout_batches(training.corpus, "validation", seed=(1,), sequences=4, micro_batch=4)
    eta = jax.tree.map(lambda leaf: leaf.astype(float), some_eta(training, jnp.float64))

    def estimate(weights):
        return hypergradient(
            training.reweighted,
            {**eta, "loss_weights": weights},
            state,
            batches,
            held_out,
            steps=STEPS,
            estimator=MixFlow(segment=2),
        )

    found = estimate(eta["loss_weights"]).gradient["loss_weights"]
    # Adding a number to the logarithms of all weights changes none of them.
    assert np.abs(found.sum(axis=1)).max() < 1e-12
    direction = np.random.default_rng(1).normal(size=found.shape)
    values = [
        float(estimate(eta["loss_weights"] + sign * 1e-5 * direction).value) for sign in (1, -1)
    ]
    slope = (values[0] - values[1]) / 2e-5
    assert float(np.vdot(found, direction)) == pytest.approx(slope, rel=1e-5)


def test_they_start_where_the_recipe_says(recipe):
    training = prepared(recipe, per="position", buckets=2, initial={"position_2": 3.0})
    weights = training.trajectory(training.initial_eta()).class_weights
    assert weights is not None
    np.testing.assert_allclose(weights[0], [0.5, 1.5], rtol=1e-6)


def faults_of(recipe, **weights):
    with pytest.raises(RecipeError) as refused:
        prepared(recipe, **weights)
    return [str(fault) for fault in refused.value.faults]


def test_a_class_without_tokens_is_a_fault(recipe):
    found = faults_of(recipe, per="position", buckets=12)
    assert len(found) == 2
    assert found[0].startswith(
        "tune.loss_weights.buckets = 12: no token is of class position_6: the training data has "
    )
    assert found[0].endswith("; take fewer")
    # More than a tenth of the text is one token, which has all of its buckets but one.
    found = faults_of(recipe, per="frequency", buckets=40)
    assert "buckets = 40: no token is of class frequency_" in found[0]
