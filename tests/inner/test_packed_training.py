"""Trainings whose documents are kept apart, on a user's own records and tokenizer."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny
from tokenizers import Tokenizer, models, pre_tokenizers

from metatune.data import heldout_batches, stratified_batches
from metatune.hypergrad import MixFlow, Reverse, hypergradient
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
                name: schema.Source(
                    jsonl=str(folder / f"{name}.jsonl"), prompt="asked", completion="said"
                )
                for name in ("sums", "products")
            },
            "target": {"products": 1.0},
            "sequence_length": 24,
            "held_out": schema.HeldOut(0.2, 0.2),
            "packing": schema.Packing(cross_documents=False, last_window="pad"),
        },
        inner={"steps": 4},
        tune=schema.Tune(
            learning_rates=schema.LearningRates(per="global"), mixture=schema.Mixture()
        ),
    )


def worked_out(a, b, sign):
    return a + b if sign == "+" else a * b


def estimate(recipe, estimator, eta=None):
    training = prepare(recipe)
    eta = training.initial_eta() if eta is None else eta
    eta = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), eta)
    state = training.initialise(jax.random.key(0))
    state = jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        state,
    )
    shares = np.full((4, 2), 0.5)
    corpus = training.corpus
    return hypergradient(
        training.reweighted,
        eta,
        state,
        stratified_batches(corpus, seed=(0,), batch_size=4, shares=shares),
        heldout_batches(corpus, "outer", seed=(1,), sequences=4, micro_batch=4),
        steps=4,
        estimator=estimator,
    )


def test_hypergradients_agree_with_each_other_and_with_differences(recipe, float64):
    found = estimate(recipe, MixFlow(segment=2))
    micro = dataclasses.replace(recipe.inner, micro_batch=2)
    for other in (
        estimate(recipe, Reverse(segment=4)),
        estimate(dataclasses.replace(recipe, inner=micro), MixFlow(segment=2)),
    ):
        for key, gradient in found.gradient.items():
            np.testing.assert_allclose(gradient, other.gradient[key], rtol=1e-6, atol=1e-11)
    eta = {key: np.asarray(leaf) for key, leaf in prepare(recipe).initial_eta().items()}
    for key in eta:
        direction = np.random.default_rng(0).normal(size=eta[key].shape)
        values = [
            float(
                estimate(
                    recipe, Reverse(segment=4), {**eta, key: eta[key] + sign * 1e-5 * direction}
                ).value
            )
            for sign in (1, -1)
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
