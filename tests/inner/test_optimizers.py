"""Inner optimizers with what can be tuned of them, on a network of a few parameters.

Rows of a tensor whose gradient is zero are part of it: embeddings of tokens that don't occur, and
the first of an adapter's two matrices, as long as the second is zero.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cells import cells

from metatune.hypergrad import (
    Forward,
    MixFlow,
    Problem,
    State,
    ZerothOrder,
    evaluated,
    hypergradient,
    train,
)
from metatune.inner import optimizers
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables import Hyper, Setting, TunableLearningRates, build
from metatune.tunables.groups import group
from metatune.tunables.optimizer_groups import per_leaf

STEPS = 6


def layers(name):
    return ParameterNames((f"layers.0.{name}", f"layers.1.{name}"), stacked=True)


NAMES = {
    "embed": ParameterNames(("embed.weight",), stacked=False),
    "layers": {"up": layers("up"), "lora_A": layers("lora_A"), "lora_B": layers("lora_B")},
    "norm": ParameterNames(("norm.weight",), stacked=False),
}


def parameters() -> Any:
    rng = np.random.default_rng(0)
    return {
        "embed": jnp.asarray(rng.normal(size=(5, 4))),
        "layers": {
            "up": jnp.asarray(0.5 * rng.normal(size=(2, 4, 4))),
            "lora_A": jnp.asarray(0.5 * rng.normal(size=(2, 2, 4))),
            "lora_B": jnp.zeros((2, 4, 2)),
        },
        "norm": jnp.asarray(1 + 0.1 * rng.normal(size=4)),
    }


def losses(params, tokens):
    """Of predicting each token's next, [batch]."""
    hidden = params["embed"][tokens[:, 0]]
    for layer in range(2):
        up, a, b = (params["layers"][key][layer] for key in ("up", "lora_A", "lora_B"))
        hidden = hidden + jnp.tanh(hidden @ (up + b @ a).T)
    logits = (hidden * params["norm"][None, :]) @ params["embed"].T
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1])


def batches(step):
    return np.random.default_rng(step).integers(4, size=(6, 2))  # the fifth never occurs


OUTER = np.random.default_rng(99).integers(4, size=(8, 2))

# Such that eps and clipping matter.
COMMON: Any = {"learning_rate": 0.05, "weight_decay": 0.1}
OPTIMIZERS = {
    "adamw": schema.AdamWSpec(**COMMON, eps=1e-2, clip_norm=0.5),
    "sgd": schema.SGDSpec(**COMMON, clip_norm=0.5),
    "lion": schema.LionSpec(**COMMON),
    "muon": schema.MuonSpec(**COMMON, eps=1e-2, clip_norm=0.5, newton_schulz_steps=2),
    "adafactor": schema.AdafactorSpec(**COMMON, min_dim_size_to_factor=3, clip_norm=0.5),
    "schedule_free_adamw": schema.ScheduleFreeAdamWSpec(**COMMON, eps=1e-2, clip_norm=0.5),
    # The second moment soon follows, and few elements are clipped.
    "adopt": schema.AdoptSpec(**COMMON, b2=0.5, eps=0.1, clip_norm=0.5),
    "normuon": schema.NorMuonSpec(**COMMON, eps=1e-2, clip_norm=0.5, newton_schulz_steps=2),
    "soap": schema.SoapSpec(**COMMON, eps=1e-2, precondition_frequency=2, clip_norm=0.5),
    "adamh": schema.AdamHSpec(**COMMON, eps=1e-2, clip_norm=0.5),
    "muonh": schema.MuonHSpec(**COMMON, eps=1e-2, clip_norm=0.5, newton_schulz_steps=2),
    "muon beside adamw": schema.GroupsSpec(
        groups=(
            schema.MuonGroupSpec(**COMMON, match="layers", eps=1e-2, newton_schulz_steps=1),
            schema.AdamWGroupSpec(0.02, b2=0.9, eps=1e-2),
        ),
        clip_norm=0.5,
    ),
}


def tunables(spec):
    """Learning rates and everything that can be tuned of an optimizer."""
    # One window each: forward mode compiles a program for every number of them that have begun.
    fields = {name: schema.TunedFieldSpec() for name in spec.TUNABLE if name != "weight_decay"}
    decay = schema.WeightDecaySpec(per="layer")
    tune = schema.TuneSpec(optimizer=schema.OptimizerFieldsSpec(weight_decay=decay, **fields))
    names = optimizers.decaying(spec, NAMES, parameters())
    setting = Setting(NAMES, ("a",), STEPS, None, spec, names)
    return (TunableLearningRates(group(NAMES, "global", ""), 1, STEPS), *build(tune, setting))


def problem_of(spec, tuning):
    inner = optimizers.build(spec, NAMES)
    if isinstance(spec, schema.GroupsSpec):
        peaks = per_leaf(spec, NAMES, "learning_rate")
    else:
        peaks = jax.tree.map(lambda _: spec.learning_rate, NAMES)

    def hyper_at(eta, step):
        def base(leaf, peak):
            rate = jnp.asarray(peak * (1 - 0.1 * step), jnp.float32)
            return rate.reshape((1,) * leaf.ndim)

        rates = jax.tree.map(base, parameters(), peaks)
        hyper = Hyper(rates, jnp.ones(1), jnp.ones(1))
        for tunable in tuning:
            hyper = tunable.apply(eta[tunable.key], step, hyper)
        return hyper

    problem = Problem(
        lambda params, hyper, tokens: jnp.mean(losses(params, tokens)),
        inner.update,
        lambda params, tokens: jnp.mean(losses(params, tokens)),
        hyper_at,
        inner.evaluated,
    )
    return problem, inner.init


def start(init, dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), parameters())
    return State(params, jax.jit(init)(params))


def moved(tuning, dtype):
    """Meta-parameters a little off those that change nothing."""
    rng = np.random.default_rng(3)
    return {
        each.key: jnp.asarray(0.2 * rng.normal(size=each.initial().shape), dtype) for each in tuning
    }


def estimate(problem, state, eta, estimator, **more):
    return hypergradient(
        problem, eta, state, batches, [OUTER], steps=STEPS, estimator=estimator, **more
    )


# SOAP's are in test_soap.py, too; the others' parts are those of AdamW, Muon and MuonH.
@pytest.mark.parametrize("spec", cells(OPTIMIZERS, {"soap", "sgd", "lion", "adamh"}))
def test_hypergradients_against_central_differences_and_each_other(float64, spec):
    tuning = tunables(spec)
    problem, init = problem_of(spec, tuning)
    state, eta = start(init, jnp.float64), moved(tuning, jnp.float64)
    found = estimate(problem, state, eta, MixFlow(segment=3))
    pushed = estimate(problem, state, eta, Forward(segment=3))

    def objective(eta):
        trained, _ = train(problem, eta, state, batches, steps=STEPS, segment=3)
        return float(problem.objective(evaluated(problem, trained), OUTER))

    assert float(found.value) == pytest.approx(objective(eta), rel=1e-12)
    rng = np.random.default_rng(5)
    for key, gradient in found.gradient.items():
        np.testing.assert_allclose(pushed.gradient[key], gradient, rtol=1e-8, atol=1e-12)
        direction = rng.normal(size=gradient.shape)
        above, below = (
            objective({**eta, key: eta[key] + sign * 1e-6 * direction}) for sign in (1, -1)
        )
        want = (above - below) / 2e-6
        assert want != 0
        assert float(jnp.sum(gradient * direction)) == pytest.approx(want, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    "spec",
    cells(
        OPTIMIZERS,
        OPTIMIZERS.keys() - {"adamw", "adafactor", "schedule_free_adamw", "muon beside adamw"},
    ),
)
def test_what_is_tuned_starts_as_the_recipe_has_it(float64, spec):
    tuning = tunables(spec)
    ends = []
    for tuned in (tuning, ()):
        problem, init = problem_of(spec, tuned)
        eta = {each.key: each.initial().astype(jnp.float64) for each in tuned}
        state = start(init, jnp.float64)
        ends.append(train(problem, eta, state, batches, steps=STEPS, segment=6)[0])
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


DIVIDING = {
    "muon": schema.MuonSpec,
    "adafactor": schema.AdafactorSpec,
    "adopt": schema.AdoptSpec,
    "soap": schema.SoapSpec,
    "normuon": schema.NorMuonSpec,
    "adamh": schema.AdamHSpec,
    "muonh": schema.MuonHSpec,
}


# What these divide by, NorMuon, MuonH and Adafactor do, too.
@pytest.mark.parametrize("kind", cells(DIVIDING, {"muon", "adamh", "soap"}))
def test_hypergradients_are_finite_in_single_precision_with_the_defaults(kind):
    """Where a tensor's gradient and moments are zero, both divide by next to nothing."""
    spec = kind(learning_rate=0.01)
    tuning = (TunableLearningRates(group(NAMES, "tensor", ""), 1, STEPS),)
    problem, init = problem_of(spec, tuning)
    eta = {each.key: each.initial() for each in tuning}
    found = estimate(problem, start(init, jnp.float32), eta, MixFlow(segment=3))
    assert np.isfinite(float(found.value))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found.gradient))


def test_zeroth_order_judges_the_average(float64):
    spec = OPTIMIZERS["schedule_free_adamw"]
    tuning = tunables(spec)[:1]
    problem, init = problem_of(spec, tuning)
    state, eta = start(init, jnp.float64), moved(tuning, jnp.float64)
    estimator = ZerothOrder(directions=1, step=1e-3, distribution="orthogonal", segment=6)
    found = estimate(problem, state, eta, estimator, key=jax.random.key(0))

    def trained(size):
        moved = {key: leaf + size for key, leaf in eta.items()}
        return train(problem, moved, state, batches, steps=STEPS, segment=6)[0]

    at = [
        float(problem.objective(evaluated(problem, trained(size)), OUTER))
        for size in (0, 1e-3, -1e-3)
    ]
    assert float(found.value) == pytest.approx(at[0], rel=1e-12)
    (gradient,) = found.gradient.values()
    assert float(gradient[0, 0]) == pytest.approx((at[1] - at[2]) / 2e-3, rel=1e-9)
    # x lies elsewhere than y.
    assert abs(float(problem.objective(trained(0).params, OUTER)) - at[0]) > 1e-4


def test_the_average_is_that_of_optax():
    spec = schema.ScheduleFreeAdamWSpec(learning_rate=0.02, decay="all")
    problem, init = problem_of(spec, ())
    problem = replace(problem, hyper_at=lambda eta, step: Hyper(rates, jnp.ones(1), jnp.ones(1)))
    rates = jax.tree.map(lambda leaf: jnp.full((1,) * leaf.ndim, 0.02), parameters())
    trained, _ = train(problem, {}, start(init, jnp.float32), batches, steps=50)
    inner = optax.chain(
        optax.scale_by_adam(b1=0, b2=0.95, eps_root=1e-12),
        optax.add_decayed_weights(0.1),
        optax.scale_by_learning_rate(0.02),
    )
    theirs = optax.contrib.schedule_free(inner, 0.02, b1=0.9)
    params = parameters()
    state = theirs.init(params)

    @jax.jit
    def update(params, state, tokens):
        grads = jax.grad(lambda params: jnp.mean(losses(params, tokens)))(params)
        updates, state = theirs.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for step in range(50):
        params, state = update(params, state, batches(step))
    want = optax.contrib.schedule_free_eval_params(state, params)
    got = evaluated(problem, trained)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert float(jnp.linalg.norm(a - b)) < 3e-6 * float(jnp.linalg.norm(b))


def stepped(optimizer, grads, params=None) -> Any:
    """The first updates, as one program."""

    @jax.jit
    def first(grads, params):
        # An optimizer that doesn't look at parameters has a state of the shape of the gradients.
        return optimizer.update(grads, optimizer.init(grads if params is None else params), params)

    return first(grads, params)[0]


def test_muon_takes_the_matrices_of_each_layer_and_adam_the_rest(float64):
    spec = schema.MuonSpec(learning_rate=1.0, weight_decay=0.0)
    inner = optimizers.direction(spec, NAMES)
    params = parameters()
    grads = jax.tree.map(lambda leaf: jnp.cos(3 * leaf), params)
    found = stepped(inner, grads, params)
    one = optax.contrib.scale_by_muon(weight_dimension_numbers=optax.contrib.MuonDimensionNumbers())
    for layer in range(2):
        gradient = grads["layers"]["lora_A"][layer]  # [2 outputs, 4 inputs]
        want = stepped(one, gradient.T)
        np.testing.assert_allclose(found["layers"]["lora_A"][layer], want.T, rtol=1e-9)
        gradient = grads["layers"]["lora_B"][layer]  # [4 outputs, 2 inputs]
        want = stepped(one, gradient.T)
        np.testing.assert_allclose(found["layers"]["lora_B"][layer], np.sqrt(2) * want.T, rtol=1e-9)
    adam = optax.scale_by_adam(b2=0.95, eps_root=1e-12)
    want = stepped(adam, grads)
    for key in ("embed", "norm"):
        np.testing.assert_allclose(found[key], want[key], rtol=1e-12)
    # Matrices [inputs, outputs], but for those of adapters.
    transposed = optimizers.direction(spec, NAMES, transposed=True)
    again = stepped(transposed, grads, params)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)  # `up` is square: either way the same
