"""The head that predicts the token two ahead: its loss, its place in a training, its weight's η."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from metatune.data import Batch, heldout_batches, stratified_batches
from metatune.fit.result import artefact_of
from metatune.hypergrad import MixFlow, hypergradient
from metatune.inner import prepare
from metatune.inner.losses import batch_losses, held_out_loss
from metatune.models import save_pretrained
from metatune.recipe import schema

WIDTH, STEPS, NAME = 8, 3, "auxiliary_head.weight"
HEAD = schema.Loss(auxiliary=schema.SecondNextToken(weight=0.3))
RATES = schema.Tune(learning_rates=schema.LearningRates(per="kind"))


def recipe(loss=HEAD, tune=RATES, lora=None, train=None, dtype="float32", softcap=None):
    config = {
        "model_type": "llama" if softcap is None else "gemma2",
        "hidden_size": WIDTH,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "initializer_range": 0.3,
    }
    if softcap is not None:
        config["final_logit_softcapping"] = softcap
    return schema.Recipe(
        model=schema.Model(config=config, dtype=dtype, loss_chunk=5),
        data=schema.Data(
            domains={"code": schema.Source(shipped="code_stdlib")},
            target={"code": 1.0},
            sequence_length=12,
            batch_size=2,
        ),
        inner=schema.Inner(
            schema.AdamW(learning_rate=1e-2), steps=STEPS, loss=loss, lora=lora, train=train
        ),
        tune=tune,
        outer=schema.Outer(steps=1),
    )


def as_float64(tree):
    return jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def moved(params):
    """Parameters whose head isn't zero."""
    weight = jax.random.normal(jax.random.key(3), (WIDTH, WIDTH)) / 2
    return {**params, "auxiliary_head": {"weight": weight.astype(float)}}


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_the_loss_is_that_of_the_definition(float64, softcap):
    training = prepare(recipe(dtype="float64", softcap=softcap))
    model = training.model
    params = moved(as_float64(training.initialise(jax.random.key(0)).params))
    rng = np.random.default_rng(0)
    documents = np.array([[0] * 4 + [1] * 5 + [2] * 3, [0] * 12])
    mask = (documents[:, 1:] == documents[:, :-1]).astype(np.float32)
    mask[1, :4] = 0
    batch = Batch(
        rng.integers(0, 100, (2, 12)), np.zeros(2, int), np.ones(2), documents, mask.astype(float)
    )
    weights = rng.uniform(0.5, 1.5, mask.shape)
    terms = {"auxiliary": jnp.asarray(0.3)}
    got = batch_losses(model, params, batch, jnp.asarray(weights), terms)
    plain = batch_losses(model, params, batch, jnp.asarray(weights))
    # Position by position: what follows i by two is predicted from i.
    tokens = batch.tokens
    hidden = np.asarray(model.hidden(params, jnp.asarray(tokens[:, :-1]), documents[:, :-1]))
    unembedding = np.asarray(model.unembedding(params))
    added = np.zeros(2)
    for row in range(2):
        for i in range(10):
            if documents[row, i] != documents[row, i + 2] or not mask[row, i + 1]:
                continue
            features = (
                hidden[row, i] + np.asarray(params["auxiliary_head"]["weight"]) @ hidden[row, i]
            )
            logits = unembedding @ features
            if softcap:
                logits = softcap * np.tanh(logits / softcap)
            loss = np.log(np.exp(logits).sum()) - logits[tokens[row, i + 2]]
            added[row] += weights[row, i + 1] * loss
    assert added.min() > 1
    np.testing.assert_allclose(got - plain, 0.3 * added / mask.sum(1), rtol=1e-12)
    # Without documents and masks, every token from the third on.
    bare = batch._replace(documents=None, mask=None)
    head = batch_losses(model, params, bare, None, terms) - batch_losses(model, params, bare)
    swapped = batch_losses(model, params, bare._replace(documents=0 * documents), None, terms)
    np.testing.assert_allclose(batch_losses(model, params, bare, None, terms), swapped, rtol=1e-12)
    assert float(head.min()) > 0


def test_the_hypergradient_of_its_weight_equals_central_differences(float64):
    tune = schema.Tune(loss_terms=schema.LossTerms(auxiliary=schema.TunedField(windows=2)))
    training = prepare(recipe(tune=tune, dtype="float64"))
    state = as_float64(training.initialise(jax.random.key(0)))
    batches = stratified_batches(
        training.corpus, seed=(0,), batch_size=2, shares=np.ones((STEPS, 1))
    )
    held_out = heldout_batches(training.corpus, "outer", seed=(1,), sequences=2, micro_batch=2)
    eta = {"auxiliary": jnp.array([0.4, -0.7])}

    def estimate(eta):
        return hypergradient(
            training.reweighted,
            eta,
            state,
            batches,
            held_out,
            steps=STEPS,
            estimator=MixFlow(segment=2),
        )

    found = estimate(eta)
    for window in range(2):
        apart = jnp.zeros(2).at[window].set(1e-5)
        up, down = (
            float(estimate({"auxiliary": eta["auxiliary"] + sign * apart}).value)
            for sign in (1, -1)
        )
        slope = (up - down) / 2e-5
        assert abs(slope) > 1e-6
        assert float(found.gradient["auxiliary"][window]) == pytest.approx(slope, rel=1e-5)
    terms = training.trajectory(eta).loss_terms["auxiliary"]
    np.testing.assert_allclose(terms, 0.3 * np.exp([0.4, 0.4, -0.7]), rtol=1e-6)
    # The head was trained, and what is held out is measured without it.
    head = np.asarray(found.state.params["auxiliary_head"]["weight"])
    assert np.abs(head).max() > 1e-3
    (batch,) = held_out
    params = found.state.params
    assert float(training.sampled.objective(params, batch)) == float(
        held_out_loss(training.model)(params, batch)
    )


def test_nothing_changes_where_there_is_none():
    programs, states = [], []
    for loss in (None, schema.Loss(auxiliary=None), HEAD):
        training = prepare(recipe(loss))
        hyper = training.sampled.hyper_at(training.initial_eta(), jnp.int32(0))
        states.append(jax.eval_shape(training.initialise, jax.random.key(0)).params)
        batch = stratified_batches(
            training.corpus, seed=(0,), batch_size=2, shares=np.ones((STEPS, 1))
        )(0)
        program = jax.make_jaxpr(training.sampled.loss)(states[-1], hyper, batch)
        programs.append(re.sub("0x[0-9a-f]+", "", str(program)))
    assert programs[0] == programs[1] != programs[2]
    assert states[0] == states[1]
    assert states[2].keys() - states[0].keys() == {"auxiliary_head"}


LORA = schema.Lora(("q_proj",), rank=2)


@pytest.mark.parametrize("part", [{}, {"lora": LORA}, {"train": ("mlp",)}])
def test_it_is_trained_but_in_no_checkpoint(part, tmp_path):
    training = prepare(recipe(**part))
    state = training.initialise(jax.random.key(0))
    assert not np.asarray(state.params["auxiliary_head"]["weight"]).any()
    names = [name for leaf in jax.tree.leaves(training.names) for name in leaf.names]
    assert NAME in names and NAME in training.decayed()
    merged = training.merged(moved(state.params))
    assert jax.tree.structure(merged) == jax.tree.structure(training.model.names())
    save_pretrained(tmp_path / "saved", training.model, merged)
    assert not any("auxiliary" in name for name in load_file(tmp_path / "saved/model.safetensors"))


def test_the_artefact_has_its_rate_and_its_weight():
    training = prepare(recipe())
    found = artefact_of(training, training.initial_eta(), {"status": "complete"})
    assert NAME in found.learning_rates.parameters
    multipliers = found.learning_rates.multipliers
    assert multipliers is not None and NAME in multipliers.members["head"]
    assert found.loss_terms is not None and found.loss_terms.tuned == ()
    assert found.loss_terms.values["auxiliary"] == pytest.approx([0.3])


def test_other_precision_leaves_the_parameters_float32():
    training = prepare(recipe(dtype="bfloat16"))
    params = training.initialise(jax.random.key(0)).params
    hyper = training.sampled.hyper_at(training.initial_eta(), jnp.int32(0))
    batch = stratified_batches(training.corpus, seed=(0,), batch_size=2, shares=np.ones((STEPS, 1)))
    gradient = jax.eval_shape(jax.grad(training.sampled.loss), params, hyper, batch(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {np.dtype(np.float32)}
