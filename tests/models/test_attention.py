"""Attention with and without chunks: against numpy, central differences and one another."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells

from metatune.models import attention as module
from metatune.models.attention import attention as scaled_attention

SCALE = 5**-0.5
SINKS = np.array([[0.3, -2.0], [1.0, 40.0]])
"""The last is above all scores."""
DOCUMENTS = np.array([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 2, 2, 3]])
attention = functools.partial(scaled_attention, scale=SCALE)
HEADS = {"multi-head": (3, 1), "grouped": (2, 3), "multi-query": (1, 4)}
every_grouping = pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)


def arrays(heads, *, length=7, batch=2, features=5):
    kv_heads, group = heads
    rng = np.random.default_rng(3)
    q = rng.normal(size=(batch, kv_heads, group, length, features))
    k, v = 2 * rng.normal(size=(2, batch, kv_heads, length, features))
    return tuple(jnp.asarray(array) for array in (q, k, v))


def by_loops(q, k, v, softcap=None, window=7, documents=DOCUMENTS * 0, sinks=None):
    """Attention as it is defined, one query at a time."""
    q, k, v = (np.asarray(array, np.float64) for array in (q, k, v))
    out = np.zeros_like(q)
    for b, h, g, i in np.ndindex(q.shape[:4]):
        seen = [j for j in range(i + 1) if i - j < window and documents[b, j] == documents[b, i]]
        scores = SCALE * k[b, h, seen] @ q[b, h, g, i]
        weights = np.exp(scores if softcap is None else softcap * np.tanh(scores / softcap))
        more = 0 if sinks is None else np.exp(sinks[h, g])
        out[b, h, g, i] = (weights / (weights.sum() + more)) @ v[b, h, seen]
    return out


@pytest.fixture(params=[1, 3], ids=["whole", "stretches"])
def stretches(request, monkeypatch):
    """Sequences of seven tokens, taken whole or in stretches of 3, 3 and 1 queries."""
    monkeypatch.setattr(module, "STRETCHES", request.param)
    monkeypatch.setattr(module, "SHORTEST", 2)


@pytest.mark.usefixtures("stretches")
@every_grouping
@pytest.mark.parametrize("chunk", [None, 1, 3, 7])
def test_it_is_attention_by_definition(float64, heads, chunk):
    q, k, v = arrays(heads)
    got = jax.jit(attention, static_argnames="chunk")(q, k, v, chunk=chunk)
    np.testing.assert_allclose(got, by_loops(q, k, v), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("stretches")
@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"softcap": 0.7},
        {"window": 1},
        {"window": 3},
        {"documents": DOCUMENTS},
        {"sinks": SINKS},
        {"sinks": SINKS, "window": 3, "documents": DOCUMENTS},
    ],
    ids=["softcap", "window of one", "window", "documents", "sinks", "all but a cap"],
)
def test_caps_windows_documents_and_sinks_are_those_of_the_definition(float64, options, chunk):
    q, k, v = arrays((2, 2))
    got = jax.jit(functools.partial(attention, chunk=chunk))(q, k, v, **options_of(options))
    np.testing.assert_allclose(got, by_loops(q, k, v, **options), rtol=1e-12, atol=1e-12)
    assert np.abs(got - by_loops(q, k, v)).max() > 0.1


def options_of(options):
    return {name: jnp.asarray(value) for name, value in options.items()}


def curved(chunk):
    """A scalar of attention with second derivatives in everything."""

    def scalar(q, k, v):
        options: dict[str, Any] = dict(softcap=0.7, window=4, documents=halves(q), chunk=chunk)
        return jnp.sum(jnp.sin(attention(q, k, v, sinks=q[0, :, :, 0, 0], **options)))

    return scalar


def halves(q):
    """Documents that begin at tokens 0 and 2 of each sequence."""
    return jnp.broadcast_to(jnp.arange(q.shape[3])[None] >= 2, (q.shape[0], q.shape[3]))


@pytest.mark.usefixtures("stretches")
@pytest.mark.parametrize(
    "heads",
    cells({name: (of,) for name, of in HEADS.items()}, {"multi-head", "multi-query"}),
)
def test_hessian_times_vector_is_the_difference_of_gradients(float64, heads):
    at, direction = arrays(heads), tuple(jnp.cos(array) for array in arrays(heads))
    gradient = jax.jit(jax.grad(curved(3), argnums=(0, 1, 2)))
    step = 1e-5

    def moved(size):
        return gradient(*(a + size * d for a, d in zip(at, direction, strict=True)))

    forward = jax.jit(lambda: jax.jvp(gradient, at, direction)[1])()
    whole = jax.grad(curved(None), argnums=(0, 1, 2))
    plain = jax.jit(lambda: jax.jvp(whole, at, direction)[1])()
    reverse = jax.jit(jax.vjp(gradient, *at)[1])(direction)
    for one, other, same, ahead, behind in zip(
        forward, reverse, plain, moved(step), moved(-step), strict=True
    ):
        assert float(jnp.abs(one).max()) > 0.1
        np.testing.assert_allclose(one, (ahead - behind) / (2 * step), atol=1e-8)
        np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(same, one, rtol=1e-10, atol=1e-12)


def test_scores_of_a_chunk_are_the_largest_array(largest_array):
    at = arrays((2, 2), length=64, features=4)
    scores = 2 * 2 * 2 * 64 * 64

    def product(chunk):
        gradient = jax.grad(curved(chunk), argnums=(0, 1, 2))
        return lambda *at: jax.jvp(gradient, at, at)[1]

    for of in (curved, lambda chunk: jax.grad(curved(chunk)), product):
        assert largest_array(of(None), *at) == scores
        assert largest_array(of(4), *at) == scores * 4 // 64


def test_most_of_the_masked_scores_are_never_computed(largest_array, monkeypatch):
    monkeypatch.setattr(module, "SHORTEST", 16)
    at = arrays((2, 2), length=64, features=4)
    scores = 2 * 2 * 2 * 64 * 64
    gradient = jax.grad(curved(None), argnums=(0, 1, 2))
    assert largest_array(lambda *at: jax.jvp(gradient, at, at)[1], *at) == scores // 4


def test_vmap_is_a_loop(float64):
    q, k, v = (jnp.stack([array, 2 * array]) for array in arrays((2, 2)))
    gradient = jax.grad(curved(3), argnums=(0, 1, 2))
    together = jax.jit(jax.vmap(gradient))(q, k, v)
    for i in range(2):
        alone = jax.jit(gradient)(q[i], k[i], v[i])
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[i], other, rtol=1e-12, atol=1e-14)


def test_gradients_of_keys_and_values_sum_over_chunks_in_float32():
    wide = arrays((1, 1), length=400, batch=1, features=2)
    narrow = tuple(array.astype(jnp.bfloat16) for array in wide)
    wide = tuple(array.astype(jnp.float32) for array in narrow)

    def gradient(at, chunk):
        def total(k, v):
            return jnp.sum(attention(at[0] * 0, k, v, chunk=chunk).astype(jnp.float32))

        return jax.jit(jax.grad(total, argnums=1))(*at[1:])

    want, got = gradient(wide, None), gradient(narrow, 1)
    assert got.dtype == jnp.bfloat16
    # That of the first value sums 400 weights 1/i, each of which bfloat16 rounds by up to 2⁻⁹.
    np.testing.assert_allclose(got.astype(jnp.float32)[0, 0, 0], want[0, 0, 0], rtol=2**-8)
