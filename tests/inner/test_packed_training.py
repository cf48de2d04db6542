"""Trainings whose documents are kept apart, on a user's own records and tokenizer."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import changed, tiny
from tokenizers import Tokenizer, models, pre_tokenizers

from metatune.data import heldout_batches, stratified_batches
from metatune.hypergrad import MixFlow, Reverse, hypergradient, measured, train
from metatune.inner import prepare
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for name, sign in (("sums", "+"), ("products", "*")):
        pairs = [(a, b) for a in range(20) for b in range(10)]
        lines = [
            {"asked": f"{a} {sign} {b} = ", "said": str(worked_out(a, b, sign))} for a, b in pairs
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return tiny(
        {"intermediate_size": 12, "initializer_range": 0.3},
        model={"dtype": "float64"},
        data={
            "domains": {
                name: schema.SourceSpec(
                    jsonl=str(folder / f"{name}.jsonl"), prompt="asked", completion="said"
                )
                for name in ("sums", "products")
            },
            "target": {"products": 1.0},
            "sequence_length": 24,
            "held_out": schema.HeldOutSpec(0.2, 0.2),
            "packing": schema.PackingSpec(cross_documents=False, last_window="pad"),
        },
        inner={"steps": 4},
        tune=schema.TuneSpec(
            learning_rates=schema.LearningRatesSpec(per="global"), mixture=schema.MixtureSpec()
        ),
    )


def worked_out(a, b, sign):
    return a + b if sign == "+" else a * b


def given(training):
    """The start of a training, and what it is trained and judged on."""
    state = jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        training.initialise(jax.random.key(0)),
    )
    corpus, shares = training.corpus, np.full((4, 2), 0.5)
    batches = stratified_batches(corpus, seed=(0,), batch_size=4, shares=shares)
    return (
        state,
        batches,
        heldout_batches(corpus, "validation", seed=(1,), sequences=4, micro_batch=4),
    )


def estimate(training, estimator, eta):
    state, batches, held_out = given(training)
    return hypergradient(
        training.reweighted, eta, state, batches, held_out, steps=4, estimator=estimator
    )


def value(training, eta):
    """The objective of a training alone."""
    state, batches, held_out = given(training)
    state, _ = train(training.reweighted, eta, state, batches, steps=4)
    return measured(training.reweighted, state.params, held_out)


def test_hypergradients_agree_with_each_other_and_with_differences(recipe, float64):
    training, micro = prepare(recipe), prepare(changed(recipe, inner={"micro_batch": 2}))
    eta = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), training.initial_eta())
    found = estimate(training, MixFlow(segment=2), eta)
    assert float(found.value) == pytest.approx(value(training, eta), rel=1e-12)
    for other in (
        estimate(training, Reverse(segment=4), eta),
        estimate(micro, MixFlow(segment=2), eta),
    ):
        for key, gradient in found.gradient.items():
            np.testing.assert_allclose(gradient, other.gradient[key], rtol=1e-6, atol=1e-11)
    for key in eta:
        direction = np.random.default_rng(0).normal(size=eta[key].shape)
        values = [
            value(training, {**eta, key: eta[key] + sign * 1e-5 * direction}) for sign in (1, -1)
        ]
        slope = (values[0] - values[1]) / 2e-5
        assert float(np.vdot(found.gradient[key], direction)) == pytest.approx(slope, rel=1e-5)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    recipe, tmp_path, monkeypatch, float64
):
    from transformers import PreTrainedTokenizerFast

    monkeypatch.setenv("METATUNE_CACHE", str(tmp_path / "cache"))

    alphabet = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({each: i for i, each in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    fast.save_pretrained(tmp_path)
    data = dataclasses.replace(recipe.data, tokenizer=str(tmp_path))
    small = dataclasses.replace(recipe.model, config={**recipe.model.config, "vocab_size": 256})
    told = []
    with pytest.raises(RecipeError) as refused:
        prepare(dataclasses.replace(recipe, data=data, model=small), listener=told.append)
    assert [str(fault) for fault in refused.value.faults] == [
        "model.config.vocab_size = 256: must be at least the tokenizer's vocabulary, 257; raise "
        "it or leave it out, or take the tokenizer that belongs to the model"
    ]
    assert told == []  # before anything was tokenized
    trained = prepare(dataclasses.replace(recipe, data=data), listener=told.append)
    assert trained.model.config.vocab_size == 257
    assert told
