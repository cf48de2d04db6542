"""Cross entropy with and without chunks: against numpy, central differences and one another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells

from metatune.inner.cross_entropy import token_losses
from metatune.inner.losses import sequence_losses
from metatune.models import build, chunking

TOKENS, VOCAB, FEATURES = (3, 5), 11, 4


@pytest.fixture
def given(float64):
    """Features, weights and targets in float64."""
    rng = np.random.default_rng(7)
    hidden = jnp.asarray(rng.normal(size=(*TOKENS, FEATURES)))
    unembedding = jnp.asarray(rng.normal(size=(VOCAB, FEATURES)))
    return hidden, unembedding, jnp.asarray(rng.integers(0, VOCAB, TOKENS))


@pytest.mark.parametrize("chunk", [None, 1, 4, 15])
def test_it_is_the_logarithm_of_the_targets_probability(given, chunk):
    hidden, unembedding, targets = given
    scores = np.exp(np.asarray(hidden) @ np.asarray(unembedding).T)
    probability = np.take_along_axis(scores, np.asarray(targets)[..., None], -1)[..., 0]
    want = np.log(scores.sum(-1)) - np.log(probability)
    got = jax.jit(token_losses, static_argnames="chunk")(*given, chunk=chunk)
    np.testing.assert_allclose(got, want, rtol=1e-13)


def test_logits_are_summed_in_float32(given):
    hidden, unembedding, targets = given
    narrow = hidden.astype(jnp.bfloat16)
    weights = unembedding.astype(jnp.bfloat16)
    # Products of two bfloat16 numbers are exact in float32: its rounding is all that is left.
    want = token_losses(narrow.astype(float), weights.astype(float), targets, chunk=None)
    for chunk in (None, 4):
        losses = token_losses(narrow, weights.astype(jnp.float32), targets, chunk=chunk)
        assert losses.dtype == jnp.float32
        np.testing.assert_allclose(losses, want, rtol=1e-5)


def test_hessian_times_vector_is_the_difference_of_gradients(given):
    hidden, unembedding, targets = given
    at = (hidden, unembedding)
    direction = (jnp.cos(hidden), jnp.cos(unembedding))

    def gradient(chunk):
        def loss(hidden, unembedding):
            return jnp.mean(jnp.sin(token_losses(hidden, unembedding, targets, chunk=chunk)))

        return jax.jit(jax.grad(loss, argnums=(0, 1)))

    chunked, step = gradient(4), 1e-5

    def moved(size):
        return chunked(*(a + size * d for a, d in zip(at, direction, strict=True)))

    forward = jax.jit(lambda: jax.jvp(chunked, at, direction)[1])()
    plain = jax.jit(lambda: jax.jvp(gradient(None), at, direction)[1])()
    reverse = jax.jit(jax.vjp(chunked, *at)[1])(direction)
    for one, other, same, ahead, behind in zip(
        forward, reverse, plain, moved(step), moved(-step), strict=True
    ):
        assert float(jnp.abs(one).max()) > 0.01
        np.testing.assert_allclose(one, (ahead - behind) / (2 * step), atol=1e-9)
        np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(same, one, rtol=1e-10, atol=1e-13)


BATCH, LENGTH, HEADS, WORDS = 2, 64, 2, 128
SCORES, LOGITS = BATCH * HEADS * LENGTH**2, BATCH * LENGTH * WORDS


def largest_of(largest_array, **options):
    """Elements of the largest array in a Hessian-vector product of a whole model's loss."""
    config = {
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
    }
    model = build(config, vocab_size=WORDS, **options)
    params = jax.jit(model.init)(jax.random.key(0))
    tokens = jnp.zeros((BATCH, LENGTH + 1), jnp.int32)

    def product(params, direction):
        gradient = jax.grad(lambda params: jnp.mean(sequence_losses(model, params, tokens)))
        return jax.jvp(gradient, (params,), (direction,))[1]

    return largest_array(product, params, params)


@pytest.mark.parametrize("remat", cells([False, True], [False]))
def test_neither_scores_nor_logits_exist_with_chunks(largest_array, remat):
    largest = functools.partial(largest_of, largest_array, remat=remat)
    assert largest(attention_chunk=None, loss_chunk=None) >= max(SCORES, LOGITS)
    assert largest(attention_chunk=None, loss_chunk=8) >= SCORES
    assert largest(attention_chunk=8, loss_chunk=None) >= LOGITS
    assert largest(attention_chunk=8, loss_chunk=8) <= min(SCORES, LOGITS) // 4


def test_chunks_are_chosen_by_size(largest_array, monkeypatch):
    assert largest_of(largest_array) >= max(SCORES, LOGITS)
    monkeypatch.setattr(chunking, "LARGEST", min(SCORES, LOGITS) // 2)
    assert largest_of(largest_array) <= min(SCORES, LOGITS) // 4
