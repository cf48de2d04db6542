"""Several processes as one run: this file runs itself as two of them, with Gloo on a CPU."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from recipes import tiny
from rich.console import Console

from metatune import artefact
from metatune.data import Part, stratified_batches
from metatune.fit.outer_loop import fit
from metatune.fit.replaying.replay import replay
from metatune.hypergrad import (
    Checkpoints,
    ForwardGradient,
    Member,
    MixFlow,
    hypergradient,
    hypergradients,
)
from metatune.hypergrad.stores import Disk
from metatune.inner import prepare
from metatune.inner.devices import over_processes, resolved, share
from metatune.inner.metrics import held_out_batches
from metatune.plan.mesh import settling
from metatune.plan.reverse_mode import traced, work_of
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.runs import files, processes, stops
from metatune.runs.checkpoints import RunCheckpoints, savable
from metatune.runs.faults import RunFolderError
from metatune.runs.processes import Meeting, ProcessesError, meeting

BATCH, STEPS, SEGMENT, COUNT = 4, 4, 2, 2


def recipe(fsdp, members=1):
    return tiny(
        inner={"optimizer": schema.AdamWSpec(learning_rate=1e-2, eps_root=1e-5), "steps": STEPS},
        tune={"learning_rates": schema.LearningRatesSpec(per="layer", windows=2)},
        outer={
            "objective": schema.ObjectiveSpec(sequences=8, micro_batch=4),
            # What is sought below says itself what it is of; these let an axis be named.
            **({"population": schema.PopulationSpec(members=members)} if members > 1 else {}),
        },
        devices=schema.DevicesSpec(fsdp=fsdp, members=members),
    )


def sought(training, way="mixflow"):
    """A hypergradient of a recipe's training, states waiting in the host's memory.

    Of directions, or of a population of two, where that is the way.
    """
    eta = training.initial_eta()
    drawn = stratified_batches(
        training.corpus,
        seed=(1,),
        batch_size=BATCH,
        shares=training.trajectory(eta).mixture,
        part=share(training.layout),
    )
    held_out = held_out_batches(
        training.recipe.outer,
        training.corpus,
        "validation",
        seed=(2,),
        sequences=2 * BATCH,
        layout=training.layout,
    )
    batches = over_processes(training.layout, drawn)
    given: dict[str, Any] = {"outer_batches": held_out, "steps": STEPS}
    if way == "directions":
        given |= {"estimator": ForwardGradient(4, SEGMENT, chunk=2), "key": jax.random.key(1)}
    else:
        kept = Checkpoints("auto", store="host")
        given |= {"estimator": MixFlow(SEGMENT), "checkpoints": kept}
    if way == "population":
        members = [
            Member(partial(training.initialise, jax.random.key(seed)), batches) for seed in (0, 1)
        ]
        return hypergradients(training.reweighted, eta, members, **given), drawn
    state = training.initialise(jax.random.key(0))
    return hypergradient(training.reweighted, eta, state, batches, **given), drawn


def settled(index, folder):
    """The mesh of a recipe that names none, where the second process has no memory to speak of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settling, "limit_bytes", lambda: 2**10 if index else 2**40)
        found, why = settling.settled(prepare(tiny()), folder=folder)
    return [str(found.recipe.devices), found.layout is not None, why]


# In each of the processes.


def among_others(folder):
    """What a process of two sees."""
    found = {}
    with processes.joined() as here:
        assert here.index == int(os.environ[processes.INDEX]) and here.count == COUNT
        found["gathered"] = processes.gathered("é" * (here.index + 1))
        found["summed"] = processes.summed([here.index, 1])
        for name, given in {"same": {"steps": 4}, "other": {"steps": 4 + here.index}}.items():
            try:
                processes.refuse_different({"seed": 0, **given})
                found[name] = None
            except ProcessesError as error:
                found[name] = str(error).replace(socket.gethostname(), "HOST")
        try:
            processes.by_the_first(lambda: refuse(here))
        except RunFolderError as error:
            found["refused"] = str(error)
        print("told")
        files.replace(folder / "written", f"{here.index}")
        training = prepare(recipe(COUNT))
        result, drawn = sought(training)
        found["rows"] = len(drawn(0).tokens), len(share_of_whole(training, drawn))
        found["peak_bytes"] = result.diagnostics.peak_bytes
        found["settled"] = settled(here.index, folder)
        found["gradient"] = {key: np.asarray(v).tolist() for key, v in result.gradient.items()}
        found["resolved"] = resolved(tiny(data={"batch_size": 4})).count
        try:
            prepare(recipe(1))
        except RecipeError as error:
            found["idle"] = str(error.faults[0])
        found["on disk"] = through(Disk(folder / f"scratch{here.index}"), result.state.params)
        keep(folder / "checkpoints", result)
        if here.index == 1:
            stops.hear(signal.SIGTERM)
        found["stops"] = [processes.stop_together(False), processes.stop_together(here.index == 1)]
        found["code"] = stops.exit_code()
    print(json.dumps(found))


WAYS = ("population", "directions")


def over_members(_):
    """What a process of two comes to, each with the half of directions or members."""
    with processes.joined():
        training, found = prepare(recipe(1, COUNT)), {}
        for way in WAYS:
            result, drawn = sought(training, way)
            found[way] = {
                "gradient": {key: np.asarray(v).tolist() for key, v in result.gradient.items()},
                "rows": len(drawn(0).tokens),
                "peak_bytes": result.diagnostics.peak_bytes,
            }
        print("told")
    print(json.dumps(found))


def replaying(folder):
    """What a process of two comes to when they replay a run of one."""
    with processes.joined(), open(os.devnull, "w") as nowhere:
        again = replay(folder / "run", Console(file=nowhere), [f"devices={{fsdp: {COUNT}}}"])
        print("told")
    print(json.dumps(again.as_json()))


def refuse(here):
    raise RunFolderError(f"no room, says {here.index}")


def share_of_whole(training, drawn):
    """Rows on this process' device, of a batch that lies on all."""
    (shard,) = over_processes(training.layout, drawn)(0).tokens.addressable_shards
    np.testing.assert_array_equal(np.asarray(shard.data), drawn(0).tokens)
    return shard.data


def through(place, params):
    """Whether all that this process has of parameters comes back, each part where it was."""
    leaves = jax.tree.leaves(params)
    back = place.read(place.write(leaves))
    place.close()
    return all(
        np.array_equal(np.asarray(one.data), np.asarray(other.data)) and one.index == other.index
        for before, after in zip(leaves, back, strict=True)
        for one, other in zip(before.addressable_shards, after.addressable_shards, strict=True)
    )


def keep(folder, result):
    kept = RunCheckpoints(folder, ("arrays",), 1)
    arrays = jax.tree.map(savable, {"params": result.state.params, "eta": result.gradient})
    kept.save(STEPS, arrays=ocp.args.StandardSave(arrays))
    kept.close()


def two(folder, *words):
    """What this file says in each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), *words],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "JAX_NUM_CPU_DEVICES": "1",
                processes.COORDINATOR: f"127.0.0.1:{port}",
                processes.COUNT: str(COUNT),
                processes.INDEX: str(index),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(COUNT)
    ]
    rows = []
    for each in started:
        out, problem = each.communicate(timeout=1200)
        assert each.returncode == 0, problem
        rows.append(out)
    assert ["told" in out.splitlines() for out in rows] == [True, False]
    return [json.loads(out.splitlines()[-1]) for out in rows]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    return folder, two(folder)


def test_all_hear_what_each_says(found):
    for row in found[1]:
        assert row["gathered"] == ["é", "éé"] and row["summed"] == [1, 2]
        assert row["same"] is None
        assert row["other"] == (
            "not all processes of this run have the same recipe, data and packages; give each the "
            "same\n  process 1 (HOST): steps = 5; process 0 (HOST) has 4"
        )
    assert [row["refused"] for row in found[1]] == [
        "no room, says 0",
        "process 0: no room, says 0",
    ]
    assert (found[0] / "written").read_text() == "0"


def test_two_processes_have_the_hypergradient_of_one(found):
    one, _ = sought(prepare(recipe(1)))
    for row in found[1]:
        assert row["rows"] == [BATCH // COUNT, BATCH // COUNT]
        ours = np.concatenate([np.ravel(row["gradient"][key]) for key in one.gradient])
        theirs = np.concatenate([np.ravel(leaf) for leaf in one.gradient.values()])
        assert 0 < np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)
    assert found[1][0]["gradient"] == found[1][1]["gradient"]


def test_shards_of_all_are_one_checkpoint(found):
    """Read here, on one device, without the other processes."""
    folder, rows = found
    training = prepare(recipe(1))
    one, _ = sought(training)
    wanted = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), one.state.params)
    eta = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), one.gradient)
    kept = RunCheckpoints(folder / "checkpoints", ("arrays",), 1)
    restore = ocp.args.StandardRestore({"params": wanted, "eta": eta})
    held = kept.latest(lambda step: kept.restored(step, arrays=restore), print)
    kept.close()
    assert held is not None
    for key, leaf in held["eta"].items():
        np.testing.assert_array_equal(leaf, np.asarray(rows[0]["gradient"][key], np.float32))
    for ours, theirs in zip(
        jax.tree.leaves(held["params"]), jax.tree.leaves(one.state.params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_processes_settle_on_the_same_devices(found):
    """By the least memory that any has; states alone are too much of it, so nothing compiles."""
    devices, several, why = found[1][0]["settled"]
    assert found[1][1]["settled"] == [devices, several, why]
    assert devices == str(schema.DevicesSpec(fsdp=2)) and several
    assert why.startswith("devices: fsdp=2, which is too small, but the largest there is")


def test_a_budget_is_of_each_process(found):
    """Of its device alone here: half of all that is cut, and norms whole."""
    whole = sought(prepare(recipe(1)))[0].diagnostics.peak_bytes
    ours, theirs = (row["peak_bytes"] for row in found[1])
    assert ours == theirs
    assert 0.5 * whole < ours < 0.6 * whole


def test_states_wait_by_shards(found):
    assert [row["on disk"] for row in found[1]] == [True, True]


def test_all_stop_where_one_is_asked_to(found):
    for row in found[1]:
        assert row["stops"] == [False, True] and row["code"] == 143


# That an axis for them is the same is in tests/inner/test_devices.py, of one process.
@pytest.mark.thorough
def test_two_processes_have_directions_and_members_of_one(tmp_path):
    ours, theirs = two(tmp_path, "members")
    assert ours == theirs
    for way in WAYS:
        one = sought(prepare(recipe(1)), way)[0]
        found = np.concatenate([np.ravel(ours[way]["gradient"][key]) for key in one.gradient])
        wanted = np.concatenate([np.ravel(leaf) for leaf in one.gradient.values()])
        assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)
        assert ours[way]["rows"] == BATCH  # of the whole batch each, for trainings of its own
        assert ours[way]["peak_bytes"] == one.diagnostics.peak_bytes / COUNT


# That two have the hypergradients of one is above; a replay of one process is in test_replay.py.
@pytest.mark.thorough
def test_what_one_process_trained_is_replayed_by_two(tmp_path):
    test = schema.FinalTestSpec(seeds=2, sequences=8)
    short = {"steps": 1, "estimator": schema.ZerothOrderSpec(directions=1, segment=4), "test": test}
    with open(os.devnull, "w") as nowhere:
        one = recipe(1)
        one = replace(one, outer=replace(one.outer, **short))
        fit(prepare(one), tmp_path / "run", console=Console(file=nowhere))
    ours, theirs = two(tmp_path, "replay")
    assert ours == theirs and ours["agrees"]
    assert [line.split(":")[0] for line in ours["machine_differs"]] == [
        "devices",
        "processes",
        "devices",
    ]
    assert ours["band"] is not None
    differences = [ours[of]["largest_difference"] for of in ("held_out", "training")]
    assert 0 < max(differences) < 1e-5, ours
    assert ours["held_out"]["recorded"] == artefact.load(tmp_path / "run").result["after"]


def test_no_process_is_left_idle(found):
    for row in found[1]:
        assert row["resolved"] == COUNT
        assert row["idle"].startswith(
            "devices = {'data': 1, 'fsdp': 1, 'tensor': 1, 'members': 1}: is a mesh of 1 of the 2 "
            "devices of 2 processes; must be of all of them"
        )


# Here, in one process.

GIVEN = {processes.COORDINATOR: "host:1234", processes.COUNT: "2", processes.INDEX: "1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (GIVEN, Meeting("host:1234", 2, 1, 60)),
        ({**GIVEN, "METATUNE_JOIN_SECONDS": "5"}, Meeting("host:1234", 2, 1, 5)),
        ({**GIVEN, processes.COUNT: "1", processes.INDEX: "0"}, None),
        ({processes.COORDINATOR: "auto"}, Meeting(None, None, None, 60)),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, Meeting(None, None, None, 60)),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        # Within sbatch, outside of srun: one process.
        ({"SLURM_NTASKS": "8"}, None),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NODELIST": "n1"}, Meeting(None, None, None, 60)),
    ],
)
def test_the_environment_says_who_else_there_is(environment, expected):
    assert meeting(environment) == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({processes.INDEX: "2"}, "METATUNE_PROCESS = 2: must be from 0 to 1, as METATUNE_PROCES"),
        ({processes.INDEX: "-1"}, "METATUNE_PROCESS = -1: must be a whole number of 0 or above"),
        ({processes.COUNT: "0"}, "METATUNE_PROCESSES = 0: must be a whole number of 1 or above"),
        ({processes.COORDINATOR: "host"}, "METATUNE_COORDINATOR = host: must be HOST:PORT of the"),
        ({processes.JOIN_SECONDS: "soon"}, "METATUNE_JOIN_SECONDS = soon: must be a whole number"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(changes, said):
    with pytest.raises(ProcessesError, match=said):
        meeting({**GIVEN, **changes})


def test_a_part_of_it_is_refused():
    with pytest.raises(ProcessesError) as caught:
        meeting({processes.INDEX: "1"})
    assert str(caught.value) == (
        "METATUNE_PROCESS without METATUNE_COORDINATOR and METATUNE_PROCESSES: give all three, or "
        "METATUNE_COORDINATOR=auto where JAX knows the cluster"
    )


def test_one_process_is_the_first_and_reads_all():
    with processes.joined() as here:
        assert here == processes.Together() and processes.first()
        assert processes.stop_together(True) and not processes.stop_together(False)
    training = prepare(recipe(1))
    assert share(training.layout) == Part()

    def batches(step):
        return step

    # The very same function: not an operation more.
    assert over_processes(training.layout, batches) is batches


def lowered(devices, folder):
    """Hashes of the programs of a hypergradient, as they are handed to XLA."""
    with processes.joined() as here:
        assert here.count == 1
        training = settling.settled(prepare(replace(recipe(1), devices=devices)), folder=folder)
        programs = traced(work_of(training.training, schema.MixFlowSpec(segment=SEGMENT)))
        texts = {name: make().lower().as_text() for name, make in programs.items()}
    assert not any("sharding" in text or "all_reduce" in text for text in texts.values())
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def test_one_process_on_one_device_has_the_programs_of_a_plain_run(monkeypatch, tmp_path):
    plain = lowered(schema.DevicesSpec(), tmp_path)
    for name, value in {**GIVEN, processes.COUNT: "1", processes.INDEX: "0"}.items():
        monkeypatch.setenv(name, value)
    assert len(plain) == 3 and lowered("auto", tmp_path) == plain


if __name__ == "__main__":
    ways = {"replay": replaying, "members": over_members}
    ways.get(sys.argv[-1], among_others)(Path(sys.argv[1]))
