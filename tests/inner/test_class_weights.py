"""Weights of the classes of tokens in the loss, and held-out losses of some classes alone."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny

from metatune.artefact import ClassWeights, load, write
from metatune.data import TokenClass, heldout_batches, sampled_batches, stratified_batches
from metatune.fit.making import artefact_of
from metatune.hypergrad import MixFlow, hypergradient, train
from metatune.inner import prepare, rescaled
from metatune.inner.cross_entropy import token_losses
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError

STEPS = 4
PROMPT, COMPLETION = TokenClass.PROMPT, TokenClass.COMPLETION


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Sums, asked and answered, and plain text; documents kept apart, the last window padded."""
    folder = tmp_path_factory.mktemp("records")
    pairs = [(a, b) for a in range(20) for b in range(10)]
    sums = [{"asked": f"{a} + {b} = ", "said": f"{a + b}."} for a, b in pairs]
    texts = [{"text": f"{a} is {'more' if a > b else 'less'} than {b}."} for a, b in pairs]
    for name, records in (("sums", sums), ("texts", texts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    asked = schema.SourceSpec(jsonl=str(folder / "sums.jsonl"), prompt="asked", completion="said")
    plain = schema.SourceSpec(jsonl=str(folder / "texts.jsonl"))
    return tiny(
        data={
            "domains": {"sums": asked, "texts": plain},
            "target": {"sums": 1.0},
            "sequence_length": 24,
            "held_out": schema.HeldOutSpec(0.2, 0.2),
            "packing": schema.PackingSpec(cross_documents=False, last_window="pad"),
        },
        inner={"steps": STEPS},
        tune=schema.TuneSpec(
            mixture=None, loss_weights=schema.LossWeightsSpec(per="class", windows=2)
        ),
    )


@pytest.fixture(scope="module")
def training(recipe):
    return prepare(recipe)


def some_eta(training, dtype=jnp.float32):
    shape = training.initial_eta()["loss_weights"].shape
    return {"loss_weights": jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)}


def class_weights(training, eta):
    """Of each step and class."""
    found = training.trajectory(eta).class_weights
    assert found is not None
    return found


def all_rows(windows):
    """Masks, and classes of the tokens that they are of."""
    rows = windows.take(np.arange(len(windows)))
    return np.asarray(rows.mask), rows.said_classes[:, 1:]


def batch_of(training, step=0):
    shares = np.full((STEPS, 2), 0.5)
    return stratified_batches(training.corpus, seed=(0,), batch_size=4, shares=shares)(step)


def test_they_average_one_over_the_training_tokens(training):
    counts = np.zeros((2, len(TokenClass)))
    for domain, row in zip(training.corpus.domains, counts, strict=True):
        mask, classes = all_rows(domain.train)
        np.add.at(row, classes, mask)
    np.testing.assert_array_equal(training.corpus.class_tokens(), counts)
    # Sequences of both are drawn alike, and have other numbers of tokens that count.
    drawn = counts / [[len(domain.train)] for domain in training.corpus.domains]
    assert np.ptp(drawn.sum(axis=1)) > 0.1
    shares = drawn.sum(axis=0) / drawn.sum()
    assert (shares > 0).sum() == 3
    weights = class_weights(training, some_eta(training))
    np.testing.assert_allclose(weights @ shares, 1, rtol=1e-6)
    # Of two classes of one window, the logarithms differ as the meta-parameters do.
    eta = some_eta(training)["loss_weights"]
    np.testing.assert_allclose(
        np.log(weights[-1, COMPLETION] / weights[-1, PROMPT]), eta[1, 2] - eta[1, 1], rtol=1e-5
    )
    assert np.all(weights[:, [TokenClass.SYSTEM, TokenClass.TOOL]] == 1)


def test_they_weigh_the_tokens_that_count(training):
    batch, params = batch_of(training), training.initialise(jax.random.key(0)).params
    mask, classes = np.asarray(batch.mask), np.asarray(batch.classes)
    hyper = training.sampled.hyper_at(some_eta(training), 0)
    loss, model = jax.jit(training.sampled.loss), training.model

    @jax.jit
    def token_by_token(params, batch):
        hidden = model.hidden(params, batch.tokens[:, :-1], batch.documents[:, :-1])
        return token_losses(hidden, model.unembedding(params), batch.tokens[:, 1:], chunk=None)

    assert 0 < mask.mean() < 1
    weights = np.asarray(hyper.class_weights)[classes[:, 1:]]
    by_sequence = (mask * weights * token_by_token(params, batch)).sum(1) / mask.sum(1)
    expected = float(np.mean(batch.weight * by_sequence))
    assert float(loss(params, hyper, batch)) == pytest.approx(expected, rel=1e-5)
    # What stands where nothing is predicted makes no difference, not even its class.
    elsewhere = np.where(mask > 0, classes[:, 1:], COMPLETION)
    other = batch._replace(classes=np.concatenate([classes[:, :1], elsewhere], axis=1))
    assert float(loss(params, hyper, other)) == pytest.approx(expected, rel=1e-5)


def test_with_nothing_tuned_training_is_what_it_is_without(recipe, training):
    tune = schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="global"))
    without = prepare(dataclasses.replace(recipe, tune=tune))
    assert without.hyper_over(without.initial_eta()).class_weights is None
    shares = np.full((STEPS, 2), 0.5)
    batches = sampled_batches(training.corpus, seed=(1,), batch_size=4, shares=shares)
    ends = [
        train(
            each.sampled,
            each.initial_eta(),
            each.initialise(jax.random.key(0)),
            batches,
            steps=STEPS,
            segment=2,
        )[0].params
        for each in (training, without)
    ]
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        assert float(jnp.linalg.norm(a - b)) < 1e-6 * float(jnp.linalg.norm(b))


def test_the_hypergradient_equals_central_differences(recipe, float64):
    model = dataclasses.replace(recipe.model, dtype="float64")
    training = prepare(dataclasses.replace(recipe, model=model))
    state = jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        training.initialise(jax.random.key(0)),
    )
    batches = stratified_batches(
        training.corpus, seed=(0,), batch_size=4, shares=np.full((STEPS, 2), 0.5)
    )
    held_out = heldout_batches(training.corpus, "validation", seed=(1,), sequences=4, micro_batch=4)

    def estimate(eta, estimator):
        return hypergradient(
            training.reweighted, eta, state, batches, held_out, steps=STEPS, estimator=estimator
        )

    eta = some_eta(training, jnp.float64)
    found = estimate(eta, MixFlow(segment=2)).gradient["loss_weights"]
    # Adding a number to the logarithms of all weights changes none of them.
    assert np.abs(found.sum(axis=1)).max() < 1e-12
    for direction in np.random.default_rng(1).normal(size=(2, *found.shape)):
        values = [
            float(
                estimate(
                    {"loss_weights": eta["loss_weights"] + sign * 1e-5 * direction},
                    MixFlow(segment=2),
                ).value
            )
            for sign in (1, -1)
        ]
        slope = (values[0] - values[1]) / 2e-5
        assert float(np.vdot(found, direction)) == pytest.approx(slope, rel=1e-5)


def test_they_start_where_the_recipe_says(recipe):
    weights = schema.LossWeightsSpec(per="class", initial={"prompt": 0.1, "completion": 2.0})
    training = prepare(dataclasses.replace(recipe, tune=schema.TuneSpec(loss_weights=weights)))
    got = class_weights(training, training.initial_eta())[0]
    assert got[COMPLETION] / got[PROMPT] == pytest.approx(20)
    assert got[TokenClass.TEXT] / got[PROMPT] == pytest.approx(10)


def test_the_artefact_holds_what_the_training_used(training, tmp_path):
    eta = some_eta(training)
    result = {"status": "unfinished"}
    write(tmp_path / "artefact", artefact_of(training, eta, result), "")
    weights = load(tmp_path / "artefact").loss_weights
    assert isinstance(weights, ClassWeights)
    assert weights.classes == ("text", "prompt", "completion")
    assert weights.knots == (0.0, 0.5)
    used = class_weights(training, eta)[[0, 2], :3]
    np.testing.assert_allclose(weights.weights, used, rtol=1e-6)
    np.testing.assert_allclose(weights.weights @ weights.shares, 1, atol=1e-15)


def test_they_stretch_with_the_horizon(training):
    longer = rescaled(training, 2 * STEPS)
    eta = some_eta(training)
    np.testing.assert_array_equal(
        class_weights(longer, eta), np.repeat(class_weights(training, eta), 2, axis=0)
    )


def only(recipe, *names, **changes):
    """The recipe with some of its domains."""
    domains = {name: recipe.data.domains[name] for name in names}
    data = dataclasses.replace(recipe.data, domains=domains, target={names[0]: 1.0})
    return dataclasses.replace(recipe, data=data, **changes)


def faults_of(recipe):
    with pytest.raises(RecipeError) as refused:
        prepare(recipe)
    return [str(fault) for fault in refused.value.faults]


def test_one_class_alone_has_no_weight(recipe):
    (fault,) = faults_of(only(recipe, "texts"))
    tokens = prepare(recipe).corpus.class_tokens()[1, TokenClass.TEXT]
    assert fault == (
        "tune.loss_weights.per = 'class': needs two classes of tokens: the training data has "
        f"{tokens:,} of class text; give domains with prompts and completions, or messages, or "
        "take tune.loss_weights out"
    )


def test_a_class_that_never_occurs_has_no_weight(recipe):
    weights = schema.LossWeightsSpec(per="class", initial={"tool": 1.0})
    tokens = prepare(recipe).corpus.class_tokens()[0]
    (fault,) = faults_of(only(recipe, "sums", tune=schema.TuneSpec(loss_weights=weights)))
    assert fault == (
        "tune.loss_weights.initial.tool = 1.0: no token is of this class: the training data has "
        f"{tokens[PROMPT]:,} of class prompt, {tokens[COMPLETION]:,} of class completion; "
        "take it out"
    )


def test_the_mixture_says_the_same_where_domains_share_no_class(recipe):
    weights = schema.LossWeightsSpec(per="class")
    both = schema.TuneSpec(mixture=schema.MixtureSpec(), loss_weights=weights)
    (fault,) = faults_of(dataclasses.replace(recipe, tune=both))
    assert fault.startswith("tune.loss_weights.per = 'class': tune.mixture is tuned too, and some")
    sums = recipe.data.domains["sums"]
    alike = dataclasses.replace(
        recipe.data, domains={"sums": sums, "again": dataclasses.replace(sums, max_tokens=2000)}
    )
    tuned = prepare(dataclasses.replace(recipe, tune=both, data=alike))
    assert [tunable.key for tunable in tuned.tunables] == ["mixture", "loss_weights"]


def test_the_held_out_loss_of_some_classes(recipe, training):
    objective = schema.ObjectiveSpec(classes=("completion",))
    wanted = dataclasses.replace(recipe, outer=schema.OuterSpec(steps=1, objective=objective))
    measured = prepare(wanted)
    drawn = {"seed": (1,), "sequences": 8, "micro_batch": 8}
    for split in ("validation", "test"):
        (batch,) = heldout_batches(measured.corpus, split, **drawn)
        mask, classes = np.asarray(batch.mask), np.asarray(batch.classes)[:, 1:]
        assert np.all(mask.sum(1) >= 1)
        assert np.all(classes[mask > 0] == COMPLETION)
    # All completions count that counted before, and each sequence without any is left out.
    whole, some = (each.corpus.domains[0].validation for each in (training, measured))
    mask, classes = all_rows(whole)
    counted = mask * (classes == COMPLETION)
    np.testing.assert_array_equal(whole.numbers[counted.sum(1) > 0], some.numbers)
    np.testing.assert_array_equal(all_rows(some)[0].sum(), counted.sum())
    # The training itself is as it was.
    np.testing.assert_array_equal(
        all_rows(measured.corpus.domains[0].train)[0],
        all_rows(training.corpus.domains[0].train)[0],
    )


def test_classes_that_the_target_does_not_have_cannot_be_measured_on(recipe):
    objective = schema.ObjectiveSpec(classes=("tool", "system"))
    outer = schema.OuterSpec(steps=1, objective=objective)
    faults = faults_of(dataclasses.replace(recipe, outer=outer))
    assert len(faults) == 2
    assert faults[0].startswith(
        "outer.objective.classes = ['tool', 'system']: the validation split of domain sums has no "
        "such tokens; it has "
    )
    assert faults[0].endswith(
        " of class completion; name other classes, or give the domain no weight in data.target"
    )


def test_the_recipe_knows_every_class():
    assert schema.Class.__args__ == tuple(each.name.lower() for each in TokenClass)
