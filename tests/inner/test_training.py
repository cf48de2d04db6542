"""The inner training of a language model: its losses, and its hypergradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells
from recipes import tiny

from metatune.data import heldout_batches, stratified_batches
from metatune.hypergrad import Forward, ForwardGradient, MixFlow, Reverse, hypergradient
from metatune.inner import prepare
from metatune.inner.losses import sequence_losses
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError

RECIPE = tiny(
    {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "initializer_range": 0.02,
    },
    model={"remat": True},
    inner={"optimizer": schema.AdamWSpec(learning_rate=0.003), "steps": 50},
    tune=schema.TuneSpec(
        learning_rates=schema.LearningRatesSpec(per="tensor", windows=3),
        mixture=schema.MixtureSpec(windows=2, floor=0.05),
    ),
)


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


def test_the_reweighted_loss_is_the_mixture_of_the_domains_losses(training):
    batch = stratified(training, batch_size=5)(3)
    params = training.initialise(jax.random.key(1)).params
    hyper = training.reweighted.hyper_at(training.initial_eta(), 0)
    hyper = hyper._replace(mixture=jnp.array([0.8, 0.2]), loss_weights=jnp.array([0.5, 1.5]))
    losses = np.asarray(sequence_losses(training.model, params, jnp.asarray(batch.tokens)))
    by_domain = [losses[batch.domain == d].mean() for d in range(2)]
    want = 0.8 * 0.5 * by_domain[0] + 0.2 * 1.5 * by_domain[1]
    assert float(training.reweighted.loss(params, hyper, batch)) == pytest.approx(want, rel=1e-6)


def stratified(training, batch_size):
    shares = training.trajectory(training.initial_eta()).mixture
    return stratified_batches(training.corpus, seed=(4,), batch_size=batch_size, shares=shares)


def estimate(training, problem, eta, estimator, dtype=jnp.float32, steps=12):
    state = training.initialise(jax.random.key(2))
    state = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        state,
    )
    held_out = heldout_batches(training.corpus, "validation", seed=(3,), sequences=8, micro_batch=4)
    batches = stratified(training, batch_size=4)
    return hypergradient(
        problem,
        eta,
        state,
        batches,
        held_out,
        steps=steps,
        estimator=estimator,
        key=jax.random.key(7),
    )


COMBINATIONS = {
    "all parts": (MixFlow(segment=6), {}),
    "no block remat": (MixFlow(segment=6), {"remat": False}),
    "forward": (Forward(segment=6), {}),
    "recomputed gradients": (MixFlow(segment=6, save_gradients=False), {}),
    "no mixed mode": (MixFlow(segment=6, mixed_mode=False), {}),
    "forward gradient, whole basis": (ForwardGradient(67, 6, "orthogonal", chunk=40), {}),
    "no mixed mode, recomputed": (MixFlow(6, mixed_mode=False, save_gradients=False), {}),
    "no block remat, recomputed": (MixFlow(segment=6, save_gradients=False), {"remat": False}),
    "no block remat nor mixed mode": (MixFlow(segment=6, mixed_mode=False), {"remat": False}),
    "reverse, no block remat": (Reverse(segment=6), {"remat": False}),
    "forward, no block remat": (Forward(segment=6, chunk=40), {"remat": False}),
}
FURTHER = COMBINATIONS.keys() - {"all parts", "forward"}
"""Of small problems in tests/hypergrad, and of models in tests/models/test_transformer.py."""


@pytest.fixture(scope="module")
def oracle(training):
    return estimate(training, training.reweighted, training.initial_eta(), Reverse(segment=6))


@pytest.mark.parametrize(("estimator", "model"), cells(COMBINATIONS, FURTHER))
def test_all_combinations_give_the_same_hypergradient(training, oracle, estimator, model):
    if model:
        training = prepare(
            dataclasses.replace(RECIPE, model=dataclasses.replace(RECIPE.model, **model))
        )
    same_hypergradient(training, estimator, oracle)


# So it is where documents are kept apart, in test_packed_training.py.
@pytest.mark.thorough
def test_micro_batches_give_the_same_hypergradient(oracle):
    training = prepare(
        dataclasses.replace(RECIPE, inner=dataclasses.replace(RECIPE.inner, micro_batch=2))
    )
    assert training.reweighted.micro_batches == training.sampled.micro_batches == 2
    same_hypergradient(training, MixFlow(segment=6), oracle)


def same_hypergradient(training, estimator, oracle):
    eta = training.initial_eta()
    got = estimate(training, training.reweighted, eta, estimator)
    for key in eta:
        error = jnp.linalg.norm(got.gradient[key] - oracle.gradient[key])
        assert float(error / jnp.linalg.norm(oracle.gradient[key])) < 1e-4
    assert float(got.value) == pytest.approx(float(oracle.value), rel=1e-6)


# Tangents that begin with their windows are those of tests/hypergrad/test_forward.py.
@pytest.mark.thorough
def test_forward_mode_over_all_windows(float64):
    """To the rounding of double precision; a window's tangents begin with it."""
    recipe = dataclasses.replace(
        RECIPE,
        model=dataclasses.replace(RECIPE.model, dtype="float64", remat=False),
        inner=dataclasses.replace(RECIPE.inner, steps=12),
        # Another program for each set of windows that have begun.
        tune=schema.TuneSpec(
            learning_rates=schema.LearningRatesSpec(per="tensor", windows=2),
            mixture=schema.MixtureSpec(windows=2, floor=0.05),
        ),
    )
    training = prepare(recipe)
    eta = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), training.initial_eta())
    forward, mixflow = (
        estimate(training, training.reweighted, eta, estimator, jnp.float64)
        for estimator in (Forward(segment=4), MixFlow(segment=4))
    )
    for key, want in mixflow.gradient.items():
        assert np.all(np.any(np.asarray(want) != 0, axis=1))  # every window acts
        error = np.linalg.norm(np.asarray(forward.gradient[key]) - np.asarray(want))
        assert error < 1e-8 * np.linalg.norm(np.asarray(want))


# Second derivatives with chunks are held against torch in tests/models/test_parity.py.
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    cells({"float64": ("float64", 1e-10), "float32": ("float32", 1e-5)}, {"float32"}),
)
def test_chunks_change_no_hypergradient(dtype, tolerance):
    def at(attention_chunk, loss_chunk):
        model = dataclasses.replace(
            RECIPE.model, dtype=dtype, attention_chunk=attention_chunk, loss_chunk=loss_chunk
        )
        training = prepare(dataclasses.replace(RECIPE, model=model))
        eta = jax.tree.map(lambda leaf: leaf.astype(dtype), training.initial_eta())
        return estimate(
            training, training.reweighted, eta, MixFlow(segment=4), jnp.dtype(dtype), steps=4
        )

    # Of 15 queries, and of 60 tokens: neither divides.
    with jax.enable_x64(dtype == "float64"):
        plain, chunked = at(None, None), at(4, 7)
    assert float(chunked.value) == pytest.approx(float(plain.value), rel=tolerance)
    for key, want in plain.gradient.items():
        error = np.linalg.norm(np.asarray(chunked.gradient[key]) - np.asarray(want))
        assert error < tolerance * np.linalg.norm(np.asarray(want))


TUNE = {
    "learning rates and mixture": RECIPE.tune,
    "loss weights": schema.TuneSpec(loss_weights=schema.LossWeightsSpec(windows=2)),
    "averaging": schema.TuneSpec(averaging=schema.AveragingSpec(windows=2, start=0.25, decay=0.8)),
}


KINDS = {"adamw": schema.AdamWSpec, "sgd": schema.SGDSpec}
TUNED = {f"{one}, {name}": (KINDS[one], tune) for one in KINDS for name, tune in TUNE.items()}


# Tunables don't know optimizers, whose hypergradients are in test_optimizers.py; an average's is by
# hand in tests/tunables/test_averaging.py.
@pytest.mark.parametrize(
    ("kind", "tune"), cells(TUNED, {each for each in TUNED if "sgd" in each or "averag" in each})
)
def test_every_tunable_against_central_differences(float64, tune, kind):
    recipe = dataclasses.replace(
        RECIPE,
        tune=tune,
        model=dataclasses.replace(RECIPE.model, dtype="float64"),
        inner=schema.InnerSpec(kind(learning_rate=1e-2, weight_decay=0.1), steps=12),
    )
    training = prepare(recipe)
    eta = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), training.initial_eta())
    result = estimate(training, training.reweighted, eta, MixFlow(segment=6), jnp.float64)
    rng = np.random.default_rng(5)
    for key in eta:
        direction = rng.normal(size=eta[key].shape)

        def value(size, key=key, direction=direction):
            moved = {**eta, key: eta[key] + size * direction}
            return float(
                estimate(
                    training, training.reweighted, moved, MixFlow(segment=6), jnp.float64
                ).value
            )

        want = (value(1e-5) - value(-1e-5)) / 2e-5
        got = float(jnp.sum(result.gradient[key] * direction))
        assert got == pytest.approx(want, rel=1e-5)


def test_the_trajectory_is_what_training_uses(training):
    eta = jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(6), leaf.shape),
        training.initial_eta(),
    )
    trajectory = training.trajectory(eta)
    name = "model.layers.1.mlp.up_proj.weight"
    for step in (0, 17, 49):
        hyper = training.reweighted.hyper_at(eta, step)
        rates = hyper.learning_rate["model"]["layers"]["mlp"]["up_proj"]["weight"]
        assert trajectory.learning_rates[name][step] == pytest.approx(float(rates[1, 0, 0]))
        np.testing.assert_allclose(trajectory.mixture[step], hyper.mixture, rtol=1e-6)
    assert trajectory.mixture.dtype == np.float64
    np.testing.assert_allclose(trajectory.mixture.sum(-1), 1, atol=1e-15)


def test_weight_decay_applies_to_matrices(training):
    decayed = training.decayed()
    assert "model.layers.0.self_attn.q_proj.weight" in decayed
    assert "model.layers.0.input_layernorm.weight" not in decayed
    assert "model.norm.weight" not in decayed


def test_faults_of_data_model_and_tunables_come_together():
    recipe = dataclasses.replace(
        RECIPE,
        data=dataclasses.replace(RECIPE.data, target={"cod": 1.0}),
        tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per=("no_such_tensor",))),
    )
    with pytest.raises(RecipeError) as refused:
        prepare(recipe, "mine.yaml")
    paths = {fault.path for fault in refused.value.faults}
    assert {"data.target.cod", "tune.learning_rates.per"} <= paths
    broken = dataclasses.replace(
        recipe, model=dataclasses.replace(RECIPE.model, config={"model_type": "lama"})
    )
    with pytest.raises(RecipeError) as refused:
        prepare(broken, "mine.yaml")
    assert any(fault.path == "model.config.model_type" for fault in refused.value.faults)


@pytest.mark.parametrize("spec", [schema.ForwardGradientSpec, schema.ZerothOrderSpec])
def test_no_more_orthogonal_directions_than_meta_parameters(spec):
    def faults(directions, **changes):
        estimator = spec(directions=directions, distribution="orthogonal")
        outer = schema.OuterSpec(steps=1, estimator=estimator)
        with pytest.raises(RecipeError) as refused:
            prepare(dataclasses.replace(RECIPE, outer=outer, **changes))
        return [str(fault) for fault in refused.value.faults]

    assert faults(68) == [
        "outer.estimator.directions = 68: must be at most the number of meta-parameters, 67, to be "
        "orthogonal; take 67, which is exact, or distribution: rademacher"
    ]
    # How many there are isn't known where a tunable can't be built.
    broken = schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per=("no_such_tensor",)))
    assert all("meta-parameters" not in fault for fault in faults(10**6, tune=broken))
    sound = schema.OuterSpec(steps=1, estimator=spec(directions=67, distribution="orthogonal"))
    assert prepare(dataclasses.replace(RECIPE, outer=sound)).recipe.outer == sound


def test_no_more_orthogonal_pairs_than_meta_parameters():
    estimator = schema.PersistentESSpec(pairs=68, distribution="orthogonal")
    outer = schema.OuterSpec(steps=1, estimator=estimator, unroll=schema.OnlineSpec(window=1))
    with pytest.raises(RecipeError) as refused:
        prepare(dataclasses.replace(RECIPE, outer=outer))
    assert [str(fault) for fault in refused.value.faults] == [
        "outer.estimator.pairs = 68: must be at most the number of meta-parameters, 67, to be "
        "orthogonal; take 67, or distribution: gaussian"
    ]
