"""What a training starts from: fresh parameters, or those of a pretrained model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.data import sampled_batches
from metatune.hypergrad import train
from metatune.inner import prepare
from metatune.models import build, save_pretrained, weights_sha256
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError

CONFIG = {
    "model_type": "gpt2",
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 16,
    "vocab_size": 260,
}


@pytest.fixture
def pretrained(tmp_path):
    """A folder with a model, and its parameters."""
    model = build(CONFIG)
    params = jax.jit(model.init)(jax.random.key(5))
    save_pretrained(tmp_path / "model", model, params)
    return tmp_path / "model", params


def recipe(length=16, **model) -> schema.Recipe:
    return schema.Recipe(
        model=schema.ModelSpec(**model),
        data=schema.DataSpec(
            domains={"code": schema.SourceSpec(shipped="code_stdlib")},
            target={"code": 1.0},
            sequence_length=length,
            batch_size=2,
        ),
        inner=schema.InnerSpec(optimizer=schema.AdamWSpec(learning_rate=3e-3), steps=4),
        tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="tensor", windows=1)),
        outer=schema.OuterSpec(steps=1),
    )


def refused(recipe):
    with pytest.raises(RecipeError) as error:
        prepare(recipe)
    return [str(fault) for fault in error.value.faults]


def test_a_training_starts_from_the_weights_every_time(pretrained):
    folder, params = pretrained
    training = prepare(recipe(pretrained=str(folder)))
    batches = sampled_batches(training.corpus, seed=(1,), batch_size=2, shares=np.ones((4, 1)))
    trained = []
    for seed in (0, 1):
        state = training.initialise(jax.random.key(seed))
        jax.tree.map(np.testing.assert_array_equal, state.params, params)
        # A training may donate the buffers of the state that it starts from.
        got, _ = train(training.sampled, training.initial_eta(), state, batches, steps=4, segment=2)
        trained.append(got.params)
    jax.tree.map(np.testing.assert_array_equal, *trained)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), trained[0], params)
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_a_state_shares_no_buffer_with_the_weights(pretrained):
    training = prepare(recipe(pretrained=str(pretrained[0])))
    first = training.initialise(jax.random.key(0))
    for leaf in jax.tree.leaves(first):
        leaf.delete()
    again = training.initialise(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, again.params, pretrained[1])


def test_fresh_parameters_differ_by_seed():
    training = prepare(recipe(config=CONFIG))
    first, second = (training.initialise(jax.random.key(seed)).params for seed in (0, 1))
    ours, others = (params["model"]["embed_tokens"]["weight"] for params in (first, second))
    assert (ours != others).mean() > 0.99
    assert training.weights_sha256 is None


def test_the_model_says_where_it_comes_from(pretrained):
    training = prepare(recipe(pretrained=str(pretrained[0])))
    assert training.weights_sha256 == weights_sha256(pretrained[0])
    assert training.model.config_json()["n_positions"] == 16
    assert (
        "transformer.h.0.attn.c_attn.weight"
        in training.trajectory(training.initial_eta()).learning_rates
    )


def test_faults_of_the_weights_and_of_the_data_are_reported_together(pretrained):
    folder, _ = pretrained
    data = recipe(length=17, pretrained=str(folder))
    assert refused(data) == [
        "data.sequence_length = 17: must be at most the model's context, 16 tokens; lower it, or "
        "take a model whose config has a larger max_position_embeddings"
    ]
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    domains = {"code": schema.SourceSpec(shipped="code_of_none")}
    broken = dataclasses.replace(data, data=dataclasses.replace(data.data, domains=domains))
    faults = refused(broken)
    assert any(fault.startswith("data.domains.code.shipped = 'code_of_none'") for fault in faults)
    assert any("model.safetensors is truncated, damaged or missing" in fault for fault in faults)


def test_a_tokenizer_that_is_too_large_is_refused(pretrained, tmp_path):
    model = build({**CONFIG, "vocab_size": 100})
    save_pretrained(tmp_path / "small", model, jax.jit(model.init)(jax.random.key(0)))
    assert refused(recipe(pretrained=str(tmp_path / "small"))) == [
        "model.pretrained.config.vocab_size = 100: must be at least the tokenizer's vocabulary, "
        "259; raise it or leave it out, or take the tokenizer that belongs to the model"
    ]


def test_a_model_has_one_origin(pretrained):
    (fault,) = refused(recipe())
    assert fault == (
        "model = {}: must have exactly one of config and pretrained; write one of them"
    )
    (fault,) = refused(recipe(config=CONFIG, pretrained=str(pretrained[0])))
    assert fault.endswith("must have exactly one of config and pretrained; keep one of them")
