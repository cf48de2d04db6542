"""A tuned average, from a search to a training and to what trains elsewhere."""

import dataclasses
import importlib
import io
import os
import re
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from rich.console import Console
from torch.optim.swa_utils import AveragedModel

from metatune import artefact
from metatune.artefact import ArtefactError
from metatune.artefact.exporters import EXPORTERS, export
from metatune.fit.making import artefact_of
from metatune.fit.measuring import measure
from metatune.fit.searching.search import Search
from metatune.fit.telling.progress import SearchDisplay
from metatune.fit.trainers.evaluation import held_out_loss
from metatune.inner import prepare
from metatune.recipe.reading import parse
from metatune.report import terminal
from metatune.train import command
from metatune.train.folder import TrainingFolder

STEPS = 12
TREE = {
    "model": {
        "config": {
            "model_type": "llama",
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        }
    },
    "data": {
        "domains": {"code": {"shipped": "code_stdlib"}},
        "target": {"code": 1.0},
        "sequence_length": 16,
        "batch_size": 4,
    },
    "inner": {"steps": STEPS, "optimizer": {"kind": "adamw", "learning_rate": 3e-2}},
    "tune": {"averaging": {"windows": 2, "start": 0.25, "decay": 0.8}},
    "outer": {"steps": 1, "test": {"seeds": 2, "sequences": 8}},
}
TAKES = {"json", "csv", "optax", "torch", "hf-trainer"}


@pytest.fixture
def console():
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere)


@pytest.fixture(scope="module")
def training():
    return prepare(parse(TREE, "recipe"))


@pytest.fixture(scope="module")
def run(training, tmp_path_factory):
    """The folder of a search that ended at decays far from the recipe's."""
    eta = {"averaging": jnp.asarray([-1.0, 1.5], jnp.float32)}
    out, search = tmp_path_factory.mktemp("run"), Search(1, eta, None, eta, best_step=1)
    with open(os.devnull, "w") as nowhere, SearchDisplay(Console(file=nowhere), 1) as display:
        found = measure(training, search, display, partial(held_out_loss, training))
    artefact.write(out / "artefact", artefact_of(training, eta, *found), "")
    return out


@pytest.fixture
def tuned(run):
    return artefact.load(run)


def decays(eta):
    odds = 0.8 / 0.2 * np.exp(eta)
    return odds / (1 + odds)


def test_the_artefact_holds_the_decay_of_every_step(tuned):
    first, second = decays(np.array([-1.0, 1.5]))
    assert tuned.averaging.knots == (0.0, 3 / STEPS, 8 / STEPS)
    np.testing.assert_allclose(tuned.averaging.decay, [0.0, first, second], rtol=1e-6)


def test_a_training_at_it_is_what_the_verdict_measured(tuned, run, tmp_path, console):
    rates = {"tune": {"learning_rates": {"per": "global"}}}
    plain = prepare(parse({**TREE, **rates}, "recipe"))
    given = command.load(run)
    after, before = tuned.result["after"][0], tuned.result["before"][0]
    assert abs(after - before) > 1e-3
    for training, name in ((plain, "plain"), (prepare(parse(TREE, "recipe")), "own")):
        done = command.train(training, TrainingFolder(tmp_path / name), given, console=console)
        assert done.result is not None
        # Not to the bit: the programs aren't the same.
        assert done.result["held_out"] == pytest.approx(after, rel=2e-6)
    own = command.train(
        prepare(parse(TREE, "recipe")), TrainingFolder(tmp_path / "at zero"), console=console
    )
    assert own.result is not None
    assert own.result["held_out"] == pytest.approx(before, rel=2e-6)


def trained_elsewhere():
    """The parameters after each update of some training."""
    random = np.random.default_rng(3)
    return [random.normal(size=(4, 3)).astype(np.float32) for _ in range(STEPS)]


def by_hand(tuned):
    """Their average, with the decay of the artefact after each update."""
    first, *others = trained_elsewhere()
    average = first.astype(np.float64)
    for step, params in enumerate(others, start=1):
        decay = tuned.averaging.over([step], STEPS)["decay"][0]
        average = decay * average + (1 - decay) * params
    return average


@pytest.fixture
def load_average(monkeypatch):
    def load(folder):
        monkeypatch.syspath_prepend(folder)
        sys.modules.pop("metatune_averaging", None)
        return importlib.import_module("metatune_averaging")

    return load


def test_pytorch_s_averaged_model_follows_it(tuned, tmp_path, load_average):
    export(tuned, "torch", tmp_path / "out")
    module = load_average(tmp_path / "out")
    model = torch.nn.Linear(3, 4, bias=False)
    average = AveragedModel(model, multi_avg_fn=module.tuned_average(STEPS))
    for params in trained_elsewhere():
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(params))
        average.update_parameters(model)
    (weight,) = average.module.parameters()
    got = weight.detach().numpy()
    np.testing.assert_allclose(got, by_hand(tuned), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="steps count from 0, totals from 1"):
        module.decay(-1, STEPS)


def test_the_trainer_of_transformers_ends_with_it(tuned, tmp_path, load_average):
    transformers = pytest.importorskip("transformers")
    export(tuned, "hf-trainer", tmp_path / "out")
    callback = load_average(tmp_path / "out").trainer_callback(STEPS)
    assert isinstance(callback, transformers.TrainerCallback)
    model, state = torch.nn.Linear(3, 4, bias=False), transformers.TrainerState()
    callback.on_train_begin(None, state, None, model=model)
    for params in trained_elsewhere():
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(params))
        callback.on_step_end(None, state, None, model=model)
    callback.on_train_end(None, state, None, model=model)
    got = model.weight.detach().numpy()
    np.testing.assert_allclose(got, by_hand(tuned), rtol=1e-5, atol=1e-6)
    state.global_step = 3
    with pytest.raises(ValueError, match="train from the first update"):
        callback.on_train_begin(None, state, None, model=model)


def test_optax_follows_it(tuned, tmp_path, load_average):
    export(tuned, "optax", tmp_path / "out")
    module = load_average(tmp_path / "out")
    follow = jax.jit(lambda average, params, step: module.averaged(average, params, step, STEPS))
    average = {"w": jnp.zeros((4, 3))}
    for step, params in enumerate(trained_elsewhere()):
        average = follow(average, {"w": jnp.asarray(params)}, step)
    np.testing.assert_allclose(average["w"], by_hand(tuned), rtol=1e-5, atol=1e-6)


def test_tables_hold_it(tuned, tmp_path):
    export(tuned, "csv", tmp_path / "out")
    rows = (tmp_path / "out" / "averaging.csv").read_text().splitlines()
    decays = [float(row.split(",")[1]) for row in rows[1:]]
    assert rows[0] == "step,decay" and decays == [
        float(tuned.averaging.over([step], STEPS)["decay"][0]) for step in range(STEPS)
    ]


@pytest.mark.parametrize("target", EXPORTERS)
def test_what_can_not_average_refuses_it_by_name(tuned, tmp_path, target):
    if target in TAKES:
        assert "an average of the parameters" not in export(tuned, target, tmp_path / "o").dropped
        return
    with pytest.raises(ArtefactError, match=f"averaging = '{target}': {target} can't express it"):
        export(tuned, target, tmp_path / "o", sequences_per_step=4)


def test_it_is_shown(tuned):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal.summary(tuned, []))
    said = console.export_text()
    assert "average of the parameters: its decay; 3 stretches of training" in said
    assert re.search(r"decay +\S+ +0 +0\.5954 +0\.9472\n", said)


def test_an_optimizer_that_averages_by_itself_is_refused():
    inner = {"steps": 4, "optimizer": {"kind": "schedule_free_adamw", "learning_rate": 1e-2}}
    with pytest.raises(ValueError, match="is schedule_free_adamw, which averages by itself"):
        parse({**TREE, "inner": inner}, "recipe")


@pytest.mark.parametrize(
    ("decay", "said"),
    [([1.0, 0.5, 0.5], "averaging.decay = 1.0: must be below 1"), ([0.5], "averaging.decay, le")],
)
def test_a_wrong_decay_is_named(tuned, tmp_path, decay, said):
    wrong = dataclasses.replace(tuned.averaging, decay=np.array(decay))
    with pytest.raises(ArtefactError, match=said):
        artefact.write(tmp_path / "a", dataclasses.replace(tuned, averaging=wrong), "")
