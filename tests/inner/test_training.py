"""The inner training of a language model: against plain optax, and its hypergradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipes import tiny

from metatune.data import heldout_batches, sampled_batches, stratified_batches
from metatune.hypergrad import Forward, ForwardGradient, MixFlow, Reverse, hypergradient, train
from metatune.inner import prepare
from metatune.inner.losses import sequence_losses
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError

pytestmark = pytest.mark.optimized  # two programs, bit for bit

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


def with_optimizer(optimizer) -> schema.Recipe:
    return dataclasses.replace(RECIPE, inner=schema.InnerSpec(optimizer=optimizer, steps=50))


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


def plain_optax_loop(training, optimizer, batches, steps):
    """The loop anyone would write."""
    state = training.initialise(jax.random.key(0))
    params, opt_state = state.params, optimizer.init(state.params)

    @jax.jit
    def update(params, opt_state, tokens):
        def loss(params):
            return jnp.mean(sequence_losses(training.model, params, tokens))

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for step in range(steps):
        params, opt_state = update(params, opt_state, batches(step).tokens)
    return params


def trained_both_ways(ours, theirs):
    """Each parameter after 50 steps with nothing tuned: of our training, of the plain loop."""
    training = prepare(with_optimizer(ours))
    eta = training.initial_eta()
    shares = training.trajectory(eta).mixture
    batches = sampled_batches(training.corpus, seed=(1,), batch_size=4, shares=shares)
    state = training.initialise(jax.random.key(0))
    got, losses = train(training.sampled, eta, state, batches, steps=50, segment=20)
    assert float(losses[-1]) < float(losses[0])
    want = plain_optax_loop(training, theirs, batches, 50)
    return zip(jax.tree.leaves(got.params), jax.tree.leaves(want), strict=True)


def is_matrix(path, leaf):
    return leaf.ndim - ("layers" in jax.tree_util.keystr(path)) >= 2


def matrices(params):
    return jax.tree_util.tree_map_with_path(is_matrix, params)


# A row for each inner optimizer, with the optax optimizer that it must equal.
cosine = optax.warmup_cosine_decay_schedule(3e-3 / 3, 3e-3, 2, 50, 3e-4)
OPTIMIZERS = {
    "adamw": (
        schema.AdamWSpec(learning_rate=3e-3, clip_norm=None),
        optax.adamw(cosine, b2=0.95, eps_root=1e-12, weight_decay=0.1, mask=matrices),
    ),
    "adamw, clipped, decay everywhere": (
        schema.AdamWSpec(learning_rate=3e-3, decay="all", clip_norm=0.5),
        optax.chain(
            optax.clip_by_global_norm(0.5),
            optax.adamw(cosine, b2=0.95, eps_root=1e-12, weight_decay=0.1),
        ),
    ),
    "sgd": (
        schema.SGDSpec(learning_rate=3e-3, clip_norm=None),
        optax.sgd(cosine, momentum=0.9),
    ),
    "sgd, nesterov, decay": (
        schema.SGDSpec(learning_rate=3e-3, weight_decay=0.1, nesterov=True, clip_norm=1.0),
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.add_decayed_weights(0.1, matrices),
            optax.sgd(cosine, momentum=0.9, nesterov=True),
        ),
    ),
}


def stacked(path):
    return "layers" in jax.tree_util.keystr(path)


def by_layer(optimizer):
    """The optimizer, given the tensors of each layer by themselves."""

    def apart(tree):
        return jax.tree_util.tree_map_with_path(lambda p, x: list(x) if stacked(p) else x, tree)

    def init(params):
        return optimizer.init(apart(params))

    def update(updates, state, params=None):
        updates, state = optimizer.update(apart(updates), state, apart(params))
        together = jax.tree.map(
            lambda _, found: jnp.stack(found) if isinstance(found, list) else found, params, updates
        )
        return together, state

    return optax.GradientTransformation(init, update)


def matrix_axes(params):
    """Muon's: outputs and inputs of what is stacked."""

    def axes(path, leaf):
        is_muon = stacked(path) and leaf.ndim == 3
        return optax.contrib.MuonDimensionNumbers(2, 1) if is_muon else None

    return jax.tree_util.tree_map_with_path(axes, params)


warmed = optax.warmup_constant_schedule(3e-3 / 3, 3e-3, 2)
OPTIMIZERS |= {
    "lion": (
        schema.LionSpec(learning_rate=1e-3, schedule=schema.ConstantSpec(), clip_norm=0.5),
        optax.chain(
            optax.clip_by_global_norm(0.5), optax.lion(1e-3, weight_decay=0.1, mask=matrices)
        ),
    ),
    # That of Optax looks ahead in its AdamW too, where it does: neither does here.
    "muon, no nesterov, decay everywhere": (
        schema.MuonSpec(learning_rate=3e-3, nesterov=False, decay="all"),
        optax.contrib.muon(
            cosine,
            nesterov=False,
            weight_decay=0.1,
            adam_b2=0.95,
            adam_eps_root=1e-12,
            adam_weight_decay=0.1,
            muon_weight_dimension_numbers=matrix_axes,
        ),
    ),
    "adafactor": (
        schema.AdafactorSpec(learning_rate=3e-3, min_dim_size_to_factor=16),
        by_layer(optax.adafactor(cosine, min_dim_size_to_factor=16, eps=1e-20)),
    ),
    "schedule_free_adamw": (
        schema.ScheduleFreeAdamWSpec(learning_rate=3e-3),
        optax.contrib.schedule_free(
            optax.chain(
                optax.scale_by_adam(b1=0, b2=0.95, eps_root=1e-12),
                optax.add_decayed_weights(0.1, matrices),
                optax.scale_by_learning_rate(warmed),
            ),
            # Steps are counted from one here, from zero above.
            learning_rate=lambda count: warmed(count - 1),
            b1=0.9,
        ),
    ),
}


@pytest.mark.parametrize("ours, theirs", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_with_nothing_tuned_it_is_a_plain_optax_loop(ours, theirs):
    for a, b in trained_both_ways(ours, theirs):
        # By the norm of a tensor: Adam divides an element's rounding error by the root of its own
        # second moment, which magnifies that of elements whose gradient all but vanishes. Muon
        # does that to small singular values, by a factor of 3.4 in each of five iterations.
        tolerance = 1e-5 if isinstance(ours, schema.MuonSpec) else 1e-6
        assert float(jnp.linalg.norm(a - b)) < tolerance * float(jnp.linalg.norm(b))


# With a constant rate both compile to the same operations; a schedule's rate is rounded otherwise.
CONSTANT = schema.ConstantSpec()
BITWISE = {
    "adamw": (
        schema.AdamWSpec(learning_rate=3e-3, schedule=CONSTANT, clip_norm=0.5),
        optax.chain(
            optax.clip_by_global_norm(0.5),
            optax.adamw(3e-3, b2=0.95, eps_root=1e-12, weight_decay=0.1, mask=matrices),
        ),
    ),
    "sgd": (
        schema.SGDSpec(learning_rate=3e-3, schedule=CONSTANT, clip_norm=None),
        optax.sgd(3e-3, momentum=0.9),
    ),
}


@pytest.mark.parametrize("ours, theirs", BITWISE.values(), ids=BITWISE.keys())
def test_with_nothing_tuned_and_a_constant_rate_it_is_optax_bit_for_bit(ours, theirs):
    for a, b in trained_both_ways(ours, theirs):
        np.testing.assert_array_equal(a, b)


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
    "recomputed gradients": (MixFlow(segment=6, save_gradients=False), {}),
    "no mixed mode": (MixFlow(segment=6, mixed_mode=False), {}),
    "no mixed mode, recomputed": (MixFlow(6, mixed_mode=False, save_gradients=False), {}),
    "no block remat": (MixFlow(segment=6), {"remat": False}),
    "no block remat, recomputed": (MixFlow(segment=6, save_gradients=False), {"remat": False}),
    "no block remat nor mixed mode": (MixFlow(segment=6, mixed_mode=False), {"remat": False}),
    "reverse, no block remat": (Reverse(segment=6), {"remat": False}),
    "forward": (Forward(segment=6), {}),
    "forward, no block remat": (Forward(segment=6, chunk=40), {"remat": False}),
    "forward gradient, whole basis": (ForwardGradient(67, 6, "orthogonal", chunk=40), {}),
}


@pytest.fixture(scope="module")
def oracle(training):
    return estimate(training, training.reweighted, training.initial_eta(), Reverse(segment=6))


@pytest.mark.parametrize(("estimator", "model"), COMBINATIONS.values(), ids=COMBINATIONS.keys())
def test_all_combinations_give_the_same_hypergradient(training, oracle, estimator, model):
    if model:
        training = prepare(
            dataclasses.replace(RECIPE, model=dataclasses.replace(RECIPE.model, **model))
        )
    same_hypergradient(training, estimator, oracle)


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


def test_forward_mode_over_all_windows(float64):
    """To the rounding of double precision; a window's tangents begin with it."""
    recipe = dataclasses.replace(
        RECIPE,
        model=dataclasses.replace(RECIPE.model, dtype="float64"),
        inner=dataclasses.replace(RECIPE.inner, steps=12),
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


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-5)])
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


@pytest.mark.parametrize("tune", TUNE.values(), ids=TUNE.keys())
@pytest.mark.parametrize("kind", [schema.AdamWSpec, schema.SGDSpec])
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
