"""MAML in miniature: a start that is tuned for a few steps, from the search to the training."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import CODE, CONFIG, tiny
from rich.console import Console

from metatune import artefact
from metatune.artefact import ArtefactError
from metatune.fit.making import artefact_of
from metatune.fit.outer_loop import fit
from metatune.fit.replaying.replay import replay
from metatune.inner import prepare
from metatune.models import build, save_pretrained
from metatune.recipe import schema
from metatune.report.artefact_readme import what_is_tuned
from metatune.report.terminal import summary
from metatune.train import command
from metatune.train.folder import usable

RECIPE = tiny(
    data={"domains": {"code": CODE}},
    inner={"steps": 3},
    tune=schema.TuneSpec(initialisation=schema.PointSpec(parameters=("embed_tokens", "lm_head"))),
    outer=schema.OuterSpec(
        steps=8,
        estimator=schema.MixFlowSpec(segment=3),
        optimizer=schema.AdamSpec(learning_rate=0.05),
        objective=schema.ObjectiveSpec(sequences=32, micro_batch=32),
        fresh=schema.FreshSpec(initialisation=False),
        validation=schema.ValidationSpec(seeds=1, sequences=32, every=8),
        test=schema.FinalTestSpec(seeds=2, sequences=32),
    ),
)


@pytest.fixture(scope="module")
def console():
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere)


@pytest.fixture(scope="module")
def run(tmp_path_factory, console):
    out = tmp_path_factory.mktemp("run")
    return fit(prepare(RECIPE), out, console=console)


def test_few_steps_lead_further_from_the_tuned_start(run):
    result = run.artefact.result
    assert max(result["after"]) < min(result["before"]) - 0.3


def test_what_is_said_of_it(run):
    assert what_is_tuned(run.artefact)[-1] == (
        "start: the weights of 12 parameters, moved weight by weight, in initialisation.safetensors"
    )
    assert summary(run.artefact, [])


def test_the_result_comes_again_from_the_artefact(run, console):
    found = replay(run.folder.path, console)
    assert found.bit_for_bit and found.agrees


def test_a_training_with_the_artefact_starts_there(run, tmp_path, console):
    folder = usable(tmp_path / "out", resume=False, overwrite=False)
    tuned = command.load(run.folder.path)
    done = command.train(prepare(RECIPE), folder, tuned, test_seed=1, console=console)
    assert done.result is not None
    assert done.result["held_out"] == run.artefact.result["after"][1]
    assert folder.start.is_file()


def test_the_artefact_says_how_far_it_is_to_each_checkpoint(tmp_path):
    model = build({**CONFIG, "vocab_size": 260})
    for seed, name in enumerate("ab"):
        save_pretrained(tmp_path / name, model, jax.jit(model.init)(jax.random.key(seed)))
    spec = schema.InterpolationSpec(checkpoints=(str(tmp_path / "b"),), per=("layers", "embed"))
    pretrained = schema.ModelSpec(pretrained=str(tmp_path / "a"), remat=False)
    recipe = dataclasses.replace(
        RECIPE, model=pretrained, tune=schema.TuneSpec(initialisation=spec)
    )
    training = prepare(recipe)
    found = artefact_of(training, {"initialisation": jnp.array([0.5, -0.25])}, {})
    start = found.initialisation
    assert start is not None and start.interpolated is not None
    coefficients = {str(tmp_path / "b"): {"layers": 0.5, "embed": -0.25}}
    assert start.interpolated.coefficients == coefficients
    assert start.interpolated.members["embed"] == ("model.embed_tokens.weight",)
    assert found.provenance["checkpoints_sha256"].keys() == coefficients.keys()
    assert "1 checkpoint" in what_is_tuned(found)[-1]


def test_weights_of_another_model_are_refused(run, tmp_path, console):
    tuned = command.load(run.folder.path)
    held = tuned.schedules.initialisation
    assert held is not None
    weights = {**held.parameters, "model.norm.weight": np.zeros(3, np.float32)}
    other = dataclasses.replace(
        tuned.schedules, initialisation=artefact.Initialisation("point", weights)
    )
    folder = usable(tmp_path / "out", resume=False, overwrite=False)
    with pytest.raises(
        ArtefactError, match=r"initialisation.model.norm.weight = \[3\]: must be \[8\]"
    ):
        command.train(prepare(RECIPE), folder, tuned._replace(schedules=other), console=console)
