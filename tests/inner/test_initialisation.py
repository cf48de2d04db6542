"""Tuned starts of a language model: the very training of the recipe at first, then their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.data import heldout_batches, stratified_batches
from metatune.hypergrad import MixFlow, as_argument, hypergradient, programs, train
from metatune.inner import optimizers, prepare
from metatune.models import build, save_pretrained, weights_sha256
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 260,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models `a` and `b` of one architecture, and `c` of another."""
    path = tmp_path_factory.mktemp("models")
    for seed, (name, layers) in enumerate({"a": 2, "b": 2, "c": 1}.items()):
        model = build({**CONFIG, "num_hidden_layers": layers})
        save_pretrained(path / name, model, model.init(jax.random.key(seed)))
    return path


def recipe(initialisation, optimizer=None, **model) -> schema.Recipe:
    return schema.Recipe(
        model=schema.Model(**(model or {"config": CONFIG}), remat=False),
        data=schema.Data(
            domains={"code": schema.Source(shipped="code_stdlib")},
            target={"code": 1.0},
            sequence_length=16,
            batch_size=2,
        ),
        inner=schema.Inner(
            optimizer=optimizer or schema.ScheduleFreeAdamW(learning_rate=1e-2), steps=4
        ),
        tune=schema.Tune(initialisation=initialisation),
        outer=schema.Outer(steps=1, fresh=schema.Fresh(initialisation=False)),
    )


def batches(training):
    shares = np.ones((4, 1))
    return stratified_batches(training.corpus, seed=(1,), batch_size=2, shares=shares)


def test_every_training_starts_from_the_point_with_its_optimizer(folder):
    training = prepare(recipe(schema.Point()))
    first, second = (training.initialise(jax.random.key(seed)) for seed in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    (tunable,) = training.tunables
    eta = {tunable.key: 0.1 * jax.random.normal(jax.random.key(2), tunable.initial().shape)}
    begun = programs.begun(as_argument(training.sampled), eta, first)
    spec = training.recipe.inner.optimizer
    init = optimizers.build(spec, training.names, training.model.config.transposed).init
    # Of schedule-free training the state holds a copy of the parameters.
    jax.tree.map(np.testing.assert_array_equal, begun.opt_state, jax.jit(init)(begun.params))
    tuned = training.start(eta)
    assert tuned is not None
    assert tuned.keys() == {name for leaf in jax.tree.leaves(training.names) for name in leaf.names}
    embedding = np.asarray(begun.params["embed_tokens"]["embedding"])
    np.testing.assert_array_equal(tuned["model.embed_tokens.weight"], embedding)


def test_an_untuned_start_changes_no_bit_of_the_training(folder):
    training = prepare(recipe(schema.Point()))
    plain = dataclasses.replace(training.reweighted, start=None)
    given, eta = training.initialise(jax.random.key(0)), training.initial_eta()
    with_start, without = (
        train(problem, eta, given, batches(training), steps=4, segment=4)
        for problem in (training.reweighted, plain)
    )
    jax.tree.map(np.testing.assert_array_equal, with_start, without)


def test_a_step_along_the_hypergradient_lowers_the_held_out_loss(folder):
    spec = schema.Interpolation(checkpoints=(str(folder / "b"),), per="layer")
    training = prepare(recipe(spec, pretrained=str(folder / "a")))
    held_out = heldout_batches(training.corpus, "outer", seed=(2,), sequences=8, micro_batch=8)

    def estimate(eta):
        return hypergradient(
            training.reweighted,
            eta,
            training.initialise(jax.random.key(0)),
            batches(training),
            held_out,
            steps=4,
            estimator=MixFlow(segment=4),
        )

    eta = training.initial_eta()
    found = estimate(eta)
    (gradient,) = found.gradient.values()
    assert gradient.shape == (4,)  # the embedding, two layers, the last norm
    step = 0.02 / jnp.linalg.norm(gradient)
    moved = estimate(jax.tree.map(lambda e, g: e - step * g, eta, found.gradient))
    fall = float(found.value - moved.value)
    assert fall == pytest.approx(0.02 * float(jnp.linalg.norm(gradient)), rel=0.2)
    assert training.checkpoints_sha256 == {str(folder / "b"): weights_sha256(folder / "b")}


def test_checkpoints_that_do_not_fit_are_refused_together(folder):
    names = (str(folder / "c"), str(folder / "nowhere"))
    wanted = recipe(schema.Interpolation(checkpoints=names), pretrained=str(folder / "a"))
    with pytest.raises(RecipeError) as error:
        prepare(wanted)
    lines = [str(fault) for fault in error.value.faults]
    assert len(lines) == 2
    assert lines[0].startswith("tune.initialisation.checkpoints[0] = ")
    assert "has other parameters than model.pretrained, 9 in all: " in lines[0]
    assert lines[1].startswith("tune.initialisation.checkpoints[1] = ")
