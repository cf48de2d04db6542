"""Terms of the loss: in an artefact, in every export, and in their trainers."""

import importlib
import io
import json
import re
import sys
from importlib import resources

import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
import torch
import transformers
from rich.console import Console

from metatune.artefact import ArtefactError, LossTerms, load, write
from metatune.artefact.document import curves as curves_of
from metatune.artefact.exporters import EXPORTERS, export
from metatune.report import terminal
from metatune.report.artefact_readme import readme

VALUES = {"z_loss": np.array([0.1, 0.3]), "label_smoothing": np.array([0.05, 0.2])}
TERMS = LossTerms((0.0, 0.5), "linear", VALUES, ("z_loss",))
CARRIERS = ["json", "csv", "optax", "torch", "hf-trainer"]
RANDOM = np.random.default_rng(0)
LOGITS, TARGETS = RANDOM.normal(size=(2, 7, 16)), RANDOM.integers(0, 16, size=(2, 7))


@pytest.fixture
def tuned(make):
    result = {"status": "unfinished", "outer_steps": 1, "best_outer_step": 0}
    measured = {"difference": None, "standard_error": None}
    return make(loss_terms=TERMS, loss_weights=None, result=result | measured)


def expected(logits, targets, terms):
    """By the definition, in float64."""
    logits = np.asarray(logits, np.float64)
    normaliser = np.log(np.exp(logits).sum(-1))
    share = terms["label_smoothing"]
    wanted = (1 - share) * np.eye(16)[targets] + share / 16
    nll = (wanted * (normaliser[..., None] - logits)).sum(-1)
    return nll + terms["z_loss"] * normaliser**2


def test_they_are_written_and_read(tuned, tmp_path):
    document = json.loads(write(tmp_path / "a", tuned, "").read_text())
    schema = (resources.files("metatune.artefact") / "schema.json").read_text()
    jsonschema.Draft202012Validator(json.loads(schema)).validate(document)
    back = load(tmp_path / "a")
    assert back.loss_terms is not None and back.loss_terms.tuned == ("z_loss",)
    for step in range(20):
        assert back.loss_terms_at(step, 20) == tuned.loss_terms_at(step, 20)
    assert back.loss_terms_at(5, 20) == pytest.approx({"z_loss": 0.2, "label_smoothing": 0.125})


def test_they_are_shown(tuned):
    text = readme(tuned)
    assert "terms of the loss: z_loss; 2 stretches of training" in text
    assert "| label_smoothing | 0.05 | 0.2 |" in text
    curves = curves_of(tuned, [0, 5])["loss_terms"]
    np.testing.assert_allclose(curves["z_loss"], [0.1, 0.2])
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(terminal.summary(tuned, []))
    assert re.search(r"label_smoothing +\S+ +0\.05 +0\.2\n", console.export_text())


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["values", "z_loss"], [-1.0, 0.1], "loss_terms.values.z_loss[0] = -1.0: must be a finite"),
        (["values", "label_smoothing"], [0.1, 1.1], "label_smoothing = 1.1: must be 1 or below"),
        (["values", "z"], [0.1, 1.0], "loss_terms.values = 'z': must be one of z_loss, label_sm"),
        (["tuned"], ["other"], "loss_terms.tuned = 'other': must be a name of loss_terms.values"),
        (["unit"], "kg", "loss_terms.unit = 'kg': must be"),
    ],
)
def test_what_is_wrong_with_them_is_said(tuned, tmp_path, edit, keys, value, message):
    file = write(tmp_path / "a", tuned, "")
    edit(file, "loss_terms", *keys, to=value, sign=True)
    with pytest.raises(ArtefactError, match=re.escape(message)):
        load(file)


def test_a_target_that_cannot_have_what_was_tuned_refuses_it(make, tuned, tmp_path):
    able = [name for name in EXPORTERS if EXPORTERS[name].capabilities["loss_terms"] != "no"]
    assert sorted(able) == sorted(CARRIERS)
    refusal = "axolotl can't express it: tuned terms of the loss: z_loss; go on without it"
    with pytest.raises(ArtefactError, match=re.escape(refusal)):
        export(tuned, "axolotl", tmp_path / "out")
    export(tuned, "axolotl", tmp_path / "out", lossy=True)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "- **dropped**: tuned terms of the loss: z_loss\n" in text
    assert "- in the loss, beside the next token's: z_loss 0.1 at first, label_smoothing" in text


@pytest.mark.parametrize("target", CARRIERS)
def test_every_export_carries_them(tuned, tmp_path, target):
    export(tuned, target, tmp_path / "out")
    assert load(tmp_path / "out").loss_terms_at(7, 20) == tuned.loss_terms_at(7, 20)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "$" not in text
    if target == "csv":
        first, second, *_ = (tmp_path / "out" / "loss_terms.csv").read_text().splitlines()
        assert (first, second) == ("step,z_loss,label_smoothing", "0,0.1,0.05")
    else:
        assert "(1 - `label_smoothing`) (-log p_target)" in text


@pytest.mark.parametrize("target", ["torch", "optax"])
def test_the_modules_give_the_losses_of_tokens(make, tuned, tmp_path, load_module, target):
    export(tuned, target, tmp_path / "out")
    module = load_module(tmp_path / "out")
    array = torch.tensor if target == "torch" else jnp.asarray
    for step in (0, 5, 19):
        terms = tuned.loss_terms_at(step, 20)
        assert module.loss_terms(step, 20) == pytest.approx(terms, rel=1e-12)
        got = module.token_losses(array(LOGITS), array(TARGETS), step, 20)
        np.testing.assert_allclose(got, expected(LOGITS, TARGETS, terms), rtol=1e-5)
    export(make(), target, tmp_path / "without")
    module = load_module(tmp_path / "without")
    assert module.loss_terms(0, 20) == {}
    none = expected(LOGITS, TARGETS, {"z_loss": 0.0, "label_smoothing": 0.0})
    got = module.token_losses(array(LOGITS), array(TARGETS), 0, 20)
    np.testing.assert_allclose(got, none, rtol=1e-5)


@pytest.fixture
def trainer_module(tuned, tmp_path, monkeypatch):
    """The module of the export that holds the Trainer."""
    export(tuned, "hf-trainer", tmp_path / "out")
    monkeypatch.syspath_prepend(tmp_path / "out")
    names = ("metatune_schedules", "metatune_trainer")
    for name in names:  # those of another export
        sys.modules.pop(name, None)
    yield importlib.import_module("metatune_trainer")
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.needs("accelerate")
def test_the_trainer_adds_them_in_training_alone(tuned, trainer_module, tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = transformers.LlamaForCausalLM(config)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "trainer"), report_to=[], use_cpu=True
    )
    trainer = trainer_module.TunedTrainer(model=model, args=arguments)
    trainer.state.global_step, trainer.state.max_steps = 5, 20
    tokens = torch.tensor(TARGETS)
    labels = torch.where(torch.arange(7) < 5, tokens, -100)
    logits = model(input_ids=tokens).logits[:, :-1].detach()
    for training in (True, False):
        model.train(training)
        terms = tuned.loss_terms_at(5, 20) if training else {"z_loss": 0.0, "label_smoothing": 0.0}
        by_token = expected(logits, TARGETS[:, 1:], terms)[:, :4]
        got = trainer.compute_loss(model, {"input_ids": tokens, "labels": labels})
        assert got.item() == pytest.approx(by_token.mean(), rel=1e-5)
        given = {"input_ids": tokens, "labels": labels, "loss_weight": torch.tensor([0.5, 1.5])}
        weighted = (np.array([[0.5], [1.5]]) * by_token).mean()
        assert trainer.compute_loss(model, given).item() == pytest.approx(weighted, rel=1e-5)


@pytest.mark.parametrize(
    ("term", "need", "what", "told"),
    [
        ("auxiliary", "auxiliary_head", "an auxiliary head, of the token two ahead", "h + W h"),
        (
            "router_balance",
            "router_balance",
            "a term of the loss on how evenly experts are used",
            "`router_aux_loss_coef`",
        ),
    ],
)
def test_what_no_trainer_has_is_in_the_numbers(make, tmp_path, term, need, what, told):
    values = {term: np.array([0.3, 0.1])}
    headed = make(loss_terms=LossTerms((0.0, 0.5), "constant", values, ()))
    file = write(tmp_path / "a", headed, "")
    schema = (resources.files("metatune.artefact") / "schema.json").read_text()
    jsonschema.Draft202012Validator(json.loads(schema)).validate(json.loads(file.read_text()))
    assert load(tmp_path / "a").loss_terms_at(15, 20) == {term: 0.1}
    able = [name for name in EXPORTERS if EXPORTERS[name].capabilities[need] != "no"]
    assert sorted(able) == ["csv", "json"]
    export(headed, "json", tmp_path / "json")
    assert told in (tmp_path / "json" / "README.md").read_text()
    # Though its weight wasn't tuned: the head is a parameter that was trained.
    refusal = f"torch can't express it: {what}"
    with pytest.raises(ArtefactError, match=re.escape(refusal)):
        export(headed, "torch", tmp_path / "torch")
