"""At every update every parameter has the artefact's rate, and the sequences are those of one run.

Over the ways that users train in, by a loop of their own and by the Trainer.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from cells import cells

from metatune.artefact import Mixture
from metatune.artefact.exporters import export

pytestmark = pytest.mark.needs("accelerate", "torch")

SCRIPT = Path(__file__).with_name("training_matrix.py")
NAMES = ["layers.0.lora_A.weight", "layers.0.norm.weight", "layers.0.norm.bias"]
STEPS, BATCH, STOP = 8, 8, 3
WAYS = ("plain", "accumulated", "resumed", "compiled", "adapted", "checkpointed")
TARGETS = ("torch", "hf-trainer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("matrix")


@pytest.fixture
def tuned(make, folder):
    """The artefact, and where its export is."""
    shares = np.array([[0.7, 0.3], [0.2, 0.8]])
    mixture = Mixture((0.0, 0.5), "linear", ("code", "drama"), shares)
    artefact = make(NAMES, STEPS, mixture=mixture, loss_weights=None)
    export(artefact, "hf-trainer", folder / "tuned", overwrite=True)
    return artefact, folder


def trained(folder, *ways, ranks=1):
    """What the script finds of ways, for each process."""
    with contextlib.ExitStack() as held:
        free = [held.enter_context(socket.socket()) for _ in ways]
        for each in free:
            each.bind(("127.0.0.1", 0))
        ports = [str(each.getsockname()[1]) for each in free]
    (folder / "runs").mkdir(exist_ok=True)
    packages = [str(folder / "tuned"), sysconfig.get_paths()["purelib"]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(packages)}
    running = []
    for rank in range(ranks):
        command = [sys.executable, str(SCRIPT), str(folder / "runs"), ",".join(ways)]
        command += [str(rank), *ports] if ranks > 1 else []
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, env=environment, **pipes))
    try:
        done = [process.communicate(timeout=240) for process in running]
    finally:
        for process in running:
            process.kill()
    assert all(process.returncode == 0 for process in running), done
    return [json.loads(out.splitlines()[-1]) for out, _ in done]


def expected_rates(artefact, start=0):
    return [
        pytest.approx([artefact.learning_rate(name, step, STEPS) for name in NAMES], rel=1e-7)
        for step in range(start, STEPS)
    ]


def sequences(folder, load_module):
    """Those of an uninterrupted run of one process, by update."""
    mixed = load_module(folder / "tuned", "metatune_mixture").Mixed
    sources = {n: [100 * d + i for i in range(37)] for d, n in enumerate(("code", "drama"))}
    drawn = list(mixed(sources, STEPS, BATCH))
    return [drawn[at : at + BATCH] for at in range(0, STEPS * BATCH, BATCH)]


def test_one_process(tuned, load_module):
    artefact, folder = tuned
    whole = sequences(folder, load_module)
    (found,) = trained(folder, *(f"{target}:{way}" for target in TARGETS for way in WAYS))
    assert len(found) == len(TARGETS) * len(WAYS)
    for word, (rates, drawn) in found.items():
        assert rates == expected_rates(artefact), word
        assert drawn == whole, word


# Within a process it is resumed from files above.
@pytest.mark.thorough
def test_a_training_that_goes_on_in_another_process(tuned, load_module):
    artefact, folder = tuned
    whole = sequences(folder, load_module)
    (first,) = trained(folder, *(f"{target}:resumed elsewhere" for target in TARGETS))
    (second,) = trained(folder, *(f"{target}:going on" for target in TARGETS))
    for target in TARGETS:
        rates, drawn = first[f"{target}:resumed elsewhere"]
        late, rest = second[f"{target}:going on"]
        assert rates + late == expected_rates(artefact), target
        assert drawn + rest == whole, target


@pytest.mark.parametrize("way", cells(["plain", "sharded"], ["plain"]))
def test_two_processes(tuned, load_module, way):
    artefact, folder = tuned
    whole = sequences(folder, load_module)
    both = trained(folder, *(f"{target}:{way}" for target in TARGETS), ranks=2)
    for target in TARGETS:
        (rates, drawn), (others, rest) = (found[f"{target}:{way}"] for found in both)
        assert rates == others == expected_rates(artefact), target
        updates = [sorted(own + more) for own, more in zip(drawn, rest, strict=True)]
        assert updates == [sorted(update) for update in whole], target
