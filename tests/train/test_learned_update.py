"""A training with a learned update is the one that its verdict measured, and can be replayed."""

import dataclasses
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import CODE, tiny
from rich.console import Console

from metatune import artefact
from metatune.artefact import ArtefactError
from metatune.fit.making import artefact_of
from metatune.fit.measuring import measure
from metatune.fit.replaying.replay import replay
from metatune.fit.searching.search import Search
from metatune.fit.telling.progress import SearchDisplay
from metatune.fit.trainers.evaluation import held_out_loss
from metatune.inner import prepare
from metatune.recipe import schema
from metatune.train import command
from metatune.train.folder import TrainingFolder
from metatune.train.learned_update import corrected
from metatune.train.matching import refuse_misfit

INNER = schema.InnerSpec(
    schema.AdamWSpec(learning_rate=1e-2), steps=6, train=("down_proj", "embed")
)
RECIPE = tiny(
    {
        "hidden_size": 4,
        "intermediate_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "initializer_range": 0.3,
    },
    data={"domains": {"code": CODE}, "batch_size": 2},
    inner=INNER,
    # Not of every parameter, and networks that differ from layer to layer.
    tune=schema.TuneSpec(
        learned_update=schema.LearnedUpdateSpec(per=(r"s\.0\..*proj", "proj|embed"))
    ),
    outer=schema.OuterSpec(
        steps=1,
        estimator=schema.MixFlowSpec(segment=3),
        validation=schema.ValidationSpec(seeds=1, sequences=8),
        test=schema.FinalTestSpec(seeds=1, sequences=8),
    ),
)


@pytest.fixture
def console():
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere)


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


@pytest.fixture(scope="module")
def run(training, tmp_path_factory):
    """The folder of a search that ended at networks that do something."""
    start = training.initial_eta()["learned_update"]
    noise = np.random.default_rng(0).normal(size=start.shape)
    eta = {"learned_update": start + jnp.asarray(noise, start.dtype)}
    out, search = tmp_path_factory.mktemp("run"), Search(1, eta, None, eta, best_step=1)
    with open(os.devnull, "w") as nowhere, SearchDisplay(Console(file=nowhere), 1) as display:
        found = measure(training, search, display, partial(held_out_loss, training))
    artefact.write(out / "artefact", artefact_of(training, eta, *found), "")
    return out


def plain():
    """A training whose recipe tunes something else."""
    rates = schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="global"))
    return prepare(dataclasses.replace(RECIPE, tune=rates))


def test_it_is_the_training_that_the_verdict_measured(run, tmp_path, console):
    given = command.load(run)
    recorded = given.schedules.result
    assert abs(recorded["after"][0] - recorded["before"][0]) > 1e-3
    done = command.train(plain(), TrainingFolder(tmp_path), given, console=console)
    assert done.result is not None
    # Not to the bit: the programs aren't the same.
    assert done.result["held_out"] == pytest.approx(recorded["after"][0], rel=2e-6)
    kept, tuned = artefact.load(tmp_path).learned_update, given.schedules.learned_update
    assert kept is not None and tuned is not None
    np.testing.assert_array_equal(kept.hidden, tuned.hidden)


def test_without_an_artefact_nothing_is_corrected(training):
    state, own = (
        jax.eval_shape(each.initialise, jax.random.key(0))
        for each in (corrected(training, None), plain())
    )
    assert jax.tree.structure(state) == jax.tree.structure(own)


def test_it_is_replayed_bit_for_bit(run, console):
    assert replay(run, console).bit_for_bit


def test_an_average_takes_no_corrected_steps(training, run):
    other = dataclasses.replace(INNER, optimizer=schema.ScheduleFreeAdamWSpec(learning_rate=1e-2))
    recipe = dataclasses.replace(training.recipe, inner=other)
    with pytest.raises(ArtefactError, match="not of one whose average the steps only feed"):
        refuse_misfit(artefact.load(run), dataclasses.replace(training, recipe=recipe), "mine")
