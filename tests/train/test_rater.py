"""A training whose sequences a tuned rater weighs is the one that the search measured."""

import dataclasses
import os
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import CODE, DRAMA, tiny
from rich.console import Console

from metatune import artefact
from metatune.artefact import ArtefactError
from metatune.data import stratified_batches
from metatune.fit.making import artefact_of
from metatune.fit.replaying import replay
from metatune.fit.trainers.evaluation import held_out_loss
from metatune.inner import prepare
from metatune.inner.losses import batch_losses
from metatune.inner.seeds import Purpose
from metatune.recipe import schema
from metatune.train import command, matching
from metatune.train.folder import TrainingFolder

STEPS = 3
RECIPE = tiny(
    {"intermediate_size": 12, "initializer_range": 0.3},
    data={
        "domains": {
            "code": CODE,
            "drama": dataclasses.replace(DRAMA, corrupt=schema.CorruptionSpec(share=0.5)),
        }
    },
    inner={"steps": STEPS},
    tune=schema.TuneSpec(
        mixture=schema.MixtureSpec(windows=1),
        rater=schema.MlpRaterSpec(hidden_size=4, temperature=0.5),
    ),
    outer=schema.OuterSpec(
        steps=1,
        estimator=schema.MixFlowSpec(segment=STEPS),
        objective=schema.ObjectiveSpec(sequences=8, micro_batch=8),
        test=schema.FinalTestSpec(seeds=1, sequences=8),
    ),
)


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


@pytest.fixture(scope="module")
def eta(training):
    random = np.random.default_rng(0)
    return {
        key: leaf + jnp.asarray(random.normal(size=leaf.shape), leaf.dtype)
        for key, leaf in training.initial_eta().items()
    }


@pytest.fixture(scope="module")
def tuned(training, eta, tmp_path_factory):
    """The folder of an artefact."""
    folder = tmp_path_factory.mktemp("run") / "artefact"
    artefact.write(folder, artefact_of(training, eta, {"status": "unfinished"}), "")
    return folder


def test_the_losses_are_weighed_by_the_rater(training, eta):
    shares = np.full((STEPS, 2), 0.5)
    drawn = stratified_batches(training.corpus, seed=(0,), batch_size=4, shares=shares)(0)
    params = training.initialise(jax.random.key(0)).params
    each = np.asarray(jax.jit(partial(batch_losses, training.model))(params, drawn), np.float64)
    hyper = training.reweighted.hyper_at(eta, jnp.int32(0))
    rater = next(tunable for tunable in training.tunables if tunable.key == "rater")
    scores = rater.rating.scores(rater.rating.unravelled(eta["rater"]), drawn.tokens)
    raised = np.exp(np.asarray(scores, np.float64) / 0.5)
    assert np.ptp(raised) > 0.1
    weigh = jax.jit(training.reweighted.loss)
    for problem, share in (
        (training.reweighted, np.asarray(hyper.mixture)[drawn.domain] * drawn.weight),
        (training.sampled, drawn.weight),
    ):
        weights = share * raised / np.mean(share * raised)
        loss = weigh if problem is training.reweighted else jax.jit(problem.loss)
        expected = np.mean(weights * each) * (np.mean(share) if share is drawn.weight else 1)
        assert float(loss(params, hyper, drawn)) == pytest.approx(expected, rel=1e-5)
    # The rater that a search starts from changes nothing, to the last bit.
    start = training.reweighted.hyper_at(training.initial_eta(), jnp.int32(0))
    assert float(weigh(params, start, drawn)) == float(
        jax.jit(training.reweighted.loss)(params, start._replace(rater=None), drawn)
    )


def test_it_is_the_training_that_the_search_measures(training, eta, tuned, tmp_path):
    score = partial(
        held_out_loss,
        training,
        purpose=Purpose.TEST,
        index=0,
        split="test",
        sequences=RECIPE.outer.test.sequences,
    )
    measured, even = score(eta), score({**eta, "rater": training.initial_eta()["rater"]})
    folder = TrainingFolder(tmp_path)
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere)
        done = command.train(training, folder, command.load(tuned), console=console)
    assert done.result is not None
    assert done.result["held_out"] == measured != even
    kept = artefact.load(folder.tuned).rater
    assert kept is not None
    np.testing.assert_array_equal(kept.parameters["own"], _rater_of(tuned).parameters["own"])


def _rater_of(folder):
    rater = artefact.load(folder).rater
    assert rater is not None
    return rater


def test_a_replay_compares_it(training, eta, tuned):
    ours = replay._schedules(artefact.load(tuned))
    assert replay.differing(ours, replay._schedules(artefact_of(training, eta, {})), 0.0) == []
    eta = {**eta, "rater": eta["rater"].at[0].add(1e-3)}
    other = replay._schedules(artefact_of(training, eta, {}))
    (path,) = replay.differing(ours, other, 1e-6)
    assert path.startswith("rater.")


def test_what_it_reads_must_be_the_same(training, tuned):
    held = artefact.load(tuned)

    def faults(**changes):
        recipe = dataclasses.replace(
            RECIPE, inner=dataclasses.replace(RECIPE.inner, **changes.pop("inner", {}))
        )
        corpus = SimpleNamespace(
            **{**vars(training.corpus), "tokenizer": changes.pop("tokenizer", None)}
        )
        corpus.tokenizer = corpus.tokenizer or training.corpus.tokenizer
        other = SimpleNamespace(recipe=recipe, corpus=corpus)
        return [str(fault) for fault in matching._rater_faults(held, other)]  # pyright: ignore

    assert faults() == []
    assert faults(inner={"micro_batch": 2}) == [
        "inner.micro_batch = 2: the artefact has a rater, whose weights depend on all sequences of "
        "a batch; take it out"
    ]
    assert faults(tokenizer=SimpleNamespace(vocab_size=259, sha256="other")) == [
        "data.tokenizer = 'bytes': the rater was tuned on the tokens of another tokenizer; take "
        "that one, or export the artefact without the rater (--lossy)"
    ]


def test_a_rater_of_other_parameters_is_refused(tuned):
    held = artefact.load(tuned)
    assert held.rater is not None
    fewer = dict(list(held.rater.parameters.items())[1:])
    broken = dataclasses.replace(held, rater=dataclasses.replace(held.rater, parameters=fewer))
    with pytest.raises((ArtefactError, ValueError), match="rater.shapes"):
        command.Schedules(prepare(RECIPE), broken, STEPS)
