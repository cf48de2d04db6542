"""The inner training of a language model with nothing tuned: a plain loop of optax."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cells import cells
from recipes import tiny

from metatune.data import sampled_batches
from metatune.hypergrad import train
from metatune.inner import prepare
from metatune.inner.losses import sequence_losses
from metatune.recipe import schema

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
    "adopt": (
        schema.AdoptSpec(learning_rate=3e-3, b2=0.99, clip_norm=0.5),
        optax.chain(
            optax.clip_by_global_norm(0.5),
            optax.contrib.scale_by_adopt(b2=0.99),
            optax.add_decayed_weights(0.1, matrices),
            optax.scale_by_learning_rate(cosine),
        ),
    ),
}


FURTHER = OPTIMIZERS.keys() - {"adafactor", "adopt"}
"""AdamW is bit for bit below; SGD, Muon and schedule-free AdamW are held against optax in
test_side_by_side.py and test_optimizers.py, too; Lion's direction is optax's own."""


@pytest.mark.parametrize(("ours", "theirs"), cells(OPTIMIZERS, FURTHER))
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


@pytest.mark.optimized
@pytest.mark.parametrize(("ours", "theirs"), cells(BITWISE, {"sgd"}))
def test_with_nothing_tuned_and_a_constant_rate_it_is_optax_bit_for_bit(ours, theirs):
    for a, b in trained_both_ways(ours, theirs):
        np.testing.assert_array_equal(a, b)
