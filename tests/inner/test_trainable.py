"""Training a part of a model: what states hold, what stays, hypergradients through the part."""

import dataclasses
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells
from transformers import AutoModelForCausalLM

from metatune.data import heldout_batches, stratified_batches
from metatune.fit.making import artefact_of
from metatune.hypergrad import MixFlow, Reverse, as_argument, hypergradient, programs, train
from metatune.hypergrad.reverse.adjoint import Adjoint
from metatune.hypergrad.segments import fetch, inexact
from metatune.hypergrad.stores import tree_bytes
from metatune.inner import prepare
from metatune.models import build, save_pretrained
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError

LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "vocab_size": 260,
}
GPT2 = {
    "model_type": "gpt2",
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 16,
    "initializer_range": 0.2,
    "vocab_size": 260,
}
NEOX = {
    "model_type": "gpt_neox",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "initializer_range": 0.2,
    "vocab_size": 260,
}
NANOCHAT = {**NEOX, "model_type": "nanochat"}
QKV = schema.LoraSpec(("q_proj", "v_proj"), rank=2, alpha=6.0)
# Two of three layers, with fewer keys and values than queries, and a matrix of an MLP in one.
SOME = schema.LoraSpec((r"layers\.[02]\.self_attn\.[qv]_proj", r"layers\.1\.mlp\.down"), 2, 6.0)


def recipe(config=LLAMA, dtype: Any = "float32", **inner: Any) -> schema.Recipe:
    return schema.Recipe(
        model=schema.ModelSpec(config=config, dtype=dtype),
        data=schema.DataSpec(
            domains={"code": schema.SourceSpec(shipped="code_stdlib")},
            target={"code": 1.0},
            sequence_length=16,
            batch_size=2,
        ),
        inner=schema.InnerSpec(schema.AdamWSpec(learning_rate=2e-2), steps=6, **inner),
        tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="tensor", windows=2)),
        outer=schema.OuterSpec(steps=1),
    )


def batches(training):
    shares = np.ones((training.recipe.inner.steps, 1))
    return stratified_batches(training.corpus, seed=(1,), batch_size=2, shares=shares)


def trained(training):
    state = training.initialise(jax.random.key(3))
    return state, train(
        training.sampled, training.initial_eta(), state, batches(training), steps=6, segment=4
    )[0]


def by_name(names, params):
    """Parameters, layer by layer, by checkpoint name."""
    found = {}
    for leaf, array in zip(jax.tree.leaves(names), jax.tree.leaves(params), strict=True):
        parts = np.asarray(array if leaf.stacked else array[None])
        found |= dict(zip(leaf.names, parts, strict=True))
    return found


def checkpoint(training, params):
    """All parameters of the model by checkpoint name, adapters merged."""
    return by_name(training.model.names(), training.merged(params))


PARTS = {
    "whole leaves": (LLAMA, {"train": ("norm", "q_proj")}),
    "some layers": (LLAMA, {"train": (r"layers\.[02]\.mlp", r"layers\.1\.self_attn")}),
    "one that is no block's": (GPT2, {"train": ("wpe",)}),
}


@pytest.mark.parametrize(("config", "inner"), cells(PARTS, {"whole leaves"}))
def test_what_is_chosen_moves_and_the_rest_stays_bit_for_bit(config, inner):
    training = prepare(recipe(config, **inner))
    start, end = trained(training)
    before, after = (checkpoint(training, state.params) for state in (start, end))
    chosen = {name for name in before if any(re.search(e, name) for e in inner["train"])}
    assert chosen and chosen < set(before)
    assert set(by_name(training.names, start.params)) == chosen
    for name, array in before.items():
        if name in chosen:
            assert np.abs(after[name] - array).max() > 1e-3
        else:
            np.testing.assert_array_equal(after[name], array)
    # What is frozen is the same whatever a training starts from, what is trained isn't.
    other = training.initialise(jax.random.key(4))
    again = checkpoint(training, other.params)
    assert all((again[name] == before[name]).all() for name in set(before) - chosen)


def test_a_model_put_together_from_split_leaves_is_the_model():
    training = prepare(recipe(train=(r"layers\.[02]\.mlp", r"layers\.1\.self_attn")))
    params = jax.jit(training.model.init)(jax.random.key(8))
    part = training.part
    split = part.trained(params, jax.random.key(0)), part.frozen(params)
    jax.tree.map(np.testing.assert_array_equal, part.joined(*split), params)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in split]
    assert sum(sizes) == sum(leaf.size for leaf in jax.tree.leaves(params)) and min(sizes) > 0


# What stays is above, bit for bit; what moves is against PyTorch and differences below.
@pytest.mark.thorough
def test_trained_layers_move_as_they_do_where_the_others_have_no_rate():
    """A frozen rest, against a whole training in which it has learning rates of zero."""
    alone = prepare(recipe(train=(r"layers\.1\.",)))
    free = dataclasses.replace(alone.recipe.inner.optimizer, clip_norm=None)
    inner = dataclasses.replace(alone.recipe.inner, optimizer=free)
    rates = schema.TuneSpec(schema.LearningRatesSpec(per={"kept": r"layers\.1\.", "still": "."}))
    alone = prepare(dataclasses.replace(alone.recipe, inner=inner))
    whole = prepare(
        dataclasses.replace(alone.recipe, inner=dataclasses.replace(inner, train=None), tune=rates)
    )
    _, end = trained(alone)
    state = whole.initialise(jax.random.key(3))
    params = alone.merged(alone.initialise(jax.random.key(3)).params)
    eta = {"learning_rates": jnp.array([[0.0, -jnp.inf]])}
    want, _ = train(
        whole.sampled, eta, state._replace(params=params), batches(whole), steps=6, segment=4
    )
    got = checkpoint(alone, end.params)
    for name, array in checkpoint(whole, want.params).items():
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-5)


ADAPTED = {
    "llama": (LLAMA, QKV),
    "llama, some layers": (LLAMA, SOME),
    "gpt2, [in, out] and fused": (GPT2, schema.LoraSpec(("c_attn", "c_proj"), 2, 6.0)),
    "gpt_neox, fused": (NEOX, schema.LoraSpec(("query_key_value", "dense_4h_to_h"), 2, 6.0)),
    "nanochat": (NANOCHAT, schema.LoraSpec(("fc1", "fc2", "o_proj"), 2, 6.0)),
}
SHOWN = {"llama", "gpt_neox, fused", "nanochat"}


# Some layers of a Llama are more than all of them, and GPT-2's matrices lie the other way, too.
@pytest.mark.parametrize(
    ("config", "lora"), cells(ADAPTED, {"llama", "gpt_neox, fused", "nanochat"})
)
def test_an_adapted_model_computes_what_its_merged_weights_do(config, lora, tmp_path):
    """Against `W + (alpha / rank) B A`, written out by hand from PEFT's names, in torch."""
    import torch

    training = prepare(recipe(config, lora=lora))
    start, end = trained(training)
    tokens = np.random.default_rng(0).integers(0, 256, (2, 15))
    base = training.merged(start.params)

    compute = jax.jit(training.model.logits)

    def logits(state):
        params = training.part.joined(state.params, training.frozen)
        return np.asarray(compute(params, jnp.asarray(tokens)))

    # B is zero at first: the model as it is.
    np.testing.assert_array_equal(logits(start), compute(base, jnp.asarray(tokens)))
    save_pretrained(tmp_path / "base", training.model, base)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    adapters = by_name(training.names, end.params)
    modules = {name.split(".lora_")[0] for name in adapters}
    layout = "transposed" if config is GPT2 else "straight"
    with torch.no_grad():
        weights = dict(theirs.named_parameters())
        for module in modules:
            a, b = (torch.tensor(adapters[f"{module}.lora_{m}.weight"]) for m in "AB")
            assert float(b.abs().max()) > 1e-3
            added = lora.alpha / lora.rank * b @ a
            name = f"{module.removeprefix('base_model.model.')}.weight"
            weights[name] += added.T if layout == "transposed" else added
        want = theirs(torch.tensor(tokens)).logits.numpy()
    assert np.abs(want - logits(start)).max() > 1e-2
    np.testing.assert_allclose(logits(end), want, atol=1e-4 * np.abs(want).max())
    save_pretrained(tmp_path / "merged", training.model, training.merged(end.params))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    for name, weight in theirs.named_parameters():
        np.testing.assert_allclose(
            merged.get_parameter(name).detach().numpy(), weight.detach().numpy(), atol=1e-6
        )


def in_float64(training):
    """Problem, η and state, all in double precision."""

    def cast(tree):
        return jax.tree.map(
            lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
        )

    state = training.initialise(jax.random.key(3))
    # A and B away from zero, where all derivatives are nothing.
    params = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(4), x.shape), state.params
    )
    parts = as_argument(training.reweighted), training.initial_eta(), state._replace(params=params)
    return map(cast, parts)


def estimate(training, estimator, problem, eta, state):
    held_out = heldout_batches(training.corpus, "validation", seed=(3,), sequences=4, micro_batch=2)
    return hypergradient(
        problem, eta, state, batches(training), held_out, steps=6, estimator=estimator
    )


THROUGH = {
    "adapters of some layers": (LLAMA, {"lora": SOME}),
    "adapters [in, out], and parameters of a layer": (
        GPT2,
        {"lora": schema.LoraSpec(("c_attn",), 2, 6.0), "train": (r"\.h\.1\.(mlp|ln_1)", "wte")},
    ),
}


@pytest.mark.parametrize(("config", "inner"), cells(THROUGH, {"adapters of some layers"}))
def test_the_hypergradient_equals_central_differences(float64, config, inner):
    training = prepare(recipe(config, dtype="float64", **inner))
    problem, eta, state = in_float64(training)
    got = estimate(training, MixFlow(segment=3), problem, eta, state)
    other = estimate(training, Reverse(segment=3), problem, eta, state)
    (gradient,) = got.gradient.values()
    np.testing.assert_allclose(gradient, other.gradient["learning_rates"], rtol=1e-9, atol=1e-15)
    direction = np.random.default_rng(5).normal(size=gradient.shape)

    def value(size):
        moved = {"learning_rates": eta["learning_rates"] + size * direction}
        return float(estimate(training, MixFlow(segment=3), problem, moved, state).value)

    want = (value(1e-5) - value(-1e-5)) / 2e-5
    assert float(jnp.sum(gradient * direction)) == pytest.approx(want, rel=1e-6)


def bytes_of_pullback(training):
    """Arguments less what is frozen, and temporary arrays, of a segment's backward program."""
    problem, eta = as_argument(training.reweighted), training.initial_eta()
    state = training.initialise(jax.random.key(0))
    segment = fetch(batches(training), 0, 4, 4)
    saved = jax.eval_shape(
        lambda: programs.forward(problem, MixFlow(segment=4), eta, state, segment).saved
    )
    adjoint = Adjoint(state.params, inexact(state.opt_state)[0], eta)
    lowered = programs.pullback.lower(
        problem, MixFlow(segment=4), eta, segment, (state, saved), adjoint
    )
    found = lowered.compile().memory_analysis()
    assert found is not None
    moving = found.argument_size_in_bytes - tree_bytes(training.frozen)
    print(f"pullback: arguments {moving:,}, temporary {found.temp_size_in_bytes:,} bytes")
    return moving, found.temp_size_in_bytes, tree_bytes(saved)


# By how much is in the docs; that states hold the trained part alone is above.
@pytest.mark.thorough
def test_memory_shrinks_with_the_trained_set():
    wide = {**LLAMA, "hidden_size": 64, "intermediate_size": 176}
    whole = bytes_of_pullback(prepare(recipe(wide)))
    adapted = bytes_of_pullback(prepare(recipe(wide, lora=QKV)))
    parameters = [
        tree_bytes(jax.eval_shape(prepare(recipe(wide, **inner)).initialise, jax.random.key(0)))
        for inner in ({}, {"lora": QKV})
    ]
    share = parameters[1] / parameters[0]
    assert share < 0.03
    # States, saved gradients and adjoints: in proportion.
    assert adapted[0] < 1.5 * share * whole[0]
    assert adapted[2] == pytest.approx(share * whole[2], rel=0.01)
    assert adapted[1] < 0.3 * whole[1]


def test_names_of_the_artefact_are_those_of_peft():
    inner = {"lora": SOME, "train": ("lm_head", r"model\.norm")}
    training = prepare(recipe({**LLAMA, "tie_word_embeddings": False}, **inner))
    tuned = artefact_of(training, training.initial_eta(), {})
    attention = "base_model.model.model.layers.{}.self_attn.{}.lora_{}.weight"
    want = {attention.format(n, m, ab) for n in (0, 2) for m in ("q_proj", "v_proj") for ab in "AB"}
    want |= {f"base_model.model.model.layers.1.mlp.down_proj.lora_{ab}.weight" for ab in "AB"}
    want |= {"base_model.model.model.norm.weight", "base_model.model.lm_head.weight"}
    assert set(tuned.learning_rates.parameters) == want
    assert set(tuned.optimizer.decayed) == want - {"base_model.model.model.norm.weight"}
    assert tuned.learning_rates.multipliers is not None
    assert set(tuned.learning_rates.multipliers.groups) == want
    assert json.loads(json.dumps(tuned.provenance["lora"]))["rank"] == 2


def test_a_pretrained_model_is_adapted(tmp_path):
    model = build(GPT2)
    params = jax.jit(model.init)(jax.random.key(5))
    save_pretrained(tmp_path / "model", model, params)
    lora = schema.LoraSpec(("c_attn",))
    wanted = recipe(lora=lora)
    training = prepare(
        dataclasses.replace(wanted, model=schema.ModelSpec(pretrained=str(tmp_path / "model")))
    )
    states = [training.initialise(jax.random.key(seed)) for seed in (0, 1)]
    jax.tree.map(np.testing.assert_array_equal, training.merged(states[0].params), params)
    a, other = (
        np.asarray(s.params["model"]["layers"]["self_attn"]["qkv_proj"]["lora_A"]) for s in states
    )
    assert (a != other).mean() > 0.99
    assert a.shape == (2, 8, 16) and np.std(a) == pytest.approx(1 / 8, rel=0.2)


FAULTS = {
    "nothing matches": (
        {"train": ("norm", "no_such")},
        ["inner.train[1] = 'no_such': matches no parameter; match the model's checkpoint names, "],
    ),
    "an adapter for a norm": (
        {"lora": schema.LoraSpec(("layernorm", "q_proj"))},
        ["inner.lora.targets[0] = 'layernorm': matches no matrix of the blocks; match the "],
    ),
    "an adapter for an embedding": (
        {"lora": schema.LoraSpec(("embed_tokens",))},
        ["inner.lora.targets[0] = 'embed_tokens': matches no matrix of the blocks; match the "],
    ),
    "too large a rank": (
        {"lora": schema.LoraSpec(("mlp", "k_proj"), rank=9)},
        [
            "inner.lora.rank = 9: must be at most 8, the rank that "
            "model.layers.0.self_attn.k_proj.weight, 8 x 16, has; lower it"
        ],
    ),
    "trained and adapted": (
        {"lora": schema.LoraSpec(("q_proj",)), "train": ("self_attn",)},
        [
            "inner.lora.targets = ['q_proj']: takes model.layers.0.self_attn.q_proj.weight, which "
            "inner.train trains too (3 such in all); an adapter is for what is frozen: take it out"
        ],
    ),
    "all together": (
        {"lora": schema.LoraSpec(("nope", "k_proj"), rank=9), "train": ("not_this",)},
        ["inner.train[0]", "inner.lora.targets[0]", "inner.lora.rank"],
    ),
}


@pytest.mark.parametrize(("inner", "begin"), FAULTS.values(), ids=FAULTS.keys())
def test_what_cannot_be_trained_is_refused(inner, begin):
    with pytest.raises(RecipeError) as refused:
        prepare(recipe(**inner))
    faults = [str(fault) for fault in refused.value.faults]
    assert [fault[: len(start)] for fault, start in zip(faults, begin, strict=True)] == begin
