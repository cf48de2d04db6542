"""The loss of a sequence is the mean over the tokens that are predicted, no others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells
from jax.flatten_util import ravel_pytree

from metatune.data import Batch
from metatune.inner import losses
from metatune.inner.losses import batch_losses, domain_losses, held_out_loss, worst_case
from metatune.models import build

# One program for each shape, in place of one for each operation of it.
sequence_losses = jax.jit(losses.sequence_losses, static_argnums=0)

LLAMA = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.5,
}
GPT2 = {
    "model_type": "gpt2",
    "n_embd": 8,
    "n_layer": 1,
    "n_head": 2,
    "n_positions": 16,
    "initializer_range": 0.5,
}
TOKENS = np.random.default_rng(0).integers(0, 11, size=(3, 7)).astype(np.int32)
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0]], np.float32)


@pytest.fixture
def model():
    return build(LLAMA, vocab_size=11, dtype="float64")


def parameters(model):
    return jax.tree.map(lambda x: x.astype(jnp.float64), jax.jit(model.init)(jax.random.key(0)))


def test_the_mean_is_over_the_tokens_that_count(model, float64):
    params = parameters(model)
    # Attention looks back only: the loss of token t is what it adds to the sum up to it.
    sums = [t * np.asarray(sequence_losses(model, params, TOKENS[:, : t + 1])) for t in range(1, 7)]
    each = np.diff(np.array(sums), axis=0, prepend=0).T
    expected = (each * MASK).sum(1) / MASK.sum(1)
    masked = sequence_losses(model, params, TOKENS, mask=MASK)
    np.testing.assert_allclose(masked, expected, rtol=1e-12)
    whole = sequence_losses(model, params, TOKENS, mask=np.ones_like(MASK))
    np.testing.assert_allclose(whole, sequence_losses(model, params, TOKENS), rtol=1e-12)


def test_padding_changes_neither_loss_nor_gradient(model, float64):
    params = parameters(model)

    def loss(params, tokens, mask):
        return jnp.sum(sequence_losses(model, params, tokens, mask=mask))

    mask = np.tile(np.array([1, 1, 1, 0, 0, 0], np.float32), (3, 1))
    padded = jax.jit(jax.value_and_grad(loss))(params, TOKENS, mask)
    short = jax.jit(jax.value_and_grad(loss))(params, TOKENS[:, :4], None)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14), padded, short
    )


def test_the_gradient_of_a_masked_loss_is_that_of_its_differences(model, float64):
    params = parameters(model)
    flat, unravel = ravel_pytree(params)

    def loss(flat):
        return jnp.sum(sequence_losses(model, unravel(flat), TOKENS, mask=MASK))

    direction = np.random.default_rng(1).normal(size=flat.shape)
    step = 1e-6
    difference = (loss(flat + step * direction) - loss(flat - step * direction)) / (2 * step)
    assert jax.grad(loss)(flat) @ direction == pytest.approx(float(difference), rel=1e-7)


def test_objectives_use_the_mask_of_a_batch(model, float64):
    params = parameters(model)
    weight = np.array([0.5, 2.0, 1.0], np.float32)
    batch = Batch(TOKENS, np.zeros(3, np.int32), weight, mask=MASK)
    expected = np.mean(weight * np.asarray(sequence_losses(model, params, TOKENS, mask=MASK)))
    assert held_out_loss(model)(params, batch) == pytest.approx(expected, rel=1e-12)
    plain = batch._replace(mask=None)
    assert held_out_loss(model)(params, plain) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("family", cells(["llama", "gpt2"], ["llama"]))
def test_documents_that_are_kept_apart_have_the_losses_that_each_has_alone(family, float64):
    config = LLAMA if family == "llama" else GPT2
    model = build(config, vocab_size=11, dtype="float64")
    params = parameters(model)
    documents = np.tile(np.array([0, 0, 0, 0, 1, 1, 1], np.int32), (3, 1))
    mask = np.tile(np.array([1, 1, 1, 0, 1, 1], np.float32), (3, 1))  # not across the border
    batch = Batch(TOKENS, np.zeros(3, np.int32), np.ones(3, np.float32), documents, mask)

    def packed(params):
        return jnp.sum(batch_losses(model, params, batch))

    def apart(params):
        first = sequence_losses(model, params, TOKENS[:, :4])
        second = sequence_losses(model, params, TOKENS[:, 4:])
        return jnp.sum(3 * first + 2 * second) / 5

    found, expected = (jax.jit(jax.value_and_grad(f))(params) for f in (packed, apart))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected
    )
    crossing = jnp.sum(batch_losses(model, params, batch._replace(documents=None)))
    assert abs(crossing - expected[0]) > 1e-3


def test_the_worst_case_is_between_the_mean_and_the_largest_loss(model, float64):
    """Two sequences of domain 0, of weight 1/4 in the target, one of domain 2; none of domain 1."""
    params = parameters(model)
    weight = np.array([0.375, 0.375, 2.25], np.float32)
    batch = Batch(TOKENS, np.array([0, 0, 2], np.int32), weight, mask=MASK)
    each = np.asarray(sequence_losses(model, params, TOKENS, mask=MASK))
    of_domains = np.array([each[:2].mean(), each[2]])
    for temperature in (0.1, 1.0):
        exponentials = np.exp(of_domains / temperature)
        expected = temperature * np.log([0.25, 0.75] @ exponentials)
        found = worst_case(domain_losses(model, 3)(params, batch), temperature)
        assert float(found) == pytest.approx(expected, rel=1e-6)  # weights are float32
    mean = held_out_loss(model)(params, batch)
    assert float(worst_case(domain_losses(model, 3)(params, batch), 1e4)) == pytest.approx(
        float(mean), 1e-4
    )
    largest = worst_case(domain_losses(model, 3)(params, batch), 1e-4)
    assert float(largest) == pytest.approx(of_domains.max(), abs=1e-3)


def test_the_gradient_of_the_worst_case_is_that_of_its_differences(model, float64):
    flat, unravel = ravel_pytree(parameters(model))
    weight = np.array([1.0, 1.0, 1.0], np.float32)
    batch = Batch(TOKENS, np.array([0, 1, 1], np.int32), weight)

    @jax.jit
    def loss(flat):
        return worst_case(domain_losses(model, 3)(unravel(flat), batch), 0.2)

    direction = np.random.default_rng(2).normal(size=flat.shape)
    difference = (loss(flat + 1e-6 * direction) - loss(flat - 1e-6 * direction)) / 2e-6
    gradient = jax.jit(jax.grad(loss))(flat)
    assert gradient @ direction == pytest.approx(float(difference), rel=1e-6)
