"""Loss weights of classes of tokens: in an artefact, in every export, and in their trainers."""

import ast
import dataclasses
import importlib
import json
import re
from importlib import resources

import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
import torch
import transformers

from metatune.artefact import ArtefactError, ClassWeights, Positions, Vocabulary, load, write
from metatune.artefact.exporters import EXPORTERS, export

TOKENS = np.random.default_rng(2).integers(0, 16, size=(4, 8))
CLASSES = np.random.default_rng(3).integers(0, 2, size=(4, 8))
LABELS = np.where(np.arange(8) < [[8], [5], [8], [3]], TOKENS, -100)


@pytest.fixture
def tuned(make, by_class):
    return make(loss_weights=by_class)


def same(found, expected):
    """Whether artefacts have the same weights of classes, to the last bit."""
    a, b = found.loss_weights, expected.loss_weights
    return (a.columns, a.shares.tolist(), a.weights.tolist()) == (
        b.columns,
        b.shares.tolist(),
        b.weights.tolist(),
    )


def small_llama():
    config = transformers.LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config)


def expected_loss(logits, weights):
    """By the definition, in float64: Σ w l / n."""
    logits = np.asarray(logits, np.float64)[:, :-1]
    losses = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(
        logits, TOKENS[:, 1:, None], axis=-1
    ).squeeze(-1)
    predicted = LABELS[:, 1:] != -100
    by_token = np.asarray(weights)[CLASSES[:, 1:]] * losses * predicted
    return by_token.sum() / predicted.sum()


def test_they_are_written_and_read(tuned, tmp_path):
    document = json.loads(write(tmp_path / "a", tuned, "").read_text())
    schema = (resources.files("metatune.artefact") / "schema.json").read_text()
    jsonschema.Draft202012Validator(json.loads(schema)).validate(document)
    assert document["loss_weights"]["classes"] == ["prompt", "completion"]
    back = load(tmp_path / "a")
    assert same(back, tuned)
    for step in range(20):
        weights = back.loss_weights_at(step, 20)
        assert list(weights) == ["prompt", "completion"]
        assert tuned.loss_weights.shares @ list(weights.values()) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            ["weights", 0],
            [1.0, 2.0],
            "loss_weights.weights[0], mean = 1.2999999999999998: loss weights must average 1 over "
            "the shares of the classes",
        ),
        (["shares"], [0.5, 0.4], "loss_weights.shares, sum = 0.9: shares must sum to 1"),
        (["shares"], [1.0], "loss_weights.shares, length = 1: must have one for each of 2 classes"),
        (["classes"], [], "loss_weights.classes = []: must name at least one of the classes"),
        (["unit"], "kg", "loss_weights.unit = 'kg': must be \"weight of a token's loss, averages"),
    ],
)
def test_what_is_wrong_with_them_is_said(tuned, tmp_path, edit, keys, value, message):
    file = write(tmp_path / "a", tuned, "")
    edit(file, "loss_weights", *keys, to=value, sign=True)
    with pytest.raises(ArtefactError, match=re.escape(message)):
        load(file)


CARRIERS = ["json", "csv", "optax", "torch", "hf-trainer"]


def test_a_target_that_cannot_weigh_tokens_refuses_them(tuned, tmp_path):
    able = [name for name in EXPORTERS if EXPORTERS[name].capabilities["class_weights"] != "no"]
    assert sorted(able) == sorted(CARRIERS)
    refusal = "can't express it: loss weights of 2 classes of tokens; go on without it (`lossy`)"
    for target in EXPORTERS:
        if target not in CARRIERS:
            with pytest.raises(ArtefactError, match=re.escape(f"{target} {refusal}")):
                export(tuned, target, tmp_path / target, sequences_per_step=2048)
            folder = tmp_path / target
            export(tuned, target, folder, lossy=True, sequences_per_step=2048)
            lost = (tmp_path / target / "README.md").read_text().split("## What is lost")[1]
            assert "- **dropped**: loss weights of 2 classes of tokens\n" in lost


def test_tables_have_a_column_for_each_class(tuned, tmp_path):
    export(tuned, "csv", tmp_path / "out")
    first, second, *_ = (tmp_path / "out" / "loss_weights.csv").read_text().splitlines()
    assert first == "step,prompt,completion"
    weights = [float(cell) for cell in second.split(",")[1:]]
    assert weights == list(tuned.loss_weights_at(0, 20).values())


@pytest.mark.parametrize("target", [target for target in CARRIERS if target != "csv"])
def test_every_export_carries_them(tuned, tmp_path, target):
    export(tuned, target, tmp_path / "out")
    assert same(load(tmp_path / "out"), tuned)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "- loss weights of prompt, completion at 2 knots" in text
    assert "Σ w l / n" in text and "$" not in text
    assert "multiply the loss of each by the weight of its domain" not in text
    assert ("0 for prompt, 1 for completion" in text) == (target != "json")
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        ast.parse(code)


@pytest.mark.parametrize("target", ["optax", "torch", "hf-trainer"])
def test_the_modules_give_the_weights_of_a_step(tuned, tmp_path, load_module, target):
    export(tuned, target, tmp_path / "out")
    module = load_module(tmp_path / "out")
    for step in (0, 3, 19):
        expected = tuned.loss_weights_at(step, 20)
        assert module.loss_weights(step, 20) == pytest.approx(expected, rel=1e-12)


def test_optax_weighs_tokens(tuned, tmp_path, load_module):
    export(tuned, "optax", tmp_path / "out")
    module = load_module(tmp_path / "out")
    weights = list(tuned.loss_weights_at(3, 20).values())
    got = module.token_weights(jnp.asarray(CLASSES), 3, 20)
    np.testing.assert_allclose(got, np.asarray(weights)[CLASSES], rtol=1e-6)


def test_torch_weighs_the_loss(tuned, tmp_path, load_module):
    export(tuned, "torch", tmp_path / "out")
    module = load_module(tmp_path / "out")
    logits = torch.randn(4, 8, 16, generator=torch.Generator().manual_seed(0))
    labels, classes = torch.tensor(LABELS), torch.tensor(CLASSES)
    weights = list(tuned.loss_weights_at(3, 20).values())
    expected = expected_loss(logits, weights)
    assert module.weighted_loss(logits, labels, classes, 3, 20).item() == pytest.approx(expected)
    # The classes of padding are not looked at, others must be known.
    elsewhere = torch.where(labels == -100, 99, classes)
    assert module.weighted_loss(logits, labels, elsewhere, 3, 20).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"class 2: must be 0 to 1, places in .*tuned\.json"):
        module.weighted_loss(logits, labels, classes + 1, 3, 20)


@pytest.mark.parametrize(("target", "function"), [("torch", "weighted_loss"), ("optax", "token_w")])
def test_weights_of_domains_are_not_taken_for_those_of_classes(
    make, tmp_path, load_module, target, function
):
    export(make(), target, tmp_path / "out")
    module = load_module(tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds no loss weights of classes; tune them \(`per: cl"):
        if target == "torch":
            module.weighted_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2), torch.zeros(1, 2), 0, 20)
        else:
            module.token_weights(CLASSES, 0, 20)


def test_the_trainer_of_the_readme_trains_on_the_weighted_loss(
    make, by_class, tmp_path, load_module, monkeypatch
):
    model, theirs = small_llama(), small_llama()
    names = [name for name, _ in model.named_parameters()]
    artefact = make(names, steps=2, loss_weights=by_class)
    export(artefact, "hf-trainer", tmp_path / "out")
    trainer_class = load_module(tmp_path / "out", "metatune_trainer").TunedTrainer
    columns = {"input_ids": TOKENS, "labels": LABELS, "classes": CLASSES}
    rows = [{name: torch.tensor(v[i]) for name, v in columns.items()} for i in range(4)]
    module = importlib.import_module("metatune_schedules")
    trainer = trainer_class(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(tmp_path / "trainer"),
            max_steps=2,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_grad_norm=1.0,
            remove_unused_columns=False,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=rows,
    )
    trainer.train()
    # The same by hand: two updates on all four sequences.
    optimizer = module.optimizer(theirs, 2)
    schedule = module.Schedule(optimizer, 2)
    for step in range(2):
        logits = theirs(input_ids=torch.tensor(TOKENS)).logits
        loss = module.weighted_loss(logits, torch.tensor(LABELS), torch.tensor(CLASSES), step, 2)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    for (name, got), want in zip(model.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6, msg=name)


BUCKETS = {
    "position": (Positions(8, (1, 4)), np.array([0, 0, 0, 0, 1, 1, 1, 1])[None].repeat(4, axis=0)),
    "frequency": (Vocabulary((np.arange(16) % 3 == 0).astype(np.uint8)), np.int64(TOKENS % 3 == 0)),
}


@pytest.fixture(params=BUCKETS)
def buckets(request, make, by_class):
    """An artefact of weights by position or frequency, and the classes of `TOKENS`."""
    of, classes = BUCKETS[request.param]
    names = (f"{request.param}_1", f"{request.param}_2")
    return make(loss_weights=dataclasses.replace(by_class, classes=names, of=of)), classes


def test_what_rebuilds_buckets_is_written_and_read(buckets, tmp_path):
    tuned, _ = buckets
    document = json.loads(write(tmp_path / "a", tuned, "").read_text())
    schema = (resources.files("metatune.artefact") / "schema.json").read_text()
    jsonschema.Draft202012Validator(json.loads(schema)).validate(document)
    back = load(tmp_path / "a")
    assert same(back, tuned) and isinstance(back.loss_weights, ClassWeights)
    wanted, found = tuned.loss_weights.of, back.loss_weights.of
    if isinstance(found, Vocabulary):
        np.testing.assert_array_equal(found.classes, wanted.classes)
    else:
        assert found == wanted


@pytest.mark.parametrize("target", ["torch", "optax", "hf-trainer"])
def test_the_modules_give_the_buckets_of_tokens(buckets, tmp_path, load_module, target):
    tuned, classes = buckets
    export(tuned, target, tmp_path / "out")
    module = load_module(tmp_path / "out")
    tokens = jnp.asarray(TOKENS) if target == "optax" else torch.tensor(TOKENS)
    # The first token is predicted by none: its class makes no difference.
    np.testing.assert_array_equal(module.token_classes(tokens)[:, 1:], classes[:, 1:])
    text = (tmp_path / "out" / "README.md").read_text()
    assert "`token_classes(tokens)` gives the classes of tokens" in text
    if isinstance(tuned.loss_weights.of, Positions):
        with pytest.raises(ValueError, match="16 tokens: weights were tuned for up to 8"):
            module.token_classes(tokens.reshape(2, 16))


def test_parts_of_documents_are_not_told_from_tokens(tuned, tmp_path, load_module):
    for target in ("torch", "optax"):
        export(tuned, target, tmp_path / target)
        module = load_module(tmp_path / target)
        tokens = jnp.asarray(TOKENS) if target == "optax" else torch.tensor(TOKENS)
        with pytest.raises(ValueError, match="no loss weights by position or frequency"):
            module.token_classes(tokens)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "positions",
            {"sequence_length": 8, "starts": [1, 9]},
            "loss_weights.positions.starts = [1, 9]: must be 2 positions, from 1 up, increasing",
        ),
        (
            "vocabulary",
            [0, 2],
            "loss_weights.vocabulary[1] = 2: must be the place of a class, 0 to",
        ),
        ("vocabulary", 3, "loss_weights.vocabulary = 3: must be a list of the class of each token"),
    ],
)
def test_what_is_wrong_with_buckets_is_said(tuned, tmp_path, edit, field, value, message):
    file = write(tmp_path / "a", tuned, "")
    edit(file, "loss_weights", field, to=value, sign=True)
    with pytest.raises(ArtefactError, match=re.escape(message)):
        load(file)
