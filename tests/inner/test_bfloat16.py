"""Computing in bfloat16, with parameters, losses and sums in float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.data import heldout_batches, stratified_batches
from metatune.hypergrad import MixFlow, hypergradient
from metatune.inner import prepare
from metatune.recipe import schema

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.08,
}
GPT2 = {
    "model_type": "gpt2",
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 32,
    "initializer_range": 0.08,
    "vocab_size": 259,
}


def recipe(config) -> schema.Recipe:
    return schema.Recipe(
        model=schema.Model(config=config),
        data=schema.Data(
            domains={
                "code": schema.Source(shipped="code_stdlib"),
                "drama": schema.Source(shipped="drama_shakespeare"),
            },
            target={"code": 1.0},
            sequence_length=32,
            batch_size=4,
        ),
        inner=schema.Inner(schema.AdamW(learning_rate=3e-3), steps=12),
        tune=schema.Tune(
            learning_rates=schema.LearningRates(per="layer", windows=2),
            mixture=schema.Mixture(windows=2, floor=0.05),
        ),
        outer=schema.Outer(steps=1),
    )


def estimate(config, dtype):
    wanted = recipe(config)
    model = dataclasses.replace(wanted.model, dtype=dtype)
    training = prepare(dataclasses.replace(wanted, model=model))
    eta = training.initial_eta()
    state = training.initialise(jax.random.key(2))
    found = hypergradient(
        training.reweighted,
        eta,
        state,
        stratified_batches(
            training.corpus, seed=(4,), batch_size=4, shares=training.trajectory(eta).mixture
        ),
        heldout_batches(training.corpus, "outer", seed=(3,), sequences=16, micro_batch=16),
        steps=12,
        estimator=MixFlow(segment=6),
    )
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found.state.params))
    return found


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_the_hypergradient_is_that_of_float32(config):
    rounded, exact = (estimate(config, dtype) for dtype in ("bfloat16", "float32"))
    assert float(rounded.value) == pytest.approx(float(exact.value), rel=1e-3)
    assert float(rounded.value) != float(exact.value)
    for key, want in exact.gradient.items():
        got, want = np.asarray(rounded.gradient[key]).ravel(), np.asarray(want).ravel()
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        cosine = got @ want / (np.linalg.norm(got) * np.linalg.norm(want))
        print(f"{key}: error {error:.2%}, cosine {cosine:.5f}")
        assert error < 0.05
        assert cosine > 0.99
