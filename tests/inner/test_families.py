"""Hypergradients through trainings of the families whose blocks differ from Llama's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells
from recipes import CODE, DRAMA, tiny

from metatune.data import heldout_batches, stratified_batches
from metatune.hypergrad import MixFlow, hypergradient
from metatune.inner import prepare
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError

FAMILIES = {
    "olmo3": {"sliding_window": 5, "num_hidden_layers": 2, "layer_types": None},
    "granite": {"residual_multiplier": 0.5, "logits_scaling": 0.5, "attention_multiplier": 0.4},
    "phi3": {
        "max_position_embeddings": 64,
        "original_max_position_embeddings": 8,
        "rope_parameters": {
            "rope_type": "longrope",
            "short_factor": [1.0, 1.5],
            "long_factor": [1.5, 4.0],
        },
    },
    "qwen3_moe": {
        "moe_intermediate_size": 6,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "head_dim": 4,
        "num_key_value_heads": 1,
    },
    "qwen3_moe, every other dense": {
        "moe_intermediate_size": 6,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "head_dim": 4,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "decoder_sparse_step": 2,
    },
    "gpt_oss": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "head_dim": 4,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "sliding_window": 5,
        "swiglu_limit": 0.5,
    },
    "nanochat": {"num_hidden_layers": 2, "final_logit_softcapping": 3.0},
    "ministral3": {
        "head_dim": 4,
        "num_key_value_heads": 1,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 4,
            "llama_4_scaling_beta": 0.5,
        },
    },
}
FURTHER = FAMILIES.keys() - {"gpt_oss"}
"""Blocks whose gradients tests/models holds against torch's, and second derivatives of their kinds
against differences of these: a training through them shows no more than one through gpt_oss."""
STEPS = 2


@pytest.mark.parametrize("kind", cells(FAMILIES.keys(), FURTHER))
def test_the_hypergradient_equals_central_differences(kind, float64):
    wanted = tiny(
        {"model_type": kind.partition(",")[0], "initializer_range": 0.3, **FAMILIES[kind]},
        data={"domains": {"code": CODE, "drama": DRAMA}, "sequence_length": 12},
        # With Adam's own ε a step turns where a gradient changes its sign: too sharp to compare.
        inner={"steps": STEPS, "optimizer": schema.AdamWSpec(learning_rate=1e-2, eps=1e-3)},
        tune=schema.TuneSpec(
            learning_rates=schema.LearningRatesSpec(per="kind", windows=1),
            mixture=schema.MixtureSpec(windows=1, floor=0.05),
        ),
    )
    model = dataclasses.replace(wanted.model, dtype="float64")
    training = prepare(dataclasses.replace(wanted, model=model))
    state = jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        training.initialise(jax.random.key(0)),
    )
    shares = np.full((STEPS, 2), 0.5)
    batches = stratified_batches(training.corpus, seed=(0,), batch_size=4, shares=shares)
    held_out = heldout_batches(training.corpus, "validation", seed=(1,), sequences=4, micro_batch=4)
    rng = np.random.default_rng(0)
    eta = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(rng.normal(size=leaf.shape) / 3), training.initial_eta()
    )
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), eta)

    def estimate(eta):
        return hypergradient(
            training.reweighted,
            eta,
            state,
            batches,
            held_out,
            steps=STEPS,
            estimator=MixFlow(segment=STEPS),
        )

    def value(size):
        return estimate(jax.tree.map(lambda at, by: at + size * by, eta, direction)).value

    found = estimate(eta).gradient
    along = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, found, direction)))
    size = 1e-5
    slope = (value(size) - value(-size)) / (2 * size)
    assert abs(slope) > 1e-3
    assert float(along) == pytest.approx(float(slope), rel=1e-5)


def test_balance_of_experts_is_in_the_loss_and_is_tuned(float64):
    """Of the sequences that the mixture draws, and not in what is held out."""
    recipe = tiny(
        {"model_type": "qwen3_moe", "initializer_range": 0.3, **FAMILIES["qwen3_moe"]},
        data={"domains": {"code": CODE, "drama": DRAMA}, "sequence_length": 12},
        inner={"steps": STEPS, "loss": schema.LossSpec(router_balance=0.3)},
        tune=schema.TuneSpec(
            mixture=schema.MixtureSpec(windows=1, floor=0.05),
            loss_terms=schema.LossTermsSpec(router_balance=schema.TunedFieldSpec()),
        ),
    )
    training = prepare(recipe)
    state = training.initialise(jax.random.key(0))
    shares = np.full((STEPS, 2), 0.5)
    batch = stratified_batches(training.corpus, seed=(0,), batch_size=4, shares=shares)(0)
    hyper = training.reweighted.hyper_at(training.initial_eta(), jnp.int32(0))
    mixture = jnp.array([0.8, 0.2])
    hyper = hyper._replace(mixture=mixture)
    loss = jax.jit(training.reweighted.loss)
    whole = loss(state.params, hyper, batch)
    without = loss(state.params, hyper._replace(loss_terms={}), batch)
    tokens = jnp.asarray(batch.tokens)[:, :-1]
    documents = None if batch.documents is None else jnp.asarray(batch.documents)[:, :-1]
    compute = jax.jit(training.model.hidden_and_routing)
    _, routing = compute(state.params, tokens, documents)
    assert routing is not None
    drawn = np.asarray(mixture)[np.asarray(batch.domain)] * np.asarray(batch.weight)
    chosen, probability = (np.einsum("b,lbe->e", drawn, np.asarray(part)) for part in routing[:2])
    over = drawn.sum() * tokens.shape[1] * 1  # one layer
    expected = 4 * (chosen / over * probability / over).sum()
    assert expected > 1.5
    assert float(whole - without) == pytest.approx(0.3 * expected, rel=1e-5)
    slope = jax.grad(
        lambda eta: loss(
            state.params,
            training.reweighted.hyper_at(eta, jnp.int32(0))._replace(mixture=mixture),
            batch,
        )
    )(training.initial_eta())
    assert float(slope["router_balance"][0]) == pytest.approx(0.3 * expected, rel=1e-5)


def test_balance_of_a_model_without_experts_is_refused():
    said = "inner.loss.router_balance = 0.1: is of models with experts, and a llama has none"
    with pytest.raises(RecipeError, match=said):
        prepare(tiny(inner={"loss": schema.LossSpec(router_balance=0.1)}))
