"""What holds of the transformer whatever the family."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metatune.models import build

VOCAB = 48
SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    initializer_range=0.3,  # so large that an error anywhere is seen in the logits
)
KINDS = {
    "llama": {**SIZES, "model_type": "llama", "num_key_value_heads": 2, "attention_bias": True},
    "gemma3": {
        **SIZES,
        "model_type": "gemma3_text",
        "num_key_value_heads": 2,
        "head_dim": 6,
        "sliding_window": 3,
        "sliding_window_pattern": 2,
        "final_logit_softcapping": 3.0,
    },
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 48,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 12,
        "initializer_range": 0.3,
    },
}
OTHERS = {
    "olmo3": {
        **SIZES,
        "model_type": "olmo3",
        "num_key_value_heads": 2,
        "sliding_window": 3,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "granite": {
        **SIZES,
        "model_type": "granite",
        "residual_multiplier": 0.4,
        "logits_scaling": 0.25,
        "attention_multiplier": 0.3,
    },
    "olmoe": {**SIZES, "model_type": "olmoe", "num_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe, one dense": {
        **SIZES,
        "model_type": "qwen3_moe",
        "num_key_value_heads": 2,
        "moe_intermediate_size": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "mlp_only_layers": [1],
    },
    "gpt_oss": {
        **SIZES,
        "model_type": "gpt_oss",
        "num_key_value_heads": 2,
        "head_dim": 4,
        "sliding_window": 3,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "nanochat": {**SIZES, "model_type": "nanochat", "num_key_value_heads": 2},
    "phi3": {**SIZES, "model_type": "phi3", "num_key_value_heads": 2, "partial_rotary_factor": 0.5},
}
"""Whose blocks differ in what a document could be seen by."""
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 100.0,
    "short_factor": [1.0, 1.5],
    "long_factor": [1.5, 4.0],
    "original_max_position_embeddings": 3,
}
BY_POSITION = {
    "llama, longrope": {**KINDS["llama"], "rope_parameters": LONGROPE},
    "llama, dynamic": {
        **KINDS["llama"],
        "max_position_embeddings": 3,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0},
    },
    "ministral3": {
        **SIZES,
        "model_type": "ministral3",
        "num_key_value_heads": 2,
        "head_dim": 4,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 2,
            "llama_4_scaling_beta": 0.5,
        },
    },
}
"""Whose numbers depend on more than distances: on positions, or on the length of a document, whose
angles are then computed in the program, in float32."""
# Tiny models take longer to compile than to run.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
every_kind = pytest.mark.parametrize("kind", KINDS)


def tokens_of(length: int = 8, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).integers(0, VOCAB, (batch, length))


def next_token_loss(model, params, tokens):
    logits = model.logits(params, tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def small(kind="llama", **options):
    """A model of ours alone, its parameters and tokens."""
    model = build({**KINDS, **OTHERS, **BY_POSITION}[kind], vocab_size=48, **options)
    params = jit(model.init)(jax.random.key(0))
    return model, params, jnp.asarray(tokens_of())


@every_kind
def test_remat_changes_no_number(kind):
    plain, params, tokens = small(kind)
    remat, _, _ = small(kind, remat=True)

    def value_and_grad(model):
        return jit(jax.value_and_grad(functools.partial(next_token_loss, model)))

    # `remat2`, or `RematTraced` where JAX_REMAT3=1.
    assert "remat" in str(jax.make_jaxpr(remat.logits)(params, tokens)).lower()
    expected = value_and_grad(plain)(params, tokens)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=1e-5),
        value_and_grad(remat)(params, tokens),
        expected,
    )


@every_kind
def test_bfloat16_computes_narrow_and_keeps_parameters_wide(kind):
    wide, params, tokens = small(kind)
    narrow, fresh, _ = small(kind, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    assert jax.eval_shape(narrow.hidden, params, tokens).dtype == jnp.bfloat16
    logits = jit(narrow.logits)(params, tokens)
    assert logits.dtype == jnp.float32

    def gradient(model):
        return jit(jax.grad(functools.partial(next_token_loss, model)))(params, tokens)

    def off(got, expected):
        difference = jax.tree.map(jnp.subtract, got, expected)
        return optax.tree.norm(difference) / optax.tree.norm(expected)

    grads = gradient(narrow)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    # bfloat16 has eight bits: relative errors of a few times 2⁻⁸ through two blocks.
    assert 1e-4 < off(logits, jit(wide.logits)(params, tokens)) < 5e-2
    assert 1e-4 < off(grads, gradient(wide)) < 5e-2


def test_gradient_of_a_frequent_token_sums_in_float32():
    model, params, _ = small(dtype="bfloat16")
    # Blocks of zeros leave the residual stream alone, so that each token adds the same gradient.
    blocks = jax.tree.map(jnp.zeros_like, params["model"]["layers"])

    @jit
    @jax.grad
    def gradient(embedding, tokens):
        body = {**params["model"], "layers": blocks, "embed_tokens": {"weight": embedding}}
        hidden = model.hidden({**params, "model": body}, tokens)
        return hidden.astype(jnp.float32)[..., 0].sum()

    embedding = params["model"]["embed_tokens"]["weight"]
    one = gradient(embedding, jnp.full((1, 1), 7))
    many = gradient(embedding, jnp.full((256, 8), 7))
    assert jnp.abs(one[7]).max() > 1e-3
    np.testing.assert_allclose(many, 256 * 8 * one, rtol=1e-5)


def test_vmap_over_parameters_is_a_loop_over_them():
    model, params, tokens = small()
    other = jit(model.init)(jax.random.key(1))
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), params, other)
    together = jit(jax.vmap(model.logits, in_axes=(0, None)))(both, tokens)
    alone = jit(model.logits)
    for logits, one in zip(together, (params, other), strict=True):
        np.testing.assert_allclose(logits, alone(one, tokens), atol=1e-5)


@every_kind
def test_no_token_sees_a_later_one(kind):
    model, params, tokens = small(kind)
    later = tokens.at[:, 5:].set((tokens[:, 5:] + 1) % 48)
    logits = jit(model.logits)
    before, after = logits(params, tokens), logits(params, later)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (jnp.abs(before - after)[:, 5:].max(axis=-1) > 1e-3).all()


@pytest.mark.parametrize(
    ("kind", "chunk"),
    [(kind, chunk) for kind in KINDS for chunk in (None, 3)]
    + [(kind, None) for kind in OTHERS]
    + [(kind, None) for kind in BY_POSITION],
)
def test_each_document_is_computed_as_if_it_stood_alone(kind, chunk, float64):
    model, params, tokens = small(kind, attention_chunk=chunk, dtype="float64")
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    lengths = [[3, 4, 1], [4, 4]]
    close = 2e-7 if kind in BY_POSITION else 1e-12
    # The last number of the first row is that of its first document: another one all the same.
    numbers = jnp.array([[5, 5, 5, 2, 2, 2, 2, 5], [0, 0, 0, 0, 1, 1, 1, 1]])
    logits = jit(model.logits)
    packed = logits(params, tokens, numbers)
    for row, parts in enumerate(lengths):
        start = 0
        for length in parts:
            alone = logits(params, tokens[row : row + 1, start : start + length])
            got = packed[row, start : start + length]
            np.testing.assert_allclose(got, alone[0], atol=close)
            start += length
    whole = logits(params, tokens)
    assert (jnp.abs(packed - whole)[0, 3:].max(axis=-1) > 1e-3).all()
    one = logits(params, tokens, jnp.zeros_like(tokens))
    np.testing.assert_allclose(one, whole, atol=close)


def test_documents_pass_through_a_hessian_product_and_remat(float64):
    model, params, tokens = small("gpt2", dtype="float64", remat=True, attention_chunk=3)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    direction = jax.tree.map(jnp.cos, params)
    numbers = jnp.asarray(np.array([[0, 0, 0, 1, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1, 1, 1]]))

    def gradient(params):
        return jax.grad(lambda params: jnp.sin(model.logits(params, tokens, numbers)).mean())(
            params
        )

    product = jit(lambda p, d: jax.jvp(gradient, (p,), (d,))[1])(params, direction)
    at = jit(lambda step: gradient(optax.tree.add_scale(params, step, direction)))
    expected = jax.tree.map(lambda a, b: (a - b) / 2e-6, at(1e-6), at(-1e-6))
    assert optax.tree.norm(expected) > 1e-2
    off = optax.tree.norm(optax.tree.sub(product, expected))
    assert off < 1e-6 * optax.tree.norm(expected)


def test_more_tokens_than_learned_positions_are_refused():
    model, params, _ = small("gpt2")
    with pytest.raises(ValueError, match="13 tokens; the model has learned 12 positions: cut"):
        model.hidden(params, jnp.zeros((1, 13), jnp.int32))
    assert model.hidden(params, jnp.zeros((1, 12), jnp.int32)).shape == (1, 12, 16)
