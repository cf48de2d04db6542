"""The model is transformers' Llama, and its derivatives are derivatives."""

import functools
import json
import types
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metatune.models import build

SIZES: dict[str, Any] = dict(
    vocab_size=48,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    initializer_range=0.3,  # so large that an error anywhere is seen in the logits
)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "multi-head": {},
    "grouped": {"num_key_value_heads": 2},
    "multi-query": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "biased": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 2},
    "head_dim": {"head_dim": 6, "num_key_value_heads": 2},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 3.0}},
    "llama3": {"rope_parameters": LLAMA3, "rms_norm_eps": 0.1},
}


@pytest.fixture(scope="module")
def torch():
    """PyTorch, with transformers' classes on it, on one thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of importing third-party packages
        import torch
        import transformers

    return types.SimpleNamespace(torch=torch, transformers=transformers)


def reference(torch, **fields):
    """A model of transformers, with every parameter random: norms and biases too."""
    config = torch.transformers.LlamaConfig(**{**SIZES, **fields}, attn_implementation="eager")
    torch.torch.manual_seed(0)
    model = torch.transformers.LlamaForCausalLM(config).eval()
    with torch.torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.torch.randn_like(parameter))
    return model


def config_json(model) -> dict[str, Any]:
    """What transformers would write into the model's `config.json`."""
    return json.loads(model.config.to_json_string())


def from_torch(names, state):
    """Parameters out of the tensors of a checkpoint, as they lie there."""

    def leaf(leaf):
        arrays = [state[name].detach().numpy().copy() for name in leaf.names]
        return jnp.asarray(np.stack(arrays) if leaf.stacked else arrays[0])

    return jax.tree.map(leaf, names)


def tokens_of(length: int = 20, batch: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, SIZES["vocab_size"], (batch, length))


def next_token_loss(model, params, tokens):
    logits = model.logits(params, tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def small(**options):
    """A model of ours alone, its parameters and tokens."""
    config = {**SIZES, "model_type": "llama", "num_key_value_heads": 2, "attention_bias": True}
    model = build(config, vocab_size=48, **options)
    params = jax.jit(model.init)(jax.random.key(0))
    return model, params, jnp.asarray(tokens_of(8, 2))


def random_like(params, seed):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(size=leaf.shape)), params)


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_logits_are_those_of_transformers(torch, fields):
    theirs = reference(torch, **fields)
    ours = build(config_json(theirs), vocab_size=SIZES["vocab_size"])
    params = from_torch(ours.names(), theirs.state_dict())
    tokens = tokens_of()
    with torch.torch.no_grad():
        expected = theirs(torch.torch.from_numpy(tokens)).logits.numpy()
    logits = jax.jit(ours.logits)(params, jnp.asarray(tokens))
    assert logits.dtype == jnp.float32
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("fields", "older"),
    [
        (VARIANTS["theta"], {"rope_theta": 50.0}),
        (
            VARIANTS["linear"],
            {"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 3.0}},
        ),
        (
            VARIANTS["llama3"],
            {
                "rope_theta": 100.0,
                "rope_scaling": {k: LLAMA3[k] for k in {*LLAMA3} - {"rope_theta"}},
            },
        ),
    ],
    ids=["theta", "linear", "llama3"],
)
def test_older_spelling_of_rope_is_the_same_model(torch, fields, older):
    newer = config_json(reference(torch, **fields))
    config = {name: value for name, value in newer.items() if name != "rope_parameters"}
    assert build({**config, **older}, vocab_size=48) == build(newer, vocab_size=48)
    assert build(config, vocab_size=48) != build(newer, vocab_size=48)


@pytest.mark.parametrize("fields", [{}, VARIANTS["tied"]], ids=["untied", "tied"])
def test_a_step_of_adamw_is_that_of_torch(torch, fields):
    theirs = reference(torch, **fields)
    ours = build(config_json(theirs), vocab_size=48)
    params = from_torch(ours.names(), theirs.state_dict())
    tokens = tokens_of()

    batch = torch.torch.from_numpy(tokens)
    theirs(batch, labels=batch).loss.backward()
    torch.torch.optim.AdamW(
        theirs.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
    ).step()

    grads = jax.jit(jax.grad(functools.partial(next_token_loss, ours)))(params, jnp.asarray(tokens))
    optimizer = optax.adamw(1e-2, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    stepped = optax.apply_updates(params, updates)
    expected = from_torch(ours.names(), theirs.state_dict())
    # Adam's first step is the sign of a gradient: one near eps = 1e-8 shows float32's rounding.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=0), stepped, expected
    )
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), stepped, params)
    assert min(jax.tree.leaves(moved)) > 5e-3


def test_remat_changes_no_number():
    plain, params, tokens = small()
    remat, _, _ = small(remat=True)

    def value_and_grad(model):
        return jax.jit(jax.value_and_grad(functools.partial(next_token_loss, model)))

    assert "remat" in str(jax.make_jaxpr(remat.logits)(params, tokens))
    expected = value_and_grad(plain)(params, tokens)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=1e-5),
        value_and_grad(remat)(params, tokens),
        expected,
    )


def test_bfloat16_computes_narrow_and_keeps_parameters_wide():
    wide, params, tokens = small()
    narrow, fresh, _ = small(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    assert narrow.hidden(params, tokens).dtype == jnp.bfloat16
    logits = narrow.logits(params, tokens)
    assert logits.dtype == jnp.float32

    def gradient(model):
        return jax.jit(jax.grad(functools.partial(next_token_loss, model)))(params, tokens)

    def off(got, expected):
        difference = jax.tree.map(jnp.subtract, got, expected)
        return optax.tree.norm(difference) / optax.tree.norm(expected)

    grads = gradient(narrow)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    # bfloat16 has eight bits: relative errors of a few times 2⁻⁸ through two blocks.
    assert 1e-4 < off(logits, wide.logits(params, tokens)) < 5e-2
    assert 1e-4 < off(grads, gradient(wide)) < 5e-2


def test_gradient_of_a_frequent_token_sums_in_float32():
    model, params, _ = small(dtype="bfloat16")
    # Blocks of zeros leave the residual stream alone, so that each token adds the same gradient.
    blocks = jax.tree.map(jnp.zeros_like, params["model"]["layers"])

    @jax.jit
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


@pytest.mark.parametrize("remat", [False, True])
def test_hessian_times_vector_is_the_difference_of_gradients(float64, remat):
    model, params, tokens = small(dtype="float64", remat=remat)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    direction = random_like(params, 2)
    gradient = jax.grad(functools.partial(next_token_loss, model))

    @jax.jit
    def product(params, direction):
        return jax.jvp(lambda params: gradient(params, tokens), (params,), (direction,))[1]

    step = 1e-5

    @jax.jit
    def gradient_at(distance):
        return gradient(optax.tree.add_scale(params, distance, direction), tokens)

    ahead, behind = gradient_at(step), gradient_at(-step)
    expected = jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)
    assert optax.tree.norm(expected) > 1
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=1e-6),
        product(params, direction),
        expected,
    )


def test_vmap_over_parameters_is_a_loop_over_them():
    model, params, tokens = small()
    other = jax.jit(model.init)(jax.random.key(1))
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), params, other)
    together = jax.jit(jax.vmap(model.logits, in_axes=(0, None)))(both, tokens)
    alone = jax.jit(model.logits)
    for logits, one in zip(together, (params, other), strict=True):
        np.testing.assert_allclose(logits, alone(one, tokens), atol=1e-5)


def test_no_token_sees_a_later_one():
    model, params, tokens = small()
    later = tokens.at[:, 5:].set((tokens[:, 5:] + 1) % 48)
    logits = jax.jit(model.logits)
    before, after = logits(params, tokens), logits(params, later)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (jnp.abs(before - after)[:, 5:].max(axis=-1) > 1e-3).all()
