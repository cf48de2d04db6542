"""The head that predicts the token two ahead: its loss, its place in a training, its weight's η."""

import functools
import re
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from metatune.artefact import ArtefactError
from metatune.data import Batch, heldout_batches, stratified_batches
from metatune.fit.making import artefact_of
from metatune.hypergrad import Forward, hypergradient
from metatune.inner import prepare
from metatune.inner.losses import batch_losses, held_out_loss
from metatune.models import save_pretrained
from metatune.recipe import schema
from metatune.train import matching

WIDTH, STEPS, NAME = 8, 2, "auxiliary_head.weight"
HEAD = schema.LossSpec(multi_token_prediction=schema.SecondNextTokenSpec(weight=0.3))
RATES = schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="kind"))


def recipe(
    loss: schema.LossSpec | None = HEAD,
    tune=RATES,
    lora=None,
    train=None,
    dtype: Any = "float32",
    softcap=None,
    chunk: Any = 5,
):
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
        model=schema.ModelSpec(config=config, dtype=dtype, loss_chunk=chunk),
        data=schema.DataSpec(
            domains={"code": schema.SourceSpec(shipped="code_stdlib")},
            target={"code": 1.0},
            sequence_length=12,
            batch_size=2,
        ),
        inner=schema.InnerSpec(
            schema.AdamWSpec(learning_rate=1e-2), steps=STEPS, loss=loss, lora=lora, train=train
        ),
        tune=tune,
        outer=schema.OuterSpec(steps=1),
    )


def batches_of(training):
    shares = np.ones((STEPS, 1))
    return stratified_batches(training.corpus, seed=(0,), batch_size=2, shares=shares)


# One program a test, hardly optimised: there is little to run and much to compile.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def as_float64(tree):
    return jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def moved(params):
    """Parameters whose head isn't zero."""
    weight = jax.random.normal(jax.random.key(3), (WIDTH, WIDTH)) / 2
    return {**params, "auxiliary_head": {"weight": weight.astype(float)}}


@pytest.fixture(scope="module")
def training():
    return prepare(recipe())


def test_the_loss_is_that_of_the_definition(float64):
    softcap = 1.5
    training = prepare(recipe(dtype="float64", softcap=softcap))
    model = training.model
    rng = np.random.default_rng(0)
    documents = np.array([[0] * 4 + [1] * 5 + [2] * 3, [0] * 12])
    mask = np.asarray(documents[:, 1:] == documents[:, :-1], float)
    mask[1, :4] = 0
    weights = rng.uniform(0.5, 1.5, mask.shape)
    bare = Batch(rng.integers(0, 100, (2, 12)), np.zeros(2, int), np.ones(2))
    batch = bare._replace(documents=documents, mask=mask)

    @jit
    def computed(key):
        params = moved(as_float64(model.init(key)))

        def added(batch, weights=None):
            terms = {"auxiliary": jnp.asarray(0.3)}
            plain = batch_losses(model, params, batch, weights)
            return batch_losses(model, params, batch, weights, terms) - plain

        features = [
            model.hidden(params, jnp.asarray(bare.tokens[:, :-1]), within)
            for within in (jnp.asarray(documents[:, :-1]), None)
        ]
        matrices = params["auxiliary_head"]["weight"], model.unembedding(params)
        return (added(batch, jnp.asarray(weights)), added(bare)), features, matrices

    got, features, (head, unembedding) = jax.tree.map(np.asarray, computed(jax.random.key(0)))
    everywhere = np.ones_like(mask)

    def expected(hidden, documents, counts, weights):
        """Position by position: what follows i by two is predicted from i."""
        total = np.zeros(2)
        for row, i in np.ndindex(2, 10):
            if documents[row, i] == documents[row, i + 2] and counts[row, i + 1]:
                logits = unembedding @ (hidden[row, i] + head @ hidden[row, i])
                logits = softcap * np.tanh(logits / softcap)
                loss = np.log(np.exp(logits).sum()) - logits[bare.tokens[row, i + 2]]
                total[row] += weights[row, i + 1] * loss
        return 0.3 * total / counts.sum(1)

    want = expected(features[0], documents, mask, weights)
    assert want.min() > 0.1
    np.testing.assert_allclose(got[0], want, rtol=1e-12)
    want = expected(features[1], 0 * documents, everywhere, everywhere)
    np.testing.assert_allclose(got[1], want, rtol=1e-12)


def test_the_hypergradient_of_its_weight_equals_central_differences(float64):
    tune = schema.TuneSpec(
        loss_terms=schema.LossTermsSpec(multi_token_prediction=schema.TunedFieldSpec(windows=2))
    )
    wanted = recipe(tune=tune, dtype="float64", chunk=None)
    # Steps of 1e-5 would see how sharply AdamW turns where a gradient is zero.
    optimizer = schema.SGDSpec(learning_rate=0.1)
    training = prepare(replace(wanted, inner=replace(wanted.inner, optimizer=optimizer)))
    state = as_float64(training.initialise(jax.random.key(0)))
    batches = batches_of(training)
    held_out = heldout_batches(training.corpus, "validation", seed=(1,), sequences=2, micro_batch=2)
    eta = {"auxiliary": jnp.array([0.4, -0.7])}

    @jit
    def estimate(eta):
        found = hypergradient(
            training.reweighted,
            eta,
            state,
            batches,
            held_out,
            steps=STEPS,
            estimator=Forward(segment=2),
        )
        params = found.state.params
        plain = held_out_loss(training.model)(params, held_out[0])
        return found.value, found.gradient["auxiliary"], plain, params["auxiliary_head"]["weight"]

    value, gradient, plain, head = estimate(eta)
    for window in range(2):
        apart = jnp.zeros(2).at[window].set(1e-5)
        up, down = (
            float(estimate({"auxiliary": eta["auxiliary"] + sign * apart})[0]) for sign in (1, -1)
        )
        slope = (up - down) / 2e-5
        assert abs(slope) > 1e-6
        assert float(gradient[window]) == pytest.approx(slope, rel=1e-5)
    terms = training.trajectory(eta).loss_terms["auxiliary"]
    np.testing.assert_allclose(terms, 0.3 * np.exp([0.4, -0.7]), rtol=1e-6)
    # The head was trained, and what is held out is measured without it.
    assert float(jnp.abs(head).max()) > 1e-3
    assert float(value) == pytest.approx(float(plain), rel=1e-12)


def test_nothing_changes_where_there_is_none(training):
    programs, states = [], []
    for each in (prepare(recipe(None)), prepare(recipe(schema.LossSpec())), training):
        hyper = each.sampled.hyper_at(each.initial_eta(), jnp.int32(0))
        states.append(jax.eval_shape(each.initialise, jax.random.key(0)).params)
        batch = batches_of(each)(0)
        program = jax.make_jaxpr(each.sampled.loss)(states[-1], hyper, batch)
        programs.append(re.sub("0x[0-9a-f]+", "", str(program)))
    assert programs[0] == programs[1] != programs[2]
    assert states[0] == states[1]
    assert states[2].keys() - states[0].keys() == {"auxiliary_head"}


def test_it_is_trained_but_in_no_checkpoint(training, tmp_path):
    state = training.initialise(jax.random.key(0))
    assert not np.asarray(state.params["auxiliary_head"]["weight"]).any()
    assert NAME in training.decayed()
    save_pretrained(tmp_path / "saved", training.model, training.merged(moved(state.params)))
    names = load_file(tmp_path / "saved" / "model.safetensors").keys()
    assert names == {
        name for leaf in jax.tree.leaves(training.model.names()) for name in leaf.names
    }


def test_it_is_trained_beside_what_is_frozen():
    training = prepare(recipe(lora=schema.LoraSpec(("q_proj",), rank=2), train=("norm",)))
    assert NAME in [name for leaf in jax.tree.leaves(training.names) for name in leaf.names]
    params = jax.eval_shape(training.initialise, jax.random.key(0)).params
    assert params["auxiliary_head"]["weight"].shape == (WIDTH, WIDTH)
    merged = jax.eval_shape(training.merged, params)
    assert jax.tree.structure(merged) == jax.tree.structure(training.model.names())


def test_the_artefact_has_its_rate_and_its_weight(training):
    found = artefact_of(training, training.initial_eta(), {})
    assert NAME in found.learning_rates.parameters
    multipliers = found.learning_rates.multipliers
    assert multipliers is not None and NAME in multipliers.members["head"]
    assert found.loss_terms is not None and found.loss_terms.tuned == ()
    assert found.loss_terms.values["auxiliary"] == pytest.approx([0.3])
    # Who follows it must have the head, and may have another weight.
    heavier = schema.LossSpec(multi_token_prediction=schema.SecondNextTokenSpec(weight=0.5))
    other = replace(training, recipe=recipe(heavier))
    matching.refuse_misfit(found, other, "mine")
    assert [line for line in matching.remarks(found, other) if "in the loss" in line] == [
        "warning: the artefact was tuned with auxiliary 0.3 in the loss; the recipe's 0.5 is used"
    ]
    with pytest.raises(ArtefactError, match=f"that mine doesn't have:\n +{NAME}"):
        matching.refuse_misfit(found, prepare(recipe(None)), "mine")


def test_other_precision_leaves_the_parameters_float32():
    training = prepare(recipe(dtype="bfloat16"))
    params = training.initialise(jax.random.key(0)).params
    hyper = training.sampled.hyper_at(training.initial_eta(), jnp.int32(0))
    batch = batches_of(training)
    gradient = jax.eval_shape(jax.grad(training.sampled.loss), params, hyper, batch(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {np.dtype(np.float32)}
