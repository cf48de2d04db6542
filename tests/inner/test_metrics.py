"""Accuracy and exact match against the logits of the model, token by token."""

import jax
import numpy as np
import pytest

from metatune.data import Batch, TokenClass
from metatune.inner.metrics import MEASURES, hits
from metatune.models import build

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.5,
}
WEIGHT = np.array([0.5, 2.0, 1.0], np.float32)


@pytest.fixture(scope="module")
def model():
    return build(CONFIG, vocab_size=5)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(1))


@pytest.fixture(scope="module")
def batch(model, params):
    """Sequences as the model goes on, with a mistake in the second and two in the third."""
    step = jax.jit(lambda tokens: model.hidden(params, tokens) @ model.unembedding(params).T)
    tokens = np.array([[0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]], np.int32)
    for at in range(1, 6):
        tokens[:, at] = np.argmax(np.asarray(step(tokens))[:, at - 1], axis=-1)
        if at == 5:
            tokens[1:, at] = (tokens[1:, at] + 1) % 5
        if at == 2:
            tokens[2, at] = (tokens[2, at] + 1) % 5
    return Batch(tokens, np.zeros(3, np.int32), WEIGHT)


EXPECTED = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 0, 1, 1, 0]], bool)


def test_a_token_is_hit_where_it_is_the_likeliest(model, params, batch):
    np.testing.assert_array_equal(hits(model, params, batch), EXPECTED)


def test_logits_in_chunks_say_the_same(params, batch):
    chunked = build(CONFIG, vocab_size=5, loss_chunk=4)
    np.testing.assert_array_equal(hits(chunked, params, batch), EXPECTED)


def negative(name, model, params, batch):
    return float(MEASURES[name](model)(params, batch))


def test_accuracy_is_the_weighted_share_of_tokens(model, params, batch):
    found = negative("accuracy", model, params, batch)
    assert found == pytest.approx(-np.mean(WEIGHT * [1.0, 0.8, 0.6]))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 1]], np.float32)
    found = negative("accuracy", model, params, batch._replace(mask=mask))
    assert found == pytest.approx(-np.mean(WEIGHT * [1.0, 1.0, 1 / 3]))


def test_exact_match_wants_every_token_that_counts(model, params, batch):
    assert negative("exact_match", model, params, batch) == pytest.approx(-0.5 / 3)
    mask = np.ones((3, 5), np.float32)
    mask[1, 4] = 0
    found = negative("exact_match", model, params, batch._replace(mask=mask))
    assert found == pytest.approx(-2.5 / 3)


def test_of_prompts_with_completions_only_these_have_to_match(model, params, batch):
    """The third sequence's mistakes are in its prompt; the second has none but text."""
    classes = np.full((3, 6), TokenClass.TEXT, np.uint8)
    classes[2] = TokenClass.PROMPT
    classes[2, 3:5] = TokenClass.COMPLETION
    found = negative("exact_match", model, params, batch._replace(classes=classes))
    assert found == pytest.approx(-(0.5 + 1.0) / 3)


@pytest.mark.parametrize("name", ["accuracy", "exact_match"])
def test_nothing_of_it_has_a_gradient(model, params, batch, name):
    """Which is why only values are asked for."""
    gradient = jax.grad(MEASURES[name](model))(params, batch)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))
