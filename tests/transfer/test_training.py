"""A training at carried schedules does what the rule asks of it."""

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recipes
from rich.console import Console

from metatune import artefact
from metatune.artefact.demands import demands
from metatune.fit.making import artefact_of
from metatune.inner import optimizers, prepare
from metatune.models import ParameterNames
from metatune.recipe.schema import AdamWSpec
from metatune.runs.faults import RunFolderError
from metatune.train import command
from metatune.train.command import FollowedArtefact
from metatune.train.folder import TrainingFolder
from metatune.train.matching import remarks
from metatune.train.schedules import Schedules
from metatune.train.start import scaled
from metatune.transfer import of_artefact
from metatune.transfer.telling import carried
from metatune.transfer.toward import toward_training
from metatune.tunables import Hyper

BIG = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def small():
    return prepare(recipes.tiny())


@pytest.fixture(scope="module")
def big():
    return prepare(recipes.tiny(BIG, inner={"steps": 24}))


@pytest.fixture(scope="module")
def tuned(small):
    return artefact_of(small, small.initial_eta(), {"status": "unfinished"})


@pytest.fixture(scope="module")
def found(tuned, big):
    return toward_training(tuned, big, "big.yaml")


def test_the_proxy_is_read_from_the_artefact(tuned):
    side = of_artefact(tuned)
    assert (side.steps, side.batch_size, side.sequence_length) == (6, 4, 16)
    assert (side.optimizer, side.vocabulary) == ("adamw", 259)
    assert side.tokenizer_sha256 == tuned.provenance["tokenizer_sha256"]


def test_the_same_training_is_left_as_it_is(tuned, small):
    same = toward_training(tuned, small, "small.yaml")
    assert same.artefact is tuned and same.done == ()
    assert scaled(small, same.artefact) is small


def test_fresh_weights_are_as_large_as_the_rule_asks(found, big):
    key = jax.random.key(3)
    plain: Any = big.initialise(key).params
    asked: Any = scaled(big, found.artefact).initialise(key).params
    half, both = 2**-0.5, 2**-1.5  # twice the width; and twice the depth
    for path, factor in (
        (("lm_head", "weight"), 0.5),
        (("model", "embed_tokens", "weight"), 1.0),
        (("model", "layers", "mlp", "up_proj", "weight"), half),
        (("model", "layers", "mlp", "down_proj", "weight"), both),
        (("model", "layers", "input_layernorm", "weight"), 1.0),
    ):
        before, after = plain, asked
        for name in path:
            before, after = before[name], after[name]
        np.testing.assert_allclose(after, factor * np.asarray(before), rtol=1e-6)


def test_every_step_has_the_rule_s_numbers(found, big):
    hyper: Any = Schedules(big, found.artefact, 4).segment(8).hyper
    own = big.recipe.inner.optimizer
    assert isinstance(own, AdamWSpec)
    assert hyper.optimizer is not None
    np.testing.assert_allclose(hyper.optimizer["b1"], 1 - (1 - own.b1) / 4, rtol=1e-6)
    np.testing.assert_allclose(hyper.optimizer["b2"], 1 - (1 - own.b2) / 4, rtol=1e-6)
    decay = hyper.optimizer["weight_decay"]
    up = decay["model"]["layers"]["mlp"]["up_proj"]["weight"]
    np.testing.assert_allclose(up, own.weight_decay * 2 / 2, rtol=1e-6)
    assert decay["model"]["norm"]["weight"] is None
    eps = hyper.eps_scale
    np.testing.assert_allclose(eps["lm_head"]["weight"], 2.0, rtol=1e-6)
    np.testing.assert_allclose(eps["model"]["layers"]["mlp"]["up_proj"]["weight"], 0.5, rtol=1e-6)
    rate = hyper.learning_rate["model"]["layers"]["mlp"]["up_proj"]["weight"]
    own_hyper: Any = Schedules(big, None, 4).segment(8).hyper
    plain = own_hyper.learning_rate["model"]["layers"]["mlp"]["up_proj"]["weight"]
    np.testing.assert_allclose(np.ravel(rate)[0], np.ravel(plain)[0] / 4, rtol=0.2)


def test_no_warning_is_of_what_the_rule_set(found, big):
    said = [*remarks(found.artefact, big)]
    assert not [line for line in said if "b1" in line or "model config" in line]


def test_a_training_says_what_it_does_and_runs(tuned, big, tmp_path):
    with open(tmp_path / "said", "w") as file:
        console = Console(file=file, width=400)
        now = FollowedArtefact(carried(tuned, big, "big.yaml", None, None, console), "ab" * 32)
        folder = TrainingFolder(tmp_path / "out")
        outcome = command.train(big, folder, now, console=console)
    said = (tmp_path / "said").read_text()
    assert "carried from the tuned model to big.yaml (width 8 to 16, depth 1 to 2" in said
    assert "done here: fresh numbers of lm_head.weight: x0.5" in said
    assert "not done here" not in said
    assert outcome.result is not None and outcome.steps == 24
    kept = artefact.load(folder.path / "tuned.json")
    assert demands(kept) == demands(now.schedules)
    with open(os.devnull, "w") as nowhere, pytest.raises(RunFolderError, match="--rule"):
        other = carried(tuned, big, "big.yaml", "mup", None, Console(file=nowhere))
        again = FollowedArtefact(other, "ab" * 32)
        command.train(big, folder, again, resume=True, console=Console(file=nowhere))


def test_eps_of_each_parameter_is_that_of_an_optimizer_of_its_own():
    """Against one optax optimizer for each parameter, with clipping by both norms together."""
    names: Any = {name: ParameterNames((name,), stacked=False) for name in ("a", "b")}
    random = np.random.default_rng(0)
    start = {name: jnp.asarray(random.normal(size=3), jnp.float32) for name in names}
    grads = [
        {name: jnp.asarray(random.normal(size=3), jnp.float32) for name in names} for _ in range(5)
    ]
    scales = {"a": 4.0, "b": 0.25}
    spec = AdamWSpec(learning_rate=0.1, weight_decay=0.0, eps=0.3, eps_root=0.04, clip_norm=1.0)
    inner = optimizers.build(spec, names)
    hyper: Any = Hyper(
        learning_rate=dict.fromkeys(names, jnp.full((1,), 0.1)),
        mixture=jnp.ones(1),
        loss_weights=jnp.ones(1),
        eps_scale={name: jnp.full((1,), scale) for name, scale in scales.items()},
    )
    adam = partial(optax.adam, 0.1, b1=spec.b1, b2=spec.b2)
    each: Any = {name: adam(eps=0.3 * s, eps_root=0.04 * s**2) for name, s in scales.items()}
    whole = optax.chain(
        optax.clip_by_global_norm(1.0), optax.partition(each, {name: name for name in names})
    )
    params: Any = start
    state = inner.init(start)
    like: Any = start
    theirs = whole.init(start)
    for grad in grads:
        params, state = inner.update(grad, state, params, hyper)
        updates, theirs = whole.update(grad, theirs, like)
        like = optax.apply_updates(like, updates)
    for name in names:
        np.testing.assert_allclose(params[name], like[name], rtol=1e-5)
