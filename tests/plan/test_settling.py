"""The mesh of a recipe that leaves it open, by what one device would take.

This file runs itself in a process with eight virtual devices.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import jax
import pytest
from recipes import tiny
from thumbnails_in_haste import draw_in_haste
from typer.testing import CliRunner

from metatune.cli.commands import app
from metatune.inner import prepare
from metatune.plan import mesh
from metatune.plan.cost_model import NotPredicted
from metatune.plan.mesh import planning, settling
from metatune.recipe import reading, schema, writing

VIRTUAL = 8
RECIPE = tiny(data={"batch_size": 8})
"""Of width 8, and 8 sequences wherever one is drawn."""


@pytest.fixture
def eight(monkeypatch):
    """As if there were eight devices; what would be prepared on them is prepared for elsewhere."""
    monkeypatch.setattr(jax, "device_count", lambda: VIRTUAL)

    def on(training, mesh):
        return prepare(replace(training.recipe, devices=mesh), elsewhere=True)

    monkeypatch.setattr(settling, "_on", on)


@pytest.fixture
def compiled(monkeypatch):
    """The meshes that something is compiled for; of each device they take 240 MiB over `fsdp`."""
    found = []

    def on_mesh(training, device, *, limit, **_):
        parts = training.recipe.devices
        found.append(f"{parts.data} x {parts.fsdp}")
        plan = planning.MeshPlan(parts, training.recipe.outer.estimator, None, limit, "cpu")
        return plan._replace(memory=planning.Memory(240 * MIB // parts.fsdp, 0, 0, 0, 0, 0, 0))

    monkeypatch.setattr(settling, "on_mesh", on_mesh)
    return found


MIB = 2**20


def settled(recipe, limit, monkeypatch, states=1, **given):
    """What is chosen where a device has so many MiB and states take so many, over `fsdp`."""
    monkeypatch.setattr(settling, "limit_bytes", lambda: int(limit * MIB))
    monkeypatch.setattr(
        settling, "states_bytes", lambda training: states * MIB // training.recipe.devices.fsdp
    )
    monkeypatch.setattr(settling, "most_bytes", lambda *_: 1000 * MIB)
    training = prepare(recipe, elsewhere=True)
    found, why = settling.settled(training, folder=Path(), **given)
    assert (found is training) == (found.recipe.devices == "auto")
    return found.recipe.devices, why


@pytest.mark.parametrize(
    ("limit", "states", "chosen", "tried"),
    [
        (1000, 1, "auto", []),  # a bound says so, without a compiler
        (300, 1, "auto", ["8 x 1"]),
        (150, 1, (4, 2), ["8 x 1", "4 x 2"]),
        (150, 200, (4, 2), ["4 x 2"]),  # states alone are too much of one device
        (70, 1, (2, 4), ["8 x 1", "4 x 2", "2 x 4"]),
        (30, 1, (1, 8), ["8 x 1", "4 x 2", "2 x 4", "1 x 8"]),
    ],
)
def test_the_smallest_fsdp_that_fits_is_chosen(
    limit, states, chosen, tried, eight, compiled, monkeypatch
):
    found, why = settled(RECIPE, limit, monkeypatch, states)
    assert compiled == tried
    if chosen == "auto":
        assert (found, why) == ("auto", "")
        return
    assert found == schema.DevicesSpec(*chosen)
    needed = "200.00 MiB (209715200 bytes) for states and adjoint alone"
    needed = needed if states == 200 else "240.00 MiB (251658240 bytes)"
    words = ",".join(f"{k}={v}" for k, v in zip(("data", "fsdp"), chosen, strict=True) if v > 1)
    assert why.startswith(f"devices: {words}; data=8 would take {needed} of the {limit}.00 MiB")


def test_where_none_fits_it_is_the_largest_and_said(eight, compiled, monkeypatch):
    found, why = settled(RECIPE, 10, monkeypatch)
    assert found == schema.DevicesSpec(fsdp=8)
    assert why.startswith("devices: fsdp=8, which is too small, but the largest there is; it would")


def test_fsdp_divides_batches_and_width(eight, compiled, monkeypatch):
    six = replace(RECIPE, outer=replace(RECIPE.outer, test=schema.FinalTestSpec(sequences=6)))
    assert settled(six, 150, monkeypatch)[0] == schema.DevicesSpec(fsdp=2)
    odd = replace(RECIPE, outer=replace(RECIPE.outer, test=schema.FinalTestSpec(sequences=7)))
    found, why = settled(odd, 150, monkeypatch)
    assert found == "auto"
    assert why.startswith("devices: one device, which is too small, as no fsdp divides batches, wi")


def test_a_run_that_goes_on_keeps_its_mesh(eight, compiled, monkeypatch):
    before = schema.DevicesSpec(2, 4)
    found, why = settled(RECIPE, 1000, monkeypatch, before=before)
    assert (found, why) == (before, "devices: data=2,fsdp=4, as when the run began")
    gone = schema.DevicesSpec(4, 4)
    assert settled(RECIPE, 150, monkeypatch, before=gone)[0] == schema.DevicesSpec(4, 2)


def test_what_is_named_stays(eight, compiled, monkeypatch):
    named = replace(RECIPE, devices=schema.DevicesSpec(data=2))
    monkeypatch.setattr(settling, "limit_bytes", lambda: 1)
    training = prepare(named, elsewhere=True)
    assert settling.settled(training, folder=Path()) == (training, "")


def test_what_can_t_be_predicted_is_said(eight, compiled, monkeypatch):
    def unknown(*_, **__):
        raise NotPredicted("nobody knows")

    monkeypatch.setattr(settling, "on_mesh", unknown)
    found, why = settled(RECIPE, 10, monkeypatch)
    assert found == "auto"
    assert why == "devices: data=8; whether a device has room isn't known (nobody knows)"


def test_on_one_device_there_is_nothing_to_choose(monkeypatch):
    monkeypatch.setattr(settling, "limit_bytes", lambda: 1)
    training = prepare(RECIPE)
    assert settling.settled(training, folder=Path()) == (training, "")


# In the process with eight devices.


def too_little(recipe: schema.Recipe) -> int:
    """A byte less than it takes of each of eight devices that hold the same parameters."""
    there = prepare(replace(recipe, devices=schema.DevicesSpec(data=VIRTUAL)), elsewhere=True)
    found = mesh.on_mesh(there, None, folder=Path(), limit=2**40).memory
    assert found is not None
    return found.device - 1


def main(folder: Path) -> None:
    """Prints the meshes of plan, fit, resume, train and replay where a device has little memory."""
    path = folder / "recipe.yaml"
    test = schema.FinalTestSpec(seeds=1, sequences=8)
    recipe = replace(RECIPE, outer=replace(RECIPE.outer, steps=1, test=test))
    path.write_text(writing.to_yaml(recipe))
    limit = too_little(recipe)
    with pytest.MonkeyPatch.context() as patch:
        draw_in_haste(patch)
        patch.setattr(settling, "limit_bytes", lambda: limit)
        said = {
            name: CliRunner().invoke(app, [*map(str, arguments)])
            for name, arguments in {
                "plan": ["plan", path, "--json"],
                "fit": ["fit", path, "--out", folder / "run"],
                "resume": ["fit", path, "outer.steps=2", "--out", folder / "run", "--resume"],
                "train": ["train", path, "--out", folder / "trained"],
                "replay": ["replay", folder / "run", "--json"],
            }.items()
        }
    print(
        json.dumps(
            {
                name: [each.exit_code, each.stdout, each.stderr, repr(each.exception)]
                for name, each in said.items()
            }
        )
    )


@pytest.mark.thorough
def test_plan_fit_resume_train_and_replay_agree(tmp_path):
    here = {"JAX_NUM_CPU_DEVICES": str(VIRTUAL), "NPROC": str(8 * VIRTUAL)}
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **here},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: code for name, (code, *_) in found.items()} == dict.fromkeys(found, 0), found
    wanted = reading.read(tmp_path / "run" / "recipe.yaml").devices
    assert isinstance(wanted, schema.DevicesSpec) and wanted.fsdp > 1
    assert json.loads(found["plan"][1])["devices"] == asdict(wanted)
    for name in ("plan", "fit", "train"):
        said = "".join(found[name][1:3])
        assert f"devices: data={wanted.data},fsdp={wanted.fsdp}; data=8 would take" in said, name
    assert "as when the run began" in found["resume"][1]
    assert reading.read(tmp_path / "trained" / "recipe.yaml").devices == wanted
    replayed = json.loads(found["replay"][1])
    assert replayed["bit_for_bit"] and replayed["machine_differs"] == []


if __name__ == "__main__":
    assert len(jax.devices()) == VIRTUAL
    main(Path(sys.argv[1]))
