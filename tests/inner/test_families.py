"""Hypergradients through trainings of the families whose blocks differ from Llama's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import CODE, DRAMA, tiny

from metatune.data import heldout_batches, stratified_batches
from metatune.hypergrad import MixFlow, hypergradient
from metatune.inner import prepare
from metatune.recipe import schema

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
STEPS = 2


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_hypergradient_equals_central_differences(kind, float64):
    wanted = tiny(
        {"model_type": kind, "initializer_range": 0.3, **FAMILIES[kind]},
        data={"domains": {"code": CODE, "drama": DRAMA}, "sequence_length": 12},
        # With Adam's own ε, steps turn where a gradient changes its sign: too sharp for differences.
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
