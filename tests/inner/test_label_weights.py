"""Loss weights of tokens by the label of their document, a column of the data."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny

from metatune.artefact import ClassWeights, Labels, load, write
from metatune.data import sampled_batches
from metatune.fit.making import artefact_of
from metatune.inner import prepare
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.train import matching
from metatune.train.schedules import Schedules, scheduled

STEPS = 2
QUALITY = {"sums": ("high", "low"), "texts": ("low", "medium")}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Short documents, the first letter of each being that of its label."""
    folder = tmp_path_factory.mktemp("records")
    found = {}
    for name, labels in QUALITY.items():
        rows = [
            {"text": f"{labels[a % 3 == 0][0]}{a} + {b} is {a + b}.", "quality": labels[a % 3 == 0]}
            for a in range(30)
            for b in range(10)
        ]
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[name] = schema.SourceSpec(jsonl=str(path), label="quality")
    return found


@pytest.fixture(scope="module")
def recipe(sources):
    return tiny(
        data={
            "domains": sources,
            "target": {"sums": 1.0},
            "sequence_length": 24,
            "held_out": schema.HeldOutSpec(0.2, 0.2),
            "packing": schema.PackingSpec(last_window="pad"),
        },
        inner={"steps": STEPS},
        tune=schema.TuneSpec(
            mixture=schema.MixtureSpec(),
            loss_weights=schema.LossWeightsSpec(per="label", initial={"low": 0.5}),
        ),
    )


@pytest.fixture(scope="module")
def training(recipe):
    return prepare(recipe)


def letters(rows):
    """The label of each token but the first by the text: of the document that it is in."""
    found = np.empty(rows.tokens.shape, "U6")
    labels = {ord(name[0]): name for labels in QUALITY.values() for name in labels}
    for row, tokens in zip(found, np.asarray(rows.tokens), strict=True):
        # A document begins behind the end-of-sequence token of the one before.
        ends = np.flatnonzero(tokens == 257)
        for start, stop in zip([0, *(ends + 1)], [*(ends + 1), len(tokens)], strict=True):
            if start < stop and tokens[start] in labels and (start > 0):
                row[start:stop] = labels[tokens[start]]
    return found[:, 1:]


def test_each_token_has_the_label_of_its_document(training):
    corpus = training.corpus
    assert corpus.labels == ("high", "low", "medium")
    batch = sampled_batches(corpus, seed=(0,), batch_size=16, shares=np.full((STEPS, 2), 0.5))(0)
    assert batch.mask is not None and batch.labels is not None
    by_text = letters(batch)
    known = (by_text != "") & (batch.mask > 0)
    assert known.mean() > 0.3
    got = np.asarray(corpus.labels)[batch.labels[:, 1:]]
    np.testing.assert_array_equal(got[known], by_text[known])
    for domain, counts in zip(corpus.domains, corpus.label_tokens(), strict=True):
        rows = domain.train.take(np.arange(len(domain.train)))
        assert rows.mask is not None and rows.labels is not None
        its = rows.labels[:, 1:][rows.mask > 0]
        np.testing.assert_array_equal(counts, np.bincount(its, minlength=3))
        assert (counts > 0).sum() == 2


def test_they_weigh_tokens_and_average_one(training):
    weights = training.trajectory(training.initial_eta()).class_weights
    assert weights is not None
    np.testing.assert_allclose(weights[0] / weights[0, 0], [1, 0.5, 1], rtol=1e-6)
    counts = training.corpus.label_tokens()
    # Of the tokens that count, where as many sequences of both domains are drawn.
    drawn = counts / [[len(domain.train)] for domain in training.corpus.domains]
    shares = drawn.sum(axis=0) / drawn.sum()
    assert weights[0] @ shares == pytest.approx(1)
    hyper = training.sampled.hyper_at(training.initial_eta(), 0)
    shares = np.full((STEPS, 2), 0.5)
    batch = sampled_batches(training.corpus, seed=(0,), batch_size=16, shares=shares)(0)
    assert batch.mask is not None and batch.labels is not None
    assert set(np.unique(batch.labels[:, 1:][batch.mask > 0])) == {0, 1, 2}
    params = training.initialise(jax.random.key(0)).params
    loss = jax.jit(training.sampled.loss)
    single = [
        loss(params, hyper._replace(class_weights=jnp.eye(3)[label]), batch) for label in range(3)
    ]
    whole = loss(params, hyper._replace(class_weights=None), batch)
    assert min(map(float, single)) > 0
    assert float(sum(single)) == pytest.approx(float(whole), rel=1e-6)
    weighted = float(np.asarray(single) @ weights[0])
    assert float(loss(params, hyper, batch)) == pytest.approx(weighted, rel=1e-5)


def test_the_artefact_says_so_and_a_training_follows_it(recipe, training, tmp_path):
    done: dict = {}
    write(tmp_path / "artefact", artefact_of(training, training.initial_eta(), done), "")
    found = load(tmp_path / "artefact")
    assert isinstance(found.loss_weights, ClassWeights)
    assert found.loss_weights.of == Labels()
    assert found.loss_weights.classes == ("high", "low", "medium")
    rates = schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="global"))
    other = prepare(dataclasses.replace(recipe, tune=rates))
    matching.refuse_misfit(found, other, "mine")
    segment = Schedules(other, found, STEPS).segment(0)
    shares = np.full((STEPS, 2), 0.5)
    batch = sampled_batches(training.corpus, seed=(0,), batch_size=4, shares=shares)(0)
    params = training.initialise(jax.random.key(0)).params
    want = jax.jit(training.sampled.loss)(
        params, training.sampled.hyper_at(training.initial_eta(), 0), batch
    )
    problem = scheduled(other, found)
    got = jax.jit(problem.loss)(params, problem.hyper_at(segment, jnp.int32(0)), batch)
    assert float(got) == pytest.approx(float(want), rel=1e-6)
    bare = {
        name: dataclasses.replace(source, label=None)
        for name, source in recipe.data.domains.items()
    }
    data = dataclasses.replace(recipe.data, domains=bare)
    without = prepare(dataclasses.replace(recipe, tune=rates, data=data))
    with pytest.raises(ValueError, match="3 labels of documents of the artefact that mine doesn't"):
        matching.refuse_misfit(found, without, "mine")


def faults_of(recipe, sources, **weights):
    data = dataclasses.replace(recipe.data, domains=sources, target={"sums": 1.0})
    tune = schema.TuneSpec(
        mixture=schema.MixtureSpec() if len(sources) > 1 else None,
        loss_weights=schema.LossWeightsSpec(per="label", **weights),
    )
    with pytest.raises(RecipeError) as refused:
        prepare(dataclasses.replace(recipe, data=data, tune=tune))
    return [str(fault) for fault in refused.value.faults]


def source_of(folder, name, labels):
    path = folder / f"{name}.jsonl"
    rows = [{"text": f"This is text {i}, some of it.", "q": labels(i)} for i in range(200)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return schema.SourceSpec(jsonl=str(path), label="q")


def test_labels_that_are_no_classes_are_refused(recipe, sources, tmp_path):
    many = source_of(tmp_path, "many", lambda i: i)
    (fault,) = faults_of(recipe, {"sums": many})
    assert fault == (
        "data.domains.sums.label = 'q': has more than 16 different labels: 0, 1, 2, 3, ...; name "
        "a column of a few classes, or take it out"
    )
    none = source_of(tmp_path, "none", lambda i: None)
    (fault,) = faults_of(recipe, {"sums": none})
    assert "column q holds None; must be a label: text, a number, true or false" in fault
    one = source_of(tmp_path, "one", lambda i: True)
    (fault,) = faults_of(recipe, {"sums": one})
    assert "needs two classes of tokens: the training data has" in fault
    assert fault.endswith("give domains with labels that differ, or take tune.loss_weights out")
    (fault,) = faults_of(recipe, {"sums": sources["sums"]}, initial={"hi": 2.0})
    assert fault == (
        "tune.loss_weights.initial.hi = 2.0: unknown label; did you mean high? (allowed: high, low)"
    )


def test_labels_that_are_the_domains_say_what_the_mixture_says(recipe, tmp_path):
    both = {
        "sums": source_of(tmp_path, "a", lambda i: "a"),
        "texts": source_of(tmp_path, "b", lambda i: "b"),
    }
    (fault,) = faults_of(recipe, both)
    assert "tune.mixture is tuned too, and some domains share no class with the others" in fault
