"""Terms of the training loss: against NumPy, central differences, and a training without them."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import CODE, tiny

from metatune.data import heldout_batches, stratified_batches
from metatune.hypergrad import MixFlow, hypergradient
from metatune.inner import prepare
from metatune.inner.cross_entropy import token_losses
from metatune.inner.losses import held_out_loss
from metatune.recipe import schema

TOKENS, VOCAB, FEATURES = (3, 5), 11, 4
TERMS: dict[str, Any] = {"z_loss": 0.3, "label_smoothing": 0.2}
TUNE = {name: schema.TunedFieldSpec(windows=2) for name in TERMS}
STEPS = 4


def recipe(loss, tuned=None):
    tune = None if tuned is None else schema.LossTermsSpec(**tuned)
    rates = None if tuned else schema.LearningRatesSpec(per="global")
    return tiny(
        {"intermediate_size": 8, "initializer_range": 0.3},
        data={"domains": {"code": CODE}, "sequence_length": 12},
        inner={"steps": STEPS, "loss": loss},
        tune=schema.TuneSpec(learning_rates=rates, loss_terms=tune),
    )


@pytest.fixture
def given(float64):
    """Features, weights and targets in float64."""
    rng = np.random.default_rng(7)
    hidden = jnp.asarray(rng.normal(size=(*TOKENS, FEATURES)))
    unembedding = jnp.asarray(rng.normal(size=(VOCAB, FEATURES)))
    return hidden, unembedding, jnp.asarray(rng.integers(0, VOCAB, TOKENS))


def reference(given, terms, softcap):
    """By the definition: a smoothed target distribution, and the normaliser squared."""
    hidden, unembedding, targets = given
    logits = np.asarray(hidden) @ np.asarray(unembedding).T
    if softcap:
        logits = softcap * np.tanh(logits / softcap)
    normaliser = np.log(np.exp(logits).sum(-1))
    share = terms.get("label_smoothing", 0.0)
    wanted = (1 - share) * np.eye(VOCAB)[np.asarray(targets)] + share / VOCAB
    np.testing.assert_allclose(wanted.sum(-1), 1, rtol=1e-15)
    nll = (wanted * (normaliser[..., None] - logits)).sum(-1)
    return nll + terms.get("z_loss", 0.0) * normaliser**2


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("names", [("z_loss",), ("label_smoothing",), tuple(TERMS)])
def test_losses_are_those_of_the_definition(given, names, chunk):
    terms = {name: jnp.asarray(TERMS[name]) for name in names}
    for softcap in (None, 1.5):
        want = reference(given, terms, softcap)
        got = token_losses(*given, softcap=softcap, chunk=chunk, terms=terms)
        np.testing.assert_allclose(got, want, rtol=1e-13)


def test_derivatives_are_those_of_the_definition_chunked_or_not(given):
    *at, targets = given
    at = (*at, jax.tree.map(jnp.float64, TERMS))
    direction = jax.tree.map(jnp.cos, at)

    def gradient(chunk):
        def loss(hidden, unembedding, terms):
            losses = token_losses(
                hidden, unembedding, targets, softcap=1.5, chunk=chunk, terms=terms
            )
            return jnp.mean(jnp.sin(losses))

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))

    def ahead(size):
        return jax.tree.map(lambda a, d: a + size * d, at, direction)

    found = {chunk: gradient(chunk)(*at) for chunk in (None, 4)}
    size = 1e-5
    values = [
        np.mean(np.sin(reference((*p[:2], targets), p[2], 1.5))) for p in map(ahead, (size, -size))
    ]
    slope = sum(
        float(jnp.vdot(a, b))
        for a, b in zip(*map(jax.tree.leaves, (found[4], direction)), strict=True)
    )
    assert slope == pytest.approx((values[0] - values[1]) / (2 * size), rel=1e-6)
    # Forward over reverse, as the estimators differentiate it again.
    second = {chunk: jax.jvp(gradient(chunk), at, direction)[1] for chunk in (None, 4)}
    differences = jax.tree.map(
        lambda a, b: (a - b) / (2 * size), gradient(4)(*ahead(size)), gradient(4)(*ahead(-size))
    )
    for pairs, rtol, atol in (
        ((found[4], found[None]), 1e-10, 1e-13),
        ((second[4], second[None]), 1e-10, 1e-13),
        ((second[4], differences), 1e-6, 1e-8),
    ):
        for one, other in zip(*map(jax.tree.leaves, pairs), strict=True):
            np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def test_logits_exist_a_chunk_at_a_time(largest_array):
    hidden, unembedding = jnp.ones((2, 64, 4)), jnp.ones((128, 4))
    targets = jnp.zeros((2, 64), jnp.int32)

    def largest(chunk):
        def loss(hidden, terms):
            return jnp.mean(token_losses(hidden, unembedding, targets, chunk=chunk, terms=terms))

        def product(hidden, terms):
            return jax.jvp(jax.grad(loss, argnums=(0, 1)), (hidden, terms), (hidden, terms))[1]

        return largest_array(product, hidden, jax.tree.map(jnp.float32, TERMS))

    assert largest(None) >= 2 * 64 * 128
    assert largest(8) <= 2 * 64 * 128 // 4


@pytest.fixture(scope="module")
def tuned():
    return prepare(recipe(schema.LossSpec(**TERMS), TUNE))


def batch_of(training):
    return stratified_batches(training.corpus, seed=(0,), batch_size=4, shares=np.ones((STEPS, 1)))


def test_terms_of_zero_leave_the_program_as_it_was(tuned):
    programs = []
    for loss in (None, schema.LossSpec(), schema.LossSpec(z_loss=1e-4)):
        training = prepare(recipe(loss))
        hyper = training.sampled.hyper_at(training.initial_eta(), jnp.int32(0))
        params = jax.eval_shape(training.initialise, jax.random.key(0)).params
        program = jax.make_jaxpr(training.sampled.loss)(params, hyper, batch_of(training)(0))
        programs.append(re.sub("0x[0-9a-f]+", "", str(program)))
    assert programs[0] == programs[1] != programs[2]


def test_the_hypergradient_equals_central_differences(float64):
    wanted = recipe(schema.LossSpec(**TERMS), TUNE)
    model = dataclasses.replace(wanted.model, dtype="float64")
    training = prepare(dataclasses.replace(wanted, model=model))
    state = jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        training.initialise(jax.random.key(0)),
    )
    batches = batch_of(training)
    held_out = heldout_batches(training.corpus, "validation", seed=(1,), sequences=4, micro_batch=4)
    rng = np.random.default_rng(0)
    eta = {key: jnp.asarray(rng.normal(size=2)) for key in TERMS}

    def estimate(eta):
        return hypergradient(
            training.reweighted,
            eta,
            state,
            batches,
            held_out,
            steps=STEPS,
            estimator=MixFlow(segment=2),
        )

    found = estimate(eta).gradient
    for key in TERMS:
        for window in range(2):
            moved = jnp.zeros(2).at[window].set(1e-5)
            values = [
                float(estimate({**eta, key: eta[key] + sign * moved}).value) for sign in (1, -1)
            ]
            slope = (values[0] - values[1]) / 2e-5
            assert float(found[key][window]) == pytest.approx(slope, rel=1e-5)


def test_what_is_held_out_is_measured_without_them(tuned):
    (batch,) = heldout_batches(tuned.corpus, "validation", seed=(1,), sequences=4, micro_batch=4)
    params = tuned.initialise(jax.random.key(0)).params
    plain = jax.jit(held_out_loss(tuned.model))(params, batch)
    assert float(jax.jit(tuned.sampled.objective)(params, batch)) == float(plain)
    hyper = tuned.sampled.hyper_at(tuned.initial_eta(), jnp.int32(0))
    assert hyper.loss_terms is not None
    assert {key: float(value) for key, value in hyper.loss_terms.items()} == pytest.approx(TERMS)
    loss = jax.jit(tuned.sampled.loss)
    without = loss(params, hyper._replace(loss_terms=None), batch)
    assert float(without) == pytest.approx(float(plain))
    assert float(loss(params, hyper, batch)) > 1.1 * float(without)


def test_they_start_where_the_recipe_says_and_stay_in_their_ranges(tuned):
    start = tuned.trajectory(tuned.initial_eta()).loss_terms
    assert {key: row.tolist() for key, row in start.items()} == {
        key: pytest.approx([value] * STEPS, rel=1e-7) for key, value in TERMS.items()
    }
    eta = {"z_loss": jnp.log(jnp.array([2.0, 3.0])), "label_smoothing": jnp.array([40.0, -40.0])}
    found = tuned.trajectory(eta).loss_terms
    np.testing.assert_allclose(found["z_loss"], [0.6, 0.6, 0.9, 0.9], rtol=1e-6)
    shares = found["label_smoothing"]
    assert 0 < shares[-1] < 1e-15 < 0.999 < shares[0] <= 1


def test_what_is_not_tuned_stays_as_the_recipe_has_it():
    loss = schema.LossSpec(**TERMS)
    training = prepare(recipe(loss, {"z_loss": schema.TunedFieldSpec()}))
    assert [tunable.key for tunable in training.tunables] == ["z_loss"]
    terms = training.trajectory({"z_loss": jnp.ones(1)}).loss_terms
    assert terms["label_smoothing"] == pytest.approx(np.full(STEPS, 0.2))
    assert terms["z_loss"] == pytest.approx(np.full(STEPS, 0.3 * np.e))
    fixed = dataclasses.replace(training.recipe, tune=recipe(loss).tune)
    assert prepare(fixed).trajectory({"learning_rates": jnp.zeros((1, 1))}).loss_terms.keys() == {
        "label_smoothing",
        "z_loss",
    }
