"""A whole training: that it is the verdict's, what it leaves, and that it goes on exactly."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny
from rich.console import Console
from typer.testing import CliRunner

from metatune import artefact
from metatune.artefact import ArtefactError
from metatune.cli import commands
from metatune.data import heldout_batches
from metatune.fit.making import artefact_of
from metatune.fit.measuring import measure
from metatune.fit.run_folder import RunFolderError
from metatune.fit.searching.search import Search
from metatune.fit.telling.progress import SearchDisplay
from metatune.fit.trainers.evaluation import held_out_loss
from metatune.fit.trainers.failure import NotFinite
from metatune.inner import prepare, rescaled
from metatune.recipe import schema, writing
from metatune.recipe.faults import RecipeError
from metatune.train import command, loop
from metatune.train.command import FollowedArtefact
from metatune.train.folder import TrainingFolder, usable
from metatune.train.loop import Intervals
from metatune.train.schedules import Schedules

pytestmark = pytest.mark.optimized  # two programs, bit for bit

RECIPE = tiny(
    {"num_hidden_layers": 2},
    data={"target": {"code": 3.0, "drama": 1.0}},
    inner={"steps": 10, "micro_batch": 2},
    tune=schema.TuneSpec(
        learning_rates=schema.LearningRatesSpec(per="tensor", windows=3),
        mixture=schema.MixtureSpec(windows=2, floor=0.05),
    ),
    outer={"steps": 2},
)
OFTEN = Intervals(checkpoint_every=4, evaluate_every=6)


@pytest.fixture
def console():
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere)


@pytest.fixture(scope="module")
def training():
    """One for all tests, so that they share its compiled programs."""
    return prepare(RECIPE)


@pytest.fixture(scope="module")
def run(training, tmp_path_factory):
    """The folder of a search that ended at schedules that move, measured as every search is."""
    random = np.random.default_rng(0)
    eta = {
        key: leaf + jnp.asarray(random.normal(size=leaf.shape), leaf.dtype)
        for key, leaf in training.initial_eta().items()
    }
    out, search = tmp_path_factory.mktemp("run"), Search(2, eta, None, eta, best_step=1)
    score = partial(held_out_loss, training)
    with open(os.devnull, "w") as nowhere, SearchDisplay(Console(file=nowhere), 2) as display:
        found = measure(training, search, display, score)
    artefact.write(out / "artefact", artefact_of(training, eta, *found), "")
    return out


@pytest.fixture(scope="module")
def finished(training, run, tmp_path_factory):
    """An uninterrupted training at the tuned schedules."""
    with open(os.devnull, "w") as nowhere:
        folder = TrainingFolder(tmp_path_factory.mktemp("trained"))
        options = {"intervals": OFTEN, "console": Console(file=nowhere)}
        command.train(training, folder, command.load(run), **options)
        return folder


def weights(folder: TrainingFolder) -> bytes:
    return (folder.model / "model.safetensors").read_bytes()


def metrics(folder: TrainingFolder) -> list[dict]:
    lines = folder.read_metrics()
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


@pytest.mark.parametrize("test_seed", [0, 1])
def test_it_is_the_training_that_the_verdict_measured(training, run, tmp_path, console, test_seed):
    recorded = artefact.load(run).result
    for name, tuned, key in (("t", command.load(run), "after"), ("d", None, "before")):
        folder = TrainingFolder(tmp_path / name)
        done = command.train(training, folder, tuned, test_seed=test_seed, console=console)
        assert done.result is not None
        assert done.result["held_out"] == recorded[key][test_seed]
    assert recorded["after"] != recorded["before"]


def test_a_training_leaves_what_is_promised(training, run, finished):
    result = finished.finished()
    tuned = json.loads((run / "artefact" / "tuned.json").read_text())
    assert result["artefact_sha256"] == tuned["integrity"]["sha256"]
    assert result["steps"] == 10
    assert result["tokens"] == 10 * 4 * 16
    assert result["seconds"] > 0
    assert list(result["domains"]) == ["code", "drama"]
    assert finished.recipe.read_text() == writing.to_yaml(RECIPE)
    assert artefact.load(finished.tuned).horizon_steps == 10
    assert any(finished.tensorboard.glob("events.out.tfevents*"))
    lines = metrics(finished)
    trained = [line["step"] for line in lines if "loss" in line]
    assert trained == [4, 6, 8, 10]  # segments end where checkpoints and evaluations are
    measured = [line for line in lines if "held_out" in line]
    assert [line["step"] for line in measured] == [6, 10]
    assert measured[-1]["held_out"] == result["held_out"]
    assert result["unit"] == "nats per byte"
    assert len(lines[0]["learning_rate"]) == 21
    assert sorted(path.name for path in finished.checkpoints.iterdir()) == ["10", "8"]


def test_the_model_loads_in_transformers_with_the_loss_that_it_has_here(training, finished):
    import torch
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(finished.model)
    alone = dataclasses.replace(training.corpus, target=np.array([1.0, 0.0]))
    seed = (0, 2, 0, 1)  # the recipe's, then Purpose.TEST, 0 and Stream.HELD_OUT
    (batch,) = heldout_batches(alone, "test", seed=seed, sequences=8, micro_batch=8)
    tokens = torch.tensor(batch.tokens, dtype=torch.long)
    with torch.no_grad():
        loss = theirs(tokens, labels=tokens).loss
    assert float(loss) == pytest.approx(finished.finished()["domains"]["code"], abs=1e-4)


def test_rates_at_each_step_are_those_of_the_artefact(
    training, run, tmp_path, monkeypatch, console
):
    tuned, seen = command.load(run), []

    def spy(problem, eta, *args, start, steps, **options):
        seen.extend((step, problem.hyper_at(eta, step)) for step in range(start, start + steps))
        return real(problem, eta, *args, start=start, steps=steps, **options)

    real = loop.train
    monkeypatch.setattr(loop, "train", spy)
    folder = TrainingFolder(tmp_path)
    command.train(training, folder, tuned, steps=14, intervals=OFTEN, console=console)
    assert [step for step, _ in seen] == list(range(14))
    moved = set()
    for step, hyper in seen:
        used = rates_of(training, hyper)
        for name, rate in used.items():
            wanted = tuned.schedules.learning_rate(name, step, 14)
            assert rate == pytest.approx(wanted, rel=1e-7)
        moved.add(used["model.norm.weight"])
    assert len(moved) > 3


def rates_of(training, hyper):
    pairs = zip(jax.tree.leaves(training.names), jax.tree.leaves(hyper.learning_rate), strict=True)
    return {
        name: float(rate)
        for leaf, rates in pairs
        for name, rate in zip(leaf.names, np.ravel(rates), strict=True)
    }


def test_domains_are_drawn_at_shares_that_move(training, run, tmp_path, console):
    tuned = command.load(run)
    knots, shares = (0.0, 0.25, 0.5), np.array([[0.9, 0.1], [0.15, 0.85], [0.6, 0.4]])
    # In another order than the recipe's.
    mixture = artefact.Mixture(knots, "linear", ("drama", "code"), shares[:, ::-1])
    moving = FollowedArtefact(dataclasses.replace(tuned.schedules, mixture=mixture), "")
    folder = TrainingFolder(tmp_path)
    command.train(training, folder, moving, steps=160, console=console)
    lines = [line for line in metrics(folder) if "loss" in line]
    assert len(lines) == 40
    for line, first in zip(lines, range(0, 160, 4), strict=True):
        each = [mixture_at(step / 160, knots, shares[:, 0]) for step in range(first, first + 4)]
        assert line["wanted_share"]["code"] == pytest.approx(np.mean(each))
        assert line["share"]["code"] + line["share"]["drama"] == pytest.approx(1)
    # A count is never one or more away from what is wanted: its variance is 1/4 at most.
    error = 3 * np.sqrt(160 / 4) / (160 * 4)
    gaps = [line["share"]["code"] - line["wanted_share"]["code"] for line in lines]
    assert abs(np.mean(gaps)) < error
    quarter = [line["share"]["code"] for line in lines]
    assert np.mean(quarter[:3]) > 0.6 > 0.35 > np.mean(quarter[9:12])


def mixture_at(fraction, knots, shares):
    return np.interp(fraction, knots, shares)


def test_ctrl_c_leaves_a_training_that_goes_on_bit_for_bit(
    training, run, finished, tmp_path, monkeypatch, console
):
    folder, tuned = TrainingFolder(tmp_path / "run"), command.load(run)
    handler = signal.getsignal(signal.SIGINT)  # none in a shell's background, say

    def interrupted(*args, start, **options):
        if start == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args, start=start, **options)

    real = loop.train
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", interrupted)
        stopped = command.train(training, folder, tuned, intervals=OFTEN, console=console)
    assert stopped == (None, 6)
    assert folder.finished() is None
    assert signal.getsignal(signal.SIGINT) == handler
    with pytest.raises(RunFolderError, match=r"another training.*\n  --with: '\w+' then, None now"):
        command.train(training, folder, None, resume=True, console=console)
    done = command.train(training, folder, tuned, intervals=OFTEN, resume=True, console=console)
    assert done.steps == 10
    assert weights(folder) == weights(finished)
    assert metrics(folder) == metrics(finished)
    assert done.result is not None
    assert done.result["held_out"] == finished.finished()["held_out"]


def test_a_killed_training_goes_on_bit_for_bit(training, run, finished, tmp_path, console):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(writing.to_yaml(RECIPE))
    arguments = [
        "train", str(recipe), "--out", str(out), "--with", str(run),
        "--checkpoint-every", "4", "--evaluate-every", "6",
    ]  # fmt: skip
    program = f"from metatune.cli import main; main({arguments!r})"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    folder, deadline = TrainingFolder(out), time.monotonic() + 120
    while not (folder.checkpoints / "4").exists() and process.poll() is None:
        assert time.monotonic() < deadline, "the training made no progress"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    tuned = command.load(run)
    command.train(training, folder, tuned, intervals=OFTEN, resume=True, console=console)
    assert weights(folder) == weights(finished)
    assert metrics(folder) == metrics(finished)


def test_a_finished_training_is_not_done_again(training, run, finished, monkeypatch, console):
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("trained again"))
    again = command.train(training, finished, command.load(run), resume=True, console=console)
    assert again.result == finished.finished()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_the_command_line(training, run, tmp_path, monkeypatch, number):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "o u t"
    recipe.write_text(writing.to_yaml(RECIPE))

    def interrupted(*args, **options):
        os.kill(os.getpid(), number)
        return real(*args, **options)

    real = loop.train
    monkeypatch.setattr(loop, "train", interrupted)
    monkeypatch.setattr("metatune.inner.prepare_file", lambda *_: training)
    said = CliRunner().invoke(
        commands.app, ["train", str(recipe), "--out", str(out), "--with", str(run)]
    )
    assert said.exit_code == 128 + number
    again = f"metatune train {recipe} --out '{out}' --with {run} --resume"
    assert said.output.endswith(
        f"interrupted after 4 steps, which are kept; go on with\n  {again}\n"
    )
    assert TrainingFolder(out).checkpoints.joinpath("4").is_dir()


def test_an_artefact_of_another_recipe_begins_nothing(training, run, tmp_path, console):
    tuned = command.load(run).schedules
    rates, mixture = tuned.learning_rates, tuned.mixture
    assert mixture is not None
    parameters = dict(rates.parameters)
    parameters["model.nrm.weight"] = parameters.pop("model.norm.weight")
    other = dataclasses.replace(
        tuned,
        learning_rates=dataclasses.replace(rates, parameters=parameters),
        mixture=dataclasses.replace(mixture, domains=("code", "poems")),
    )
    with pytest.raises(ArtefactError) as error:
        command.train(
            training,
            usable(tmp_path / "x", resume=False, overwrite=False),
            FollowedArtefact(other, ""),
            source="mine.yaml",
            console=console,
        )
    for line in (
        "doesn't fit mine.yaml, nothing is trained:",
        "1 parameters of the artefact that mine.yaml doesn't have:",
        "  model.nrm.weight (nearest: model.norm.weight)",
        "1 domains of mine.yaml that the artefact doesn't have:",
    ):
        assert line in str(error.value)
    assert not (tmp_path / "x").exists()


def test_numbers_must_be_positive(training, tmp_path, console):
    folder = TrainingFolder(tmp_path / "x")
    with pytest.raises(RecipeError) as error:
        command.train(training, folder, steps=0, keep=-1, console=console)
    assert "--steps = 0: must be a whole number of 1 or above" in str(error.value)
    assert "--keep = -1" in str(error.value)
    assert not folder.path.exists()


def test_a_training_that_diverges_says_where(training, run, tmp_path, console):
    tuned = command.load(run)
    rates = tuned.schedules.learning_rates
    hot = {name: curve * 1e30 for name, curve in rates.parameters.items()}
    schedules = dataclasses.replace(
        tuned.schedules, learning_rates=dataclasses.replace(rates, parameters=hot)
    )
    with pytest.raises(NotFinite, match=r"step \d: the loss is (nan|inf); .* train without --with"):
        command.train(
            training, TrainingFolder(tmp_path), FollowedArtefact(schedules, ""), console=console
        )


def test_what_an_artefact_doesn_t_tune_is_the_recipe_s_own(training, run):
    tuned = command.load(run).schedules
    own = Schedules(training, None, 4)
    bare = Schedules(training, dataclasses.replace(tuned, mixture=None), 4)
    np.testing.assert_array_equal(bare.shares(), own.shares())
    np.testing.assert_array_equal(own.shares(), np.full((10, 2), 0.5))
    assert np.any(Schedules(training, tuned, 4).shares() != own.shares())
    loss_weights = artefact.LossWeights(
        (0.0, 0.5), "constant", ("drama", "code"), np.array([[0.5, 1.5], [1.25, 0.75]])
    )
    weighed = dataclasses.replace(tuned, loss_weights=loss_weights)
    hyper = Schedules(training, weighed, 4).segment(4).hyper
    np.testing.assert_allclose(hyper.loss_weights, [[1.5, 0.5]] + [[0.75, 1.25]] * 3)
    classes = artefact.ClassWeights(
        (0.0,), "constant", ("prompt", "completion"), np.array([0.5, 0.5]), np.array([[0.4, 1.6]])
    )
    weighed = dataclasses.replace(tuned, loss_weights=classes)
    hyper = Schedules(training, weighed, 4).segment(0).hyper
    np.testing.assert_allclose(
        np.asarray(hyper.class_weights), [[1, 0.4, 1.6, 1, 1]] * 4, rtol=1e-6
    )
    np.testing.assert_array_equal(hyper.loss_weights, np.ones((4, 2)))


def test_schedules_of_another_length_end_where_the_training_does(training):
    longer = rescaled(training, 6)
    segment = Schedules(longer, None, 4).segment(4)
    rates = [
        rates_of(longer, loop.scheduled(longer).hyper_at(segment, jnp.int32(step)))
        for step in (4, 5)
    ]
    assert all(len(set(row.values())) == 1 for row in rates)
    assert rates[0] != rates[1]
