"""A result is computed again from its artefact alone, or what stands in the way is named."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from recipes import DRAMA, tiny
from rich.console import Console
from typer.testing import CliRunner

from metatune import artefact
from metatune.artefact.manifest import hashes
from metatune.artefact.writing import integrity
from metatune.cli.commands import app
from metatune.fit.outer_loop import fit
from metatune.fit.process import machine as machines
from metatune.fit.replaying import replay as replays
from metatune.fit.replaying.record import recorded_steps
from metatune.fit.replaying.replay import Replay, band, differing, replay
from metatune.fit.trainers.evaluation import held_out_loss
from metatune.inner import prepare, prepare_file
from metatune.inner.seeds import Purpose
from metatune.recipe import schema
from metatune.report.replay import lines

STEPS = 6


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A domain's text in a file of our own."""
    path = tmp_path_factory.mktemp("text") / "code.jsonl"
    documents = ({"text": f"def f{n}(x):\n    return x + {n}\n"} for n in range(1000))
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, text):
    """A finished run."""
    recipe = tiny(
        data={"domains": {"code": schema.SourceSpec(jsonl=str(text)), "drama": DRAMA}},
        inner={"steps": STEPS},
        outer={
            "steps": 1,
            "estimator": schema.ZerothOrderSpec(directions=1, segment=4),
            "test": schema.FinalTestSpec(seeds=3, sequences=8),
        },
    )
    out = tmp_path_factory.mktemp("run")
    with open(os.devnull, "w") as nowhere:
        fit(prepare(recipe), out, console=Console(file=nowhere))
    return out


@pytest.fixture
def copy(run, tmp_path):
    """The artefact alone, somewhere else."""
    return shutil.copytree(run / "artefact", tmp_path / "copy")


@pytest.fixture
def console():
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere)


def metatune(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def signed(folder, change):
    """Changes tuned.json as another writer would have written it."""
    file = folder / "tuned.json"
    document = json.loads(file.read_text())
    change(document)
    beside = {path.name: path.read_bytes() for path in folder.iterdir()}
    document["integrity"]["files"] = hashes(beside)
    document["integrity"]["sha256"] = integrity(document)
    file.write_text(json.dumps(document))


def test_what_a_run_records(run):
    tuned = artefact.load(run)
    assert tuned.origin is not None and tuned.origin.record is not None
    assert tuned.origin.recipe == (run / "recipe.yaml").read_text()
    assert tuned.origin.record["machine"] == machines.machine()
    training = tuned.origin.record["training"]
    assert training["steps"] == list(range(STEPS)) and len(training["losses"]) == STEPS
    # The default's of the same seed: what the recipe's own meta-parameters come to.
    inner = prepare_file(run / "recipe.yaml", ())
    kept = []
    held_out_loss(
        inner,
        inner.initial_eta(),
        purpose=Purpose.TEST,
        index=0,
        split="test",
        sequences=inner.recipe.outer.test.sequences,
        keep=kept.append,
    )
    assert training["default_losses"] == kept[0].astype(float).tolist() != training["losses"]
    assert set(tuned.origin.meta_parameters) == {"learning_rates", "mixture"}


def test_recorded_steps_are_few_and_have_both_ends():
    assert recorded_steps(1) == [0]
    found = recorded_steps(1000)
    assert len(found) == 50 and (found[0], found[-1]) == (0, 999)
    assert set(np.diff(found)) <= {20, 21}


def test_on_the_same_machine_it_agrees_bit_for_bit(copy):
    done = metatune("replay", copy, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["agrees"] and document["bit_for_bit"] and document["band"] is None
    result = json.loads((copy / "tuned.json").read_text())["result"]
    assert document["held_out"]["recorded"] == document["held_out"]["replayed"] == result["after"]
    assert document["held_out"]["largest_difference"] == 0
    assert document["training"]["recorded"] == document["training"]["replayed"]
    assert "test seed 3/3" in done.stderr and "bit for bit" in done.stderr
    assert lines(document)[-1] == "replay: agrees bit for bit"


def test_elsewhere_the_spread_over_the_seeds_is_the_band(copy, monkeypatch, console):
    elsewhere = {**machines.machine(), "cpu": "Abacus"}
    monkeypatch.setattr(replays, "machine", lambda: elsewhere)

    def moved(document):
        document["result"]["after"][0] += 1e-7

    signed(copy, moved)
    asked = []

    def settle(training):
        asked.append(training.recipe.devices)
        return training, ""

    found = replay(copy, console, settle=settle)
    assert asked == ["auto"]
    assert found.agrees and not found.bit_for_bit
    after = json.loads((copy / "tuned.json").read_text())["result"]["after"]
    assert found.band == pytest.approx((np.std(after, ddof=1), np.std(after, ddof=1) / 3**0.5))
    said = lines(found.as_json())
    assert said[:2] == [
        "another type of machine than the one that was recorded:",
        f"  cpu: {machines.machine()['cpu']!r} recorded, 'Abacus' here",
    ]
    assert said[2].startswith("band: the spread over the test seeds; a seed within ")
    assert "held-out losses of 3 seeds: largest difference 1e-07" in said[3]
    assert said[-1] == "replay: agrees within the band"


def test_on_the_same_machine_nothing_less_than_every_bit_will_do(copy):
    def moved(document):
        document["result"]["after"][0] += 1e-7

    signed(copy, moved)
    done = metatune("replay", copy)
    assert done.exit_code == 1, done.output
    assert "largest difference 1e-07" in done.output
    assert "replay: DISAGREES with what was recorded" in done.output


def test_schedules_that_were_not_tuned_are_named_though_signed(copy, console):
    def raised(document):
        document["learning_rates"]["parameters"]["model.norm.weight"][0] *= 1.5

    signed(copy, raised)
    found = replay(copy, console, settle=lambda _: pytest.fail("what was enough is enough again"))
    assert found.schedules == ("learning_rates.parameters.model.norm.weight[0]",)
    assert found.recorded == found.replayed and not found.agrees


def test_other_data_is_named(copy, text):
    before = text.read_text()
    try:
        text.write_text(before.replace("x + 1\\n", "x + 2\\n", 1))
        done = metatune("replay", copy)
    finally:
        text.write_text(before)
    assert done.exit_code == 2, done.output
    recorded = json.loads((copy / "tuned.json").read_text())["provenance"]["data_sha256"]["code"]
    assert f"provenance.data_sha256.code = '{recorded}': was recorded; here it is '" in done.stderr
    assert "replay with what the run was made of" in done.stderr
    assert "drama" not in done.stderr and "compiling" not in done.output


def test_data_that_is_gone_is_named(copy, text):
    text.rename(text.with_suffix(".away"))
    try:
        done = metatune("replay", copy)
    finally:
        text.with_suffix(".away").rename(text)
    assert done.exit_code == 2
    assert "data.domains.code.jsonl" in done.stderr and "Traceback" not in done.output


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda a: (a / "recipe.yaml").write_text("seed: 1\n"), "integrity.files.recipe.yaml = '"),
        (lambda a: (a / "replay.json").unlink(), "integrity.files.replay.json = '"),
        (lambda a: (a / "notes").write_text(""), "integrity.files = 'notes': lies in"),
        (
            lambda a: (a / "tuned.json").write_text(
                (a / "tuned.json").read_text().replace('"steps": 6', '"steps": 7')
            ),
            "integrity.sha256 = '",
        ),
    ],
)
def test_changed_files_are_named_before_anything_is_trained(copy, damage, said):
    damage(copy)
    done = metatune("replay", copy)
    assert done.exit_code == 2
    assert said in done.stderr and "compiling" not in done.output


def test_another_recipe_is_named_though_signed(copy, console):
    recipe = copy / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 0", "seed: 1"))
    signed(copy, lambda document: None)
    with pytest.raises(artefact.ArtefactError, match="provenance.recipe_sha256 = '.*: was recorde"):
        replay(copy, console)


def test_other_meta_parameters_are_named(run, copy, console):
    tuned = artefact.load(run)
    assert tuned.origin is not None
    held = {"learning_rates": np.zeros((3, 2), np.float32), "b1": np.zeros(1)}
    other = dataclasses.replace(
        tuned, origin=dataclasses.replace(tuned.origin, meta_parameters=held)
    )
    artefact.write(copy, other, "")
    with pytest.raises(artefact.ArtefactError) as caught:
        replay(copy, console)
    for said in (
        "replay: 3 faults",
        "meta_parameters.learning_rates = 'float32 [3, 2]': must be float32 [3, 4], as the recipe",
        "meta_parameters.mixture: must be float32 [2, 2]",
        "meta_parameters = 'b1': isn't tuned by the recipe",
    ):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda tuned: {"origin": None},
            "recipe.yaml: isn't in the artefact, which is an exp",
        ),
        (
            lambda tuned: {"origin": dataclasses.replace(tuned.origin, record=None)},
            "replay.json: isn't in the artefact: its trainings were done elsewhere, by a command",
        ),
        (
            lambda tuned: {"result": {**tuned.result, "status": "unfinished"}},
            "result.status = 'unfinished': nothing is measured yet",
        ),
    ],
)
def test_what_can_not_be_replayed_is_refused(run, copy, change, said):
    tuned = artefact.load(run)
    artefact.write(copy, dataclasses.replace(tuned, **change(tuned)), "")
    done = metatune("replay", copy)
    assert done.exit_code == 2 and said in done.stderr


def test_ctrl_c_has_the_exit_code_of_shells(copy, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(replays, "held_out_loss", interrupted)
    done = metatune("replay", copy)
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


AGREED = Replay((), True, None, (), (0, 1), (2.0, 3.0), (2.0, 3.0), (0,), (5.0,), (5.0,))


def test_the_verdict_within_and_beyond_the_band():
    assert AGREED.agrees and AGREED.bit_for_bit
    elsewhere = dataclasses.replace(AGREED, band=band([2.0, 3.0]), replayed_losses=(5.5,))
    assert elsewhere.band == pytest.approx((0.5**0.5, 0.5))
    assert elsewhere.agrees and not elsewhere.bit_for_bit
    for replayed, agrees in (
        ((2.4, 3.5), True),  # their mean is off by 0.45
        ((2.6, 3.5), False),  # by 0.55
        ((2.0, 3.8), False),  # a seed is off by more than 0.707
        ((2.0, float("inf")), False),
    ):
        assert dataclasses.replace(elsewhere, replayed=replayed).agrees == agrees
    diverged = dataclasses.replace(elsewhere, replayed=(2.0, float("inf")))
    document = json.loads(json.dumps(diverged.as_json(), allow_nan=False))
    assert document["held_out"]["replayed"] == [2.0, None]
    assert "held-out losses of 2 seeds: a training diverged" in lines(document)
    assert not dataclasses.replace(AGREED, replayed_losses=(5.5,)).agrees


def test_one_seed_has_no_spread():
    assert band([2.0]) == (0, 0)
    single = dataclasses.replace(AGREED, band=band([2.0]), seeds=(0,), recorded=(2.0,))
    assert dataclasses.replace(single, replayed=(2.0,)).agrees
    off = dataclasses.replace(single, replayed=(2.1,))
    assert not off.agrees
    assert "one seed has no spread" in "\n".join(lines(off.as_json()))


def test_documents_differ_where_they_say():
    one = {"a": [1.0, {"b": "x"}], "c": None, "e": [1]}
    other = {"a": [1.0 + 1e-6, {"b": "y"}], "d": None, "e": [1, 2]}
    assert differing(one, one, 0) == []
    assert differing(one, other, 0) == ["a[0]", "a[1].b", "c", "e", "d"]
    assert differing(one, other, 1e-5) == ["a[1].b", "c", "e", "d"]


def test_other_devices_are_another_machine(copy, console):
    """One device by another name: nothing differs but that it was asked for."""
    found = replay(copy, console, ["devices={fsdp: 1}"])
    assert found.machines == (
        "devices: auto recorded, DevicesSpec(data=1, fsdp=1, tensor=1, members=1) here",
    )
    assert found.agrees and found.bit_for_bit and found.band is not None


@pytest.mark.parametrize(
    ("mesh", "problem"),
    [
        ("fsdp", "--devices = 'fsdp': must be AXIS=PARTS, separated by commas"),
        ("fsdp=2", "asks for 2 devices; this process has 1 (cpu)"),
    ],
)
def test_a_mesh_that_there_isn_t(copy, mesh, problem):
    done = metatune("replay", copy, "--devices", mesh)
    assert done.exit_code == 2
    assert problem in done.stderr
