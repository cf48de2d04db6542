"""Losses are means over tokens, as those of transformers' Trainer on the same sequences."""

import dataclasses
import importlib
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from cells import cells
from recipes import tiny

from metatune.artefact.exporters import export
from metatune.data import TokenClass, heldout_batches, sampled_batches, stratified_batches
from metatune.fit.making import artefact_of
from metatune.hypergrad import MixFlow, hypergradient, measured
from metatune.hypergrad.problem import loss_and_gradient
from metatune.inner import prepare
from metatune.inner.losses import batch_losses
from metatune.inner.metrics import held_out_batches, hits, negative_accuracy
from metatune.models import save_pretrained
from metatune.recipe import schema

SHARES = np.array([[0.7, 0.3]])
LENGTH, BATCH = 24, 8
EMBEDDING = "model.embed_tokens.weight"
RESULT = {"status": "unfinished", "best_outer_step": 0, "outer_steps": 0}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Long questions with short answers, and short ones with long answers, kept apart."""
    folder = tmp_path_factory.mktemp("records")
    random = np.random.default_rng(0)
    for name, asked, said in (("short", 16, 3), ("long", 4, 12)):
        lines = []
        for _ in range(250):
            sizes = random.integers(asked // 2, asked + 1), random.integers(1, said + 1)
            texts = ["".join(map(chr, random.integers(97, 123, size))) for size in sizes]
            lines.append(json.dumps(dict(zip(("asked", "said"), texts, strict=True))))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    domains = {
        name: schema.SourceSpec(
            jsonl=str(folder / f"{name}.jsonl"), prompt="asked", completion="said"
        )
        for name in ("short", "long")
    }
    return tiny(
        {"intermediate_size": 12, "initializer_range": 0.3},
        data={
            "domains": domains,
            "target": {"short": 0.25, "long": 0.75},
            "sequence_length": LENGTH,
            "batch_size": BATCH,
            "held_out": schema.HeldOutSpec(0.2, 0.2),
            "packing": schema.PackingSpec(cross_documents=False, last_window="pad"),
        },
        inner={"steps": 2},
        tune=schema.TuneSpec(mixture=schema.MixtureSpec()),
        outer={
            "steps": 1,
            "objective": schema.ObjectiveSpec(sequences=12, micro_batch=4, classes=("completion",)),
        },
    )


@pytest.fixture(scope="module")
def training(recipe):
    return prepare(recipe)


@pytest.fixture(scope="module")
def state(training):
    return training.initialise(jax.random.key(0))


def counted(batch):
    """The mask of a batch, which has one."""
    assert batch.mask is not None
    return batch.mask


def token_losses(training, state, batch):
    """The loss of each token by transformers, documents kept apart, [batch, sequence - 1]."""
    model = reference(training, state)
    found = np.zeros(counted(batch).shape)
    for row, (tokens, documents) in enumerate(zip(batch.tokens, batch.documents, strict=True)):
        for document in np.unique(documents):
            at = np.flatnonzero(documents == document)
            ids = torch.tensor(tokens[at].astype(np.int64))[None]
            with torch.no_grad():
                logits = model(ids).logits[0, :-1].double()
            found[row, at[1:] - 1] = torch.nn.functional.cross_entropy(
                logits, ids[0, 1:], reduction="none"
            ).numpy()
    return found


def reference(training, state):
    folder = training.recipe.data.domains["short"].jsonl.removesuffix("short.jsonl") + "model"
    save_pretrained(folder, training.model, training.merged(state.params))
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def held_out(training, **options):
    outer = training.recipe.outer
    objective = dataclasses.replace(outer.objective, **options)
    return held_out_batches(
        dataclasses.replace(outer, objective=objective),
        training.corpus,
        "test",
        seed=(3,),
        sequences=objective.sequences,
    )


def sums(training, state, batches):
    """Of each domain, the sum of the losses of its counted tokens, and their number."""
    total, count = np.zeros(2), np.zeros(2)
    for batch in batches:
        losses = token_losses(training, state, batch) * counted(batch)
        np.add.at(total, batch.domain, losses.sum(1))
        np.add.at(count, batch.domain, counted(batch).sum(1))
    return total, count


def test_a_held_out_loss_is_over_the_tokens_of_all_micro_batches(training, state):
    batches = held_out(training)
    assert len(batches) == 3
    total, count = sums(training, state, batches)
    expected = [0.25, 0.75] @ (total / count)
    found = measured(training.sampled, state.params, batches)
    assert found == pytest.approx(expected, rel=1e-6)
    # And whatever these are.
    (whole,) = held_out(training, micro_batch=12)
    if {r.tobytes() for b in batches for r in b.tokens} == {r.tobytes() for r in whole.tokens}:
        again = measured(training.sampled, state.params, [whole])
        assert again == pytest.approx(found, rel=1e-6)


def test_a_loss_over_sequences_is_that_of_their_means(training, state):
    batches = held_out(training, average="sequences")
    found = measured(training.sampled, state.params, batches)
    expected = []
    for batch in batches:
        means = (token_losses(training, state, batch) * counted(batch)).sum(1) / counted(batch).sum(
            1
        )
        expected.append(
            0.25 * means[batch.domain == 0].mean() + 0.75 * means[batch.domain == 1].mean()
        )
    assert found == pytest.approx(np.mean(expected), rel=1e-6)
    by_tokens = measured(training.sampled, state.params, held_out(training))
    assert abs(found - by_tokens) > 1e-3


def test_accuracy_is_over_tokens(training, state):
    batches = held_out(training)
    right, count = np.zeros(2), np.zeros(2)
    for batch in batches:
        hit = np.asarray(hits(training.model, state.params, batch)) * counted(batch)
        np.add.at(right, batch.domain, hit.sum(1))
        np.add.at(count, batch.domain, counted(batch).sum(1))
    accuracy = negative_accuracy(training.model)
    found = np.mean([accuracy(state.params, batch) for batch in batches])
    assert -found == pytest.approx([0.25, 0.75] @ (right / count), rel=1e-6)


def test_windows_that_are_drawn_again_count_once(training, state):
    """All of a split, some of it more often: what the Trainer evaluates, domain by domain."""
    corpus = training.corpus
    most = max(len(domain.test) for domain in corpus.domains)
    batches = held_out(training, sequences=2 * most + 6, micro_batch=10)
    found = measured(training.sampled, state.params, batches)
    every = []
    for number, domain in enumerate(corpus.domains):
        rows = domain.test.take(np.arange(len(domain.test)))
        numbers = np.full(len(rows.tokens), number)
        batch = batches[0]._replace(
            tokens=rows.tokens, documents=rows.documents, mask=rows.mask, domain=numbers
        )
        total, count = sums(training, state, [batch])
        every.append(total[number] / count[number])
    assert found == pytest.approx(0.25 * every[0] + 0.75 * every[1], rel=1e-6)


def test_the_worst_case_is_of_all_micro_batches_together(recipe, state):
    objective = dataclasses.replace(recipe.outer.objective, worst_case=0.2)
    changed = dataclasses.replace(
        recipe, outer=dataclasses.replace(recipe.outer, objective=objective)
    )
    training = prepare(changed)
    batches = held_out(training)
    total, count = sums(training, state, batches)
    expected = 0.2 * np.log([0.25, 0.75] @ np.exp(total / count / 0.2))
    assert measured(training.sampled, state.params, batches) == pytest.approx(expected, rel=1e-6)


# Its value is above, and the gradient of a batch against differences in test_losses.py.
@pytest.mark.thorough
def test_the_worst_case_of_micro_batches_has_the_gradient_of_the_whole(recipe, state):
    objective = dataclasses.replace(recipe.outer.objective, worst_case=0.2)
    changed = dataclasses.replace(
        recipe, outer=dataclasses.replace(recipe.outer, objective=objective)
    )
    training = prepare(changed)
    parts = held_out(training)
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def estimate(batches):
        drawn = stratified_batches(
            training.corpus, seed=(0,), batch_size=BATCH, shares=np.tile(SHARES, (2, 1))
        )
        return hypergradient(
            training.reweighted,
            training.initial_eta(),
            state,
            drawn,
            batches,
            steps=2,
            estimator=MixFlow(),
        )

    found, expected = estimate(parts), estimate([whole])
    assert float(found.value) == pytest.approx(float(expected.value), rel=1e-6)
    for key, gradient in expected.gradient.items():
        np.testing.assert_allclose(found.gradient[key], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("micro_batches", cells([1, 4], [1]))
def test_a_training_loss_is_over_the_tokens_of_the_batch(training, state, micro_batches):
    batch = sampled_batches(training.corpus, seed=(1,), batch_size=BATCH, shares=SHARES)(0)
    losses = token_losses(training, state, batch) * counted(batch)
    problem = dataclasses.replace(training.sampled, micro_batches=micro_batches)
    hyper = problem.hyper_at(training.initial_eta(), jnp.int32(0))
    found, _ = loss_and_gradient(problem, state.params, hyper, batch, wrt=(0,))
    assert float(found) == pytest.approx(losses.sum() / counted(batch).sum(), rel=1e-6)


@pytest.mark.parametrize("micro_batches", cells([1, 4], [1]))
def test_a_reweighted_loss_is_over_the_tokens_that_the_shares_draw(training, state, micro_batches):
    """Shares, and weights of losses, that the batch was not drawn at."""
    batch = stratified_batches(training.corpus, seed=(1,), batch_size=BATCH, shares=SHARES)(0)
    losses = token_losses(training, state, batch) * counted(batch)
    shares, weights = np.array([0.2, 0.8]), np.array([0.5, 1.5])
    mean = [
        [x[batch.domain == d].sum() / (batch.domain == d).sum() for d in range(2)]
        for x in (losses, counted(batch))
    ]
    problem = dataclasses.replace(training.reweighted, micro_batches=micro_batches)
    hyper = problem.hyper_at(training.initial_eta(), jnp.int32(0))
    hyper = hyper._replace(mixture=jnp.asarray(shares), loss_weights=jnp.asarray(weights))
    found, _ = loss_and_gradient(problem, state.params, hyper, batch, wrt=(0,))
    expected = (weights * shares) @ mean[0] / (shares @ mean[1])
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("micro_batches", cells([1, 2], [1]))
def test_the_derivative_by_the_mixture_is_that_of_differences(recipe, micro_batches, float64):
    # Adam divides by gradients that may be next to nothing: no function for differences.
    descent = schema.InnerSpec(schema.SGDSpec(learning_rate=0.1), steps=2)
    model = dataclasses.replace(recipe.model, dtype="float64")
    training = prepare(dataclasses.replace(recipe, model=model, inner=descent))

    def double(leaf):
        return leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    state = jax.tree.map(double, training.initialise(jax.random.key(0)))
    problem = dataclasses.replace(training.reweighted, micro_batches=micro_batches)
    shares = np.tile(SHARES, (2, 1))
    batches = stratified_batches(training.corpus, seed=(2,), batch_size=BATCH, shares=shares)
    eta = jax.tree.map(double, training.initial_eta())

    def estimate(by=0.0):
        moved = eta | {"mixture": eta["mixture"] + jnp.array([[by, -by]])}
        return hypergradient(
            problem, moved, state, batches, held_out(training), steps=2, estimator=MixFlow()
        )

    step = 1e-4
    difference = float(estimate(step).value - estimate(-step).value) / (2 * step)
    gradient = np.asarray(estimate().gradient["mixture"])
    assert gradient[0, 0] - gradient[0, 1] == pytest.approx(difference, rel=1e-5)


def labelled(training, batch):
    """Rows for transformers, attention crossing documents: labels where tokens count."""
    ids = torch.tensor(batch.tokens.astype(np.int64))
    labels = ids.clone()
    labels[:, 0] = -100
    labels[:, 1:][torch.tensor(counted(batch)) == 0] = -100
    return [{"input_ids": i, "labels": each} for i, each in zip(ids, labels, strict=True)]


def arguments(folder, **options):
    return transformers.TrainingArguments(
        output_dir=str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **options
    )


def test_a_held_out_loss_is_the_trainer_s(training, state, tmp_path):
    """On the same windows, attention across documents and all, of one domain."""
    (batch,) = held_out(training, sequences=12, micro_batch=12)
    of_one = batch.domain == 1
    batch = jax.tree.map(lambda leaf: leaf[of_one], batch)._replace(documents=None)
    rows = labelled(training, batch)
    trainer = transformers.Trainer(
        model=reference(training, state), args=arguments(tmp_path, per_device_eval_batch_size=12)
    )
    theirs = trainer.evaluate(eval_dataset=rows)["eval_loss"]  # pyright: ignore[reportArgumentType]
    means = np.asarray(batch_losses(training.model, state.params, batch))
    ours = np.sum(batch.weight * means) / np.sum(batch.weight)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert means.mean() != pytest.approx(theirs, rel=1e-3)


def accumulated(kind, training, state, folder, rows):
    """The loss of an update of a Trainer in two parts, and what it takes from the embedding."""
    model = reference(training, state)
    trainer = kind(
        model=model,
        args=arguments(
            folder,
            max_steps=1,
            per_device_train_batch_size=BATCH // 2,
            gradient_accumulation_steps=2,
            optim="sgd",
            learning_rate=1.0,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            logging_steps=1,
            save_strategy="no",
            remove_unused_columns=False,
        ),
        train_dataset=rows,
    )
    before = model.get_parameter(EMBEDDING).detach().clone()
    trainer.train()
    moved = before - model.get_parameter(EMBEDDING).detach()
    return trainer.state.log_history[0]["loss"], moved.numpy()


def ours(training, state, batch):
    problem = dataclasses.replace(training.sampled, micro_batches=2)
    hyper = problem.hyper_at(training.initial_eta(), jnp.int32(0))
    loss, (gradient,) = loss_and_gradient(problem, state.params, hyper, batch, wrt=(0,))
    (embedding,) = [
        leaf
        for leaf, names in zip(
            jax.tree.leaves(gradient), jax.tree.leaves(training.names), strict=True
        )
        if names.names == (EMBEDDING,)
    ]
    return float(loss), np.asarray(embedding)


def test_an_update_is_the_trainer_s_with_accumulated_gradients(training, state, tmp_path):
    batch = sampled_batches(training.corpus, seed=(4,), batch_size=BATCH, shares=SHARES)(0)
    batch = batch._replace(documents=None)
    rows = labelled(training, batch)
    theirs = accumulated(transformers.Trainer, training, state, tmp_path, rows)
    found = ours(training, state, batch)
    assert found[0] == pytest.approx(theirs[0], rel=1e-4)  # which it rounds
    np.testing.assert_allclose(found[1], theirs[1], rtol=1e-3, atol=1e-6)


def test_an_update_is_the_exported_trainer_s_with_tuned_weights(
    recipe, state, tmp_path, monkeypatch
):
    weights = schema.LossWeightsSpec(initial={"short": 0.5, "long": 1.5})
    tune = schema.TuneSpec(mixture=None, loss_weights=weights)
    # Gradients are compared, and the exported trainer clips as the tuning does.
    optimizer = dataclasses.replace(recipe.inner.optimizer, clip_norm=None)
    inner = dataclasses.replace(recipe.inner, optimizer=optimizer)
    training = prepare(dataclasses.replace(recipe, inner=inner, tune=tune))
    tuned = artefact_of(training, training.initial_eta(), RESULT)
    export(tuned, "hf-trainer", tmp_path / "tuned")
    monkeypatch.syspath_prepend(tmp_path / "tuned")
    modules = ("metatune_trainer", "metatune_schedules")
    for name in modules:
        sys.modules.pop(name, None)
    exported: Any = importlib.import_module("metatune_trainer").TunedTrainer

    class WithGradients(exported):
        """The exported losses, with an update that is the gradient."""

        def create_optimizer(self, model=None):
            return transformers.Trainer.create_optimizer(self)

        def create_scheduler(self, num_training_steps, optimizer=None):
            return transformers.Trainer.create_scheduler(self, num_training_steps, optimizer)

    batch = sampled_batches(training.corpus, seed=(4,), batch_size=BATCH, shares=SHARES)(0)
    batch = batch._replace(documents=None)
    its = np.array([0.5, 1.5])[batch.domain]
    rows = [
        {**row, "loss_weight": torch.tensor(weight)}
        for row, weight in zip(labelled(training, batch), its, strict=True)
    ]
    theirs = accumulated(WithGradients, training, state, tmp_path / "out", rows)
    for name in modules:
        sys.modules.pop(name, None)
    found = ours(training, state, batch)
    assert found[0] == pytest.approx(theirs[0], rel=1e-4)
    np.testing.assert_allclose(found[1], theirs[1], rtol=1e-3, atol=1e-6)


def test_sequences_that_are_equally_long_weigh_as_ever(training):
    """To the bit: whole windows, whose mask is all ones but where they begin a document."""
    corpus = training.corpus
    even = dataclasses.replace(
        corpus,
        domains=tuple(
            dataclasses.replace(
                domain,
                test=dataclasses.replace(
                    domain.test,
                    packing=schema.PackingSpec(last_window="pad"),
                    counted=None,
                    numbers=np.arange(len(domain.test.stream.tokens) // LENGTH),
                ),
            )
            for domain in corpus.domains
        ),
    )
    options = {"seed": (0,), "sequences": 1000, "micro_batch": 7}
    for tokens, sequences in zip(
        heldout_batches(even, "test", **options, average="tokens"),
        heldout_batches(even, "test", **options, average="sequences"),
        strict=True,
    ):
        assert np.all(counted(tokens) == 1)
        np.testing.assert_array_equal(tokens.weight, sequences.weight)


def test_domains_without_weight_are_measured_on_the_same_classes(recipe):
    data = dataclasses.replace(recipe.data, target={"long": 1.0})
    corpus = prepare(dataclasses.replace(recipe, data=data)).corpus
    assert [domain.test.counted for domain in corpus.domains] == [(TokenClass.COMPLETION,)] * 2
