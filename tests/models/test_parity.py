"""Every family is transformers' model of that name: logits, gradients, a step, files."""

import functools
import types
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cells import cells

from metatune.inner.cross_entropy import token_losses
from metatune.models import load_pretrained, save_pretrained
from metatune.models.families import FAMILIES

VOCAB = 48
SIZES: dict[str, Any] = dict(
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    initializer_range=0.2,  # so large that an error anywhere is seen in the logits
    # Torch gives padding's embedding no gradient; padding is never part of a batch here.
    pad_token_id=None,
)
GPT2 = {
    **{k: SIZES[k] for k in ("vocab_size", "initializer_range", "pad_token_id")},
    **dict(n_embd=16, n_layer=3, n_head=4, n_positions=24),
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 100.0, "factor": 3.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 100.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 8.0,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 100.0,
    "short_factor": [1.0, 1.5],
    "long_factor": [1.5, 4.0],
    "original_max_position_embeddings": 8,
}
GROUPED = {"num_key_value_heads": 2}
TWO = {**GROUPED, "num_hidden_layers": 2}
GEMMA = {**GROUPED, "head_dim": 6, "query_pre_attn_scalar": 9, "sliding_window": 5}
GRANITE = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.4,
    "logits_scaling": 0.25,
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2}
QWEN3_MOE = {
    **TWO,
    **EXPERTS,
    "head_dim": 6,
    "moe_intermediate_size": 12,
}  # torch groups multiples of four
GPT_OSS = {
    **TWO,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "head_dim": 8,
    "intermediate_size": 12,
    "sliding_window": 5,
    "swiglu_alpha": 1.3,
    "swiglu_limit": 0.5,  # so small that it cuts off some
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, grouped": ("llama", GROUPED),
    "llama, multi-query, llama3": (
        "llama",
        {"num_key_value_heads": 1, "rope_parameters": LLAMA3, "rms_norm_eps": 0.1},
    ),
    "llama, tied, linear": ("llama", {"tie_word_embeddings": True, "rope_parameters": LINEAR}),
    "llama, biased, narrow heads": (
        "llama",
        {**GROUPED, "attention_bias": True, "mlp_bias": True, "head_dim": 6},
    ),
    "llama, yarn": ("llama", {**TWO, "rope_parameters": YARN}),
    "llama, yarn, two scales, not truncated": (
        "llama",
        {
            **TWO,
            "head_dim": 8,
            "rope_parameters": {**YARN, "mscale": 2.0, "mscale_all_dim": 0.5, "truncate": False},
        },
    ),
    "qwen3, dynamic, beyond its context": (
        "qwen3",
        {
            **TWO,
            "head_dim": 6,
            "max_position_embeddings": 12,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 3.0},
        },
    ),
    "llama, longrope, beyond its context": (
        "llama",
        {**TWO, "max_position_embeddings": 64, "rope_parameters": LONGROPE},
    ),
    "llama, longrope, within its context": (
        "llama",
        {
            **TWO,
            "rope_parameters": {
                **LONGROPE,
                "factor": 2.0,
                "attention_factor": 1.3,
                "original_max_position_embeddings": 20,
            },
        },
    ),
    "ministral3": (
        "ministral3",
        {
            **TWO,
            "head_dim": 8,
            "sliding_window": 15,
            "rope_parameters": {
                **YARN,
                "original_max_position_embeddings": 6,
                "llama_4_scaling_beta": 0.5,
            },
        },
    ),
    "smollm3": ("smollm3", {**GROUPED, "no_rope_layers": [1, 0, 1]}),
    "smollm3, windows": (
        "smollm3",
        {**GROUPED, "no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 5},
    ),
    "mistral": ("mistral", {**GROUPED, "sliding_window": 6, "head_dim": 6}),
    "qwen2": ("qwen2", {**GROUPED, "tie_word_embeddings": True}),
    "qwen2, windows": (
        "qwen2",
        {**GROUPED, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {**GROUPED, "head_dim": 6}),
    "qwen3, biased, windows": (
        "qwen3",
        {
            **GROUPED,
            "head_dim": 6,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
    ),
    # Early files of Gemma say `gelu`, and mean its approximation.
    "gemma": ("gemma", {"num_key_value_heads": 1, "head_dim": 6, "hidden_act": "gelu"}),
    "gemma2": (
        "gemma2",
        {**GEMMA, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0},
    ),
    "gemma3": (
        "gemma3_text",
        {
            **GEMMA,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": LINEAR,
                "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
            },
        },
    ),
    "gemma3, yarn on full layers": (
        "gemma3_text",
        {
            **GEMMA,
            "num_hidden_layers": 2,
            "sliding_window_pattern": 2,
            "rope_parameters": {
                "full_attention": {**YARN, "attention_factor": 1.2},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
            },
        },
    ),
    "olmo2": ("olmo2", TWO),
    "olmo2, biased, tied, yarn": (
        "olmo2",
        {**TWO, "attention_bias": True, "tie_word_embeddings": True, "rope_parameters": YARN},
    ),
    "olmo3": (
        "olmo3",
        {
            **TWO,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {**YARN, "attention_factor": 1.2},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
            },
        },
    ),
    "olmo3, its own pattern, biased": (
        "olmo3",
        {**GROUPED, "num_hidden_layers": 4, "attention_bias": True, "sliding_window": 3},
    ),
    "granite": ("granite", {**TWO, **GRANITE}),
    "granite, biased, tied, linear": (
        "granite",
        {
            **TWO,
            **GRANITE,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "rope_parameters": LINEAR,
        },
    ),
    "phi3": ("phi3", {**TWO, "sliding_window": 6}),
    "phi3, longrope on a half": (
        "phi3",
        {
            **TWO,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "partial_rotary_factor": 0.5,
            "max_position_embeddings": 64,
            "original_max_position_embeddings": 8,
            "tie_word_embeddings": True,
            "rope_parameters": LONGROPE,
        },
    ),
    "phi3, longrope within its context": (
        "phi3",
        {
            **TWO,
            "max_position_embeddings": 64,
            "original_max_position_embeddings": 32,
            "rope_parameters": {**LONGROPE, "original_max_position_embeddings": 32},
        },
    ),
    "qwen3_moe": ("qwen3_moe", {**QWEN3_MOE}),
    "qwen3_moe, normalised, windows, biased": (
        "qwen3_moe",
        {
            **QWEN3_MOE,
            "norm_topk_prob": True,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 5,
        },
    ),
    "qwen3_moe, one of three, tied": (
        "qwen3_moe",
        {**QWEN3_MOE, "num_experts": 3, "num_experts_per_tok": 1, "tie_word_embeddings": True},
    ),
    "qwen3_moe, every other dense": (
        "qwen3_moe",
        {**QWEN3_MOE, "num_hidden_layers": 3, "decoder_sparse_step": 2, "norm_topk_prob": True},
    ),
    "qwen3_moe, the first and the last dense, tied": (
        "qwen3_moe",
        {
            **QWEN3_MOE,
            "num_hidden_layers": 4,
            "mlp_only_layers": [0, 3],
            "use_sliding_window": True,
            "sliding_window": 5,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3_moe, all dense": ("qwen3_moe", {**QWEN3_MOE, "mlp_only_layers": [0, 1]}),
    "olmoe": ("olmoe", {**TWO, **EXPERTS}),
    "olmoe, normalised, biased": (
        "olmoe",
        {**TWO, **EXPERTS, "norm_topk_prob": True, "attention_bias": True},
    ),
    "olmoe, all of four": (
        "olmoe",
        {**TWO, "num_experts": 4, "num_experts_per_tok": 4, "rope_parameters": YARN},
    ),
    "gpt_oss": ("gpt_oss", GPT_OSS),
    "gpt_oss, one of three, unbiased attention, tied, full first": (
        "gpt_oss",
        {
            **GPT_OSS,
            "num_local_experts": 3,
            "num_experts_per_tok": 1,
            "attention_bias": False,
            "tie_word_embeddings": True,
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
        },
    ),
    "gpt_oss, all of four, multi-query, yarn": (
        "gpt_oss",
        {
            **GPT_OSS,
            "num_key_value_heads": 1,
            "num_local_experts": 4,
            "num_experts_per_tok": 4,
            "swiglu_limit": 7.0,
            "rope_parameters": YARN,
        },
    ),
    "gpt2": ("gpt2", GPT2),
    "gpt2, untied, scaled by layer": (
        "gpt2",
        {
            **GPT2,
            "n_inner": 20,
            "tie_word_embeddings": False,
            "scale_attn_by_inverse_layer_idx": True,
            "scale_attn_weights": False,
            "activation_function": "relu",
        },
    ),
    "nanochat": ("nanochat", {**TWO, "final_logit_softcapping": 3.0}),
    # The norm's ε is so large that the factor of yarn's scores is seen.
    "nanochat, biased, tied, yarn, uncapped": (
        "nanochat",
        {
            **TWO,
            "head_dim": 6,
            "attention_bias": True,
            "tie_word_embeddings": True,
            "rms_norm_eps": 0.1,
            "hidden_act": "gelu",
            "rope_parameters": {**YARN, "attention_factor": 1.5},
        },
    ),
    "neox": (
        "gpt_neox",
        {"rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.5}},
    ),
    "neox, sequential, unbiased": (
        "gpt_neox",
        {
            "use_parallel_residual": False,
            "attention_bias": False,
            "tie_word_embeddings": True,
            "hidden_act": "gelu_new",
            "rope_parameters": {**LINEAR, "partial_rotary_factor": 1.0},
        },
    ),
}
FURTHER = {
    "llama",
    "llama, grouped",
    "llama, tied, linear",
    "llama, yarn",
    "llama, longrope, within its context",
    "smollm3, windows",
    "qwen2",
    "qwen3",
    "qwen3, biased, windows",
    "gemma3, yarn on full layers",
    "olmo2",
    "olmo3, its own pattern, biased",
    "granite",
    "phi3",
    "phi3, longrope within its context",
    "qwen3_moe",
    "qwen3_moe, one of three, tied",
    "qwen3_moe, the first and the last dense, tied",
    "qwen3_moe, all dense",
    "olmoe",
    "olmoe, all of four",
    "gpt_oss, one of three, unbiased attention, tied, full first",
    "gpt_oss, all of four, multi-query, yarn",
    "gpt2",
    "nanochat",
    "neox, sequential, unbiased",
}
"""Of each family one that has most of it stays, and of each kind of positions and windows."""
CURVED = {"gemma2", "qwen3_moe, every other dense", "gpt_oss", "nanochat", "neox"}
"""Blocks whose second derivatives no other has: norms, gates and positions are of several."""
every_config = pytest.mark.parametrize("case", cells(CONFIGS.keys(), FURTHER), indirect=True)
B1, B2, DECAY = 0.9, 0.95, 0.1
EPS = 1e-3
"""Of AdamW: above the rounding of gradients that are zero, as those of a key's bias."""


@pytest.fixture(scope="module")
def torch():
    """PyTorch, with transformers' classes on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of importing third-party packages
        import torch
        import transformers

        transformers.AutoModelForCausalLM  # noqa: B018  imports it
    return types.SimpleNamespace(torch=torch, transformers=transformers)


@pytest.fixture(scope="module")
def case(request, torch, tmp_path_factory):
    """A model of transformers with random parameters, its numbers, and its folder."""
    kind, fields = CONFIGS[request.param]
    sizes = {} if kind == "gpt2" else SIZES
    config = torch.transformers.AutoConfig.for_model(kind, **{**sizes, **fields})
    torch.torch.manual_seed(0)
    theirs = torch.transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager"
    ).eval()
    with torch.torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(folder)

    tokens = np.random.default_rng(1).integers(1, VOCAB, (3, 20))
    batch = torch.torch.from_numpy(tokens)
    output = theirs(batch, labels=batch)
    output.loss.backward()
    family = FAMILIES[kind]

    def named(values):
        found = {family.normalised(name): value.detach().numpy().copy() for name, value in values}
        if kind == "gpt_oss":  # whose checkpoints hold them in one too
            return found
        return {name: part for whole in found.items() for name, part in by_expert(*whole)}

    grads = named((name, p.grad) for name, p in theirs.named_parameters())
    torch.torch.optim.AdamW(
        theirs.parameters(),
        lr=1e-2,
        betas=(B1, B2),
        eps=EPS,
        weight_decay=DECAY,
    ).step()
    return types.SimpleNamespace(
        folder=folder,
        tokens=tokens,
        logits=output.logits.detach().numpy(),
        grads=grads,
        stepped=named(theirs.named_parameters()),
    )


def by_expert(name, value):
    """What transformers 5 holds of all experts in one, as checkpoints have it."""
    if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
        return [(name, value)]
    prefix, _, fused = name.rpartition(".")
    kinds = ["gate_proj", "up_proj"] if fused == "gate_up_proj" else [fused]
    return [
        (f"{prefix}.{expert}.{kind}.weight", part)
        for expert, whole in enumerate(value)
        for kind, part in zip(kinds, np.split(whole, len(kinds)), strict=True)
    ]


def loss_of(model, params, tokens):
    """The mean loss of next tokens, of sequences as long as torch's: some ropes follow that."""
    hidden = model.hidden(params, tokens)[:, :-1]
    softcap, chunk = model.config.logit_softcap, model.loss_chunk
    unembedding = model.unembedding(params)
    losses = token_losses(hidden, unembedding, tokens[:, 1:], softcap=softcap, chunk=chunk)
    return losses.mean()


def by_name(model, params):
    """Parameters, or what is like them, by their checkpoint names."""
    found = {}
    for leaf, array in zip(jax.tree.leaves(model.names()), jax.tree.leaves(params), strict=True):
        parts = np.asarray(array) if leaf.stacked else np.asarray(array)[None]
        found |= dict(zip(leaf.names, parts, strict=True))
    return found


def assert_gradients(model, grads, case):
    """Gradients are those of torch, tensor by tensor."""
    ours = by_name(model, grads)
    assert ours.keys() == case.grads.keys()
    whole = np.sqrt(sum((grad**2).sum() for grad in case.grads.values()))
    for name, grad in case.grads.items():
        off, size = np.linalg.norm(ours[name] - grad), np.linalg.norm(grad)
        # Relative to the tensor; one whose gradient is zero by symmetry is all rounding.
        assert off <= 1e-4 * size + 1e-6 * whole, name


# Tiny models take longer to compile than to run.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@every_config
def test_logits_gradients_and_a_step_are_those_of_transformers(case):
    model, params = load_pretrained(
        case.folder, vocab_size=VOCAB, attention_chunk=None, loss_chunk=None
    )
    optimizer = optax.adamw(1e-2, b1=B1, b2=B2, eps=EPS, weight_decay=DECAY)

    @jit
    def computed(params, tokens):
        grads = jax.grad(functools.partial(loss_of, model))(params, tokens)
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        return model.logits(params, tokens), grads, optax.apply_updates(params, updates)

    logits, grads, stepped = computed(params, jnp.asarray(case.tokens))
    assert logits.dtype == jnp.float32
    assert np.abs(case.logits).max() > 1
    np.testing.assert_allclose(logits, case.logits, atol=1e-5, rtol=0)
    assert_gradients(model, grads, case)
    moved = by_name(model, stepped)
    for name, before in by_name(model, params).items():
        np.testing.assert_allclose(moved[name], case.stepped[name], atol=1e-5, rtol=0)
        if np.abs(case.grads[name]).max() > 1e-2:
            assert np.abs(moved[name] - before).max() > 5e-3, name


@pytest.mark.parametrize("case", cells(CONFIGS.keys(), CONFIGS.keys() - CURVED), indirect=True)
def test_hessian_times_vector_is_the_difference_of_gradients(case, float64):
    """With chunks and remat, whose gradients are torch's too."""
    model, params = load_pretrained(
        case.folder, dtype="float64", remat=True, attention_chunk=6, loss_chunk=7
    )
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    tokens = jnp.asarray(case.tokens)
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)

    def gradient(params):
        return jax.grad(functools.partial(loss_of, model))(params, tokens)

    @jit
    def derivatives(params, direction, steps):
        there = jax.lax.map(
            lambda step: gradient(optax.tree.add_scale(params, step, direction)), steps
        )
        difference = jax.tree.map(lambda g: (g[0] - g[1]) / (steps[0] - steps[1]), there)
        return difference, *jax.jvp(gradient, (params,), (direction,))

    difference, grads, product = derivatives(params, direction, jnp.array([3e-7, -3e-7]))
    assert_gradients(model, grads, case)
    size = optax.tree.norm(difference)
    assert size > 1
    assert optax.tree.norm(optax.tree.sub(product, difference)) <= 1e-7 * size


@every_config
def test_what_is_saved_is_the_same_model_in_transformers(case, torch, tmp_path):
    save_pretrained(tmp_path / "saved", *load_pretrained(case.folder))
    theirs = torch.transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "saved", attn_implementation="eager"
    ).eval()
    with torch.torch.no_grad():
        logits = theirs(torch.torch.from_numpy(case.tokens)).logits.numpy()
    np.testing.assert_array_equal(logits, case.logits)
