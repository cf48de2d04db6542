"""Tuned starts of a language model: the very training of the recipe at first, then their own."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from metatune.hypergrad import as_argument, programs
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
        save_pretrained(path / name, model, jax.jit(model.init)(jax.random.key(seed)))
    return path


def recipe(initialisation, optimizer=None, **model) -> schema.Recipe:
    return schema.Recipe(
        model=schema.ModelSpec(**(model or {"config": CONFIG}), remat=False),
        data=schema.DataSpec(
            domains={"code": schema.SourceSpec(shipped="code_stdlib")},
            target={"code": 1.0},
            sequence_length=16,
            batch_size=2,
        ),
        inner=schema.InnerSpec(
            optimizer=optimizer or schema.ScheduleFreeAdamWSpec(learning_rate=1e-2), steps=4
        ),
        tune=schema.TuneSpec(initialisation=initialisation),
        outer=schema.OuterSpec(steps=1, fresh=schema.FreshSpec(initialisation=False)),
    )


def begun(training, eta, given):
    return programs.begin(as_argument(training.sampled), eta, given)


def test_every_training_starts_from_the_point_with_its_optimizer():
    training = prepare(recipe(schema.PointSpec()))
    first, second = (training.initialise(jax.random.key(seed)) for seed in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    untuned = begun(training, training.initial_eta(), first)
    jax.tree.map(np.testing.assert_array_equal, untuned, first)  # the recipe's, to the bit
    (tunable,) = training.tunables
    eta = {tunable.key: 0.1 * jax.random.normal(jax.random.key(2), tunable.initial().shape)}
    state = begun(training, eta, first)
    offsets = jax.tree.map(lambda a, b: np.asarray(a - b).ravel(), state.params, first.params)
    moved = np.concatenate(jax.tree.leaves(offsets))
    np.testing.assert_allclose(moved, eta[tunable.key], atol=1e-6)
    spec = training.recipe.inner.optimizer
    init = optimizers.build(spec, training.names, training.model.config.transposed).init
    # Of schedule-free training the state holds a copy of the parameters.
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, jax.jit(init)(state.params))
    tuned = training.start(eta)
    assert tuned is not None
    assert tuned.keys() == {name for leaf in jax.tree.leaves(training.names) for name in leaf.names}
    assert sum(weights.size for weights in tuned.values()) == moved.size


def test_a_start_lies_between_the_weights_of_checkpoints(folder):
    a, b = str(folder / "a"), str(folder / "b")
    spec = schema.InterpolationSpec(
        checkpoints=(b, a), per={"first": "layers.0", "last": "layers.1"}
    )
    training = prepare(recipe(spec, pretrained=a))
    # By checkpoint, then by group; going towards the recipe's own weights is staying.
    start = training.start({"initialisation": np.array([0.25, 1.0, 3.0, 4.0], np.float32)})
    assert start is not None
    ours, theirs = (load_file(folder / name / "model.safetensors") for name in "ab")
    for name, weights in start.items():
        share = 0.25 if "layers.0" in name else 1.0 if "layers.1" in name else 0.0
        expected = ours[name] + share * (theirs[name] - ours[name])
        np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert training.checkpoints_sha256 == {
        b: weights_sha256(folder / "b"),
        a: weights_sha256(folder / "a"),
    }


def test_checkpoints_that_do_not_fit_are_refused_together(folder):
    names = (str(folder / "c"), str(folder / "nowhere"))
    wanted = recipe(schema.InterpolationSpec(checkpoints=names), pretrained=str(folder / "a"))
    with pytest.raises(RecipeError) as error:
        prepare(wanted)
    lines = [str(fault) for fault in error.value.faults]
    assert len(lines) == 2
    assert lines[0].startswith("tune.initialisation.checkpoints[0] = ")
    assert "has other parameters than model.pretrained, 9 in all: " in lines[0]
    assert lines[1].startswith("tune.initialisation.checkpoints[1] = ")
