"""Rates within parameters, in the training of a language model, and in its artefact."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import CODE, tiny

from metatune import artefact
from metatune.data import heldout_batches, sampled_batches, stratified_batches
from metatune.fit.making import artefact_of
from metatune.hypergrad import MixFlow, hypergradient, train
from metatune.inner import prepare, rescaled
from metatune.recipe import schema
from metatune.recipe.checks import check
from metatune.recipe.rules import broken_rules
from metatune.train.matching import refuse_misfit
from metatune.train.schedules import Schedules

STEPS = 4
RECIPE = tiny(
    data={"domains": {"code": CODE}, "batch_size": 2},
    inner={
        "steps": STEPS,
        "optimizer": schema.AdamWSpec(learning_rate=0.01, schedule=schema.CosineSpec(warmup=0.25)),
    },
    tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="element", windows=2)),
)


def with_rates(recipe=RECIPE, **options):
    rates = schema.LearningRatesSpec(**options)
    return dataclasses.replace(recipe, tune=schema.TuneSpec(learning_rates=rates))


def some_eta(training, dtype=jnp.float32):
    shape = training.initial_eta()["learning_rates"].shape
    return {"learning_rates": jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)}


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


# Of every tunable, to a rounding, in tests/tunables/test_start.py.
@pytest.mark.thorough
def test_plain_rates_leave_the_training_as_it_is_bit_for_bit(training):
    lines = with_rates(per="row", windows=3, interpolation="linear", max_multiplier=2.0)
    batches = sampled_batches(training.corpus, seed=(1,), batch_size=2, shares=np.ones((STEPS, 1)))
    trainings = (training, prepare(with_rates(per="global")), prepare(lines))
    # An operation at a time: how XLA rounds what it joins is a program's own.
    with jax.disable_jit():
        ends = [
            train(
                each.sampled,
                each.initial_eta(),
                each.initialise(jax.random.key(0)),
                batches,
                steps=2,
                segment=2,
            )[0].params
            for each in trainings
        ]
    for found in ends[1:]:
        jax.tree.map(np.testing.assert_array_equal, found, ends[0])


def test_the_hypergradient_of_every_element_equals_central_differences(float64):
    model = dataclasses.replace(RECIPE.model, dtype="float64")
    training = prepare(with_rates(dataclasses.replace(RECIPE, model=model), per="element"))
    state = jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        training.initialise(jax.random.key(0)),
    )
    batches = stratified_batches(
        training.corpus, seed=(0,), batch_size=2, shares=np.ones((STEPS, 1))
    )
    held_out = heldout_batches(training.corpus, "validation", seed=(1,), sequences=2, micro_batch=2)

    def estimate(eta):
        return hypergradient(
            training.reweighted,
            {"learning_rates": eta},
            state,
            batches,
            held_out,
            steps=STEPS,
            estimator=MixFlow(segment=2),
        )

    eta = 0.3 * some_eta(training, jnp.float64)["learning_rates"]
    found = estimate(eta).gradient["learning_rates"]
    assert found.size == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    for direction in np.random.default_rng(1).normal(size=(2, *found.shape)):
        sides = [float(estimate(eta + sign * 1e-6 * direction).value) for sign in (1, -1)]
        slope = (sides[0] - sides[1]) / 2e-6
        assert float(np.vdot(found, direction)) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"per": "element", "windows": 2},
        {"per": "column", "windows": 3, "interpolation": "linear"},
        {"per": "layer_kind", "windows": 3, "interpolation": "linear", "max_multiplier": 4.0},
    ],
    ids=lambda options: options["per"],
)
def test_the_artefact_holds_the_very_rates_of_the_training(options, tmp_path):
    training = prepare(with_rates(**options))
    eta = some_eta(training)
    artefact.write(tmp_path / "artefact", artefact_of(training, eta, {}), "")
    read = artefact.load(tmp_path / "artefact")
    hyper_at = jax.jit(training.sampled.hyper_at)
    names = jax.tree.leaves(training.names)
    shapes = jax.eval_shape(training.initialise, jax.random.key(0)).params
    for step in range(STEPS):
        rates = jax.tree.leaves(hyper_at(eta, jnp.int32(step)).learning_rate)
        for leaf, found, param in zip(names, rates, jax.tree.leaves(shapes), strict=True):
            used = np.broadcast_to(found, param.shape)
            for layer, name in enumerate(leaf.names):
                want = used[layer] if leaf.stacked else used
                got = np.broadcast_to(read.learning_rate(name, step, STEPS), want.shape)
                np.testing.assert_allclose(got, want, rtol=3e-7)


def test_a_training_of_another_length_keeps_the_parameters_rates(training):
    eta = some_eta(training)
    long = rescaled(training, 2 * STEPS)
    short, whole = (
        jax.tree.leaves(
            each.sampled.hyper_at(eta, jnp.int32(each.recipe.inner.steps - 1)).learning_rate
        )
        for each in (training, long)
    )
    for a, b in zip(short, whole, strict=True):
        np.testing.assert_allclose(a / a.max(), b / b.max(), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "path", "problem"),
    [
        ({"interpolation": "linear"}, "interpolation", "has no effect on a single window"),
        ({"smoothness": 0.1}, "smoothness", "has no effect on a single window"),
        ({"max_multiplier": 1.0}, "max_multiplier", "must be null, or a number above 1"),
        ({"prior": -1.0}, "prior", "must be 0 or above"),
    ],
)
def test_what_has_no_effect_or_can_not_be_is_refused(options, path, problem):
    rates = schema.LearningRatesSpec(**options)
    sections = {"tune": schema.TuneSpec(learning_rates=rates)}
    faults = [*broken_rules(rates, "tune.learning_rates"), *check(sections)]
    assert [(fault.path, fault.problem) for fault in faults] == [
        (f"tune.learning_rates.{path}", problem)
    ]


def test_an_external_trainer_is_told_rates_of_whole_parameters():
    (fault,) = check({"trainer": schema.TrainerSpec("true"), "tune": RECIPE.tune})
    assert str(fault) == (
        "tune.learning_rates.per = 'element': an external trainer is told one rate for each "
        "parameter; take tensor, or train here"
    )


def test_metatune_train_takes_the_base_rates_and_refuses_the_factors(training):
    rates = Schedules(training, None, 2).segment(1)
    assert all(leaf.size in (1, 2) for leaf in jax.tree.leaves(rates.hyper.learning_rate))
    tuned = artefact_of(training, some_eta(training), {})
    with pytest.raises(artefact.ArtefactError, match="learning_rates.elements = .*can't follow it"):
        refuse_misfit(tuned, training, "recipe")
