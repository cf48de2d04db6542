"""The sampler of the export to PyTorch: shares as tuned, and exact resume at any position."""

import json
import random
import socket
import subprocess
import sys
import sysconfig
from types import SimpleNamespace

import numpy as np
import pytest

from metatune.artefact import LossWeights, Mixture
from metatune.artefact.exporters import export

pytestmark = pytest.mark.needs("torch")

DOMAINS = ("code", "drama", "é")


@pytest.fixture
def module(make, tmp_path, load_module):
    shares = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    weights = np.array([[0.5, 1.0, 1.5]])
    artefact = make(
        mixture=Mixture((0.0, 0.5), "linear", DOMAINS, shares),
        loss_weights=LossWeights((0.0,), "constant", DOMAINS, weights),
    )
    export(artefact, "torch", tmp_path / "out")
    return load_module(tmp_path / "out", "metatune_mixture")


def sources():
    return {name: [{"domain": name, "i": i} for i in range(37)] for name in DOMAINS}


def test_realised_shares_are_within_three_standard_errors(module):
    steps, batch = 500, 200
    stream = iter(module.Mixed(sources(), steps, batch))
    drawn, expected, variance = np.zeros(3), np.zeros(3), np.zeros(3)
    for step in range(steps):
        share = np.array(list(module.mixture(step, steps).values()))
        expected += batch * share
        variance += batch * share * (1 - share)
        for _ in range(batch):
            drawn[DOMAINS.index(next(stream)["domain"])] += 1
    assert drawn.sum() == 1e5
    assert np.all(np.abs(drawn - expected) <= 3 * np.sqrt(variance))


def test_resume_is_exact_at_fifty_random_positions(module):
    steps, batch = 40, 7
    stream = iter(module.Mixed(sources(), steps, batch, seed=5))
    straight = [next(stream) for _ in range(steps * batch)]
    for position in random.Random(0).sample(range(steps * batch - 20), 50):
        first = module.Mixed(sources(), steps, batch, seed=5)
        reading = iter(first)
        for _ in range(position):
            next(reading)
        second = module.Mixed(sources(), steps, batch, seed=5)
        second.load_state_dict(first.state_dict())
        rest = iter(second)
        assert [next(rest) for _ in range(20)] == straight[position : position + 20]


def test_iterables_resume_too_and_end_the_whole(module):
    def once():
        return {name: ({"domain": name, "i": i} for i in range(60)) for name in DOMAINS}

    straight = list(module.Mixed(once(), 40, 7))
    first = module.Mixed(once(), 40, 7)
    reading = iter(first)
    head = [next(reading) for _ in range(25)]
    second = module.Mixed(once(), 40, 7)
    second.load_state_dict(first.state_dict())
    assert head + list(second) == straight
    assert max(row["i"] for row in straight) == 59


def test_each_sequence_has_the_weight_of_its_domain(module):
    stream = iter(module.Mixed(sources(), 10, 30))
    weights = dict(zip(DOMAINS, (0.5, 1.0, 1.5), strict=True))
    for _ in range(300):
        row = next(stream)
        assert row["loss_weight"] == pytest.approx(weights[row["domain"]])


def test_the_seed_decides(module):
    def drawn(seed):
        stream = iter(module.Mixed(sources(), 10, 30, seed=seed))
        return [next(stream)["domain"] for _ in range(100)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_ranks_share_each_update_out(module):
    """What all processes draw in an update is what one would."""
    steps, batch = 12, 8
    whole = list(module.Mixed(sources(), steps, batch))
    assert len(whole) == steps * batch
    for ranks in (2, 4):
        parts = [
            list(module.Mixed(sources(), steps, batch, rank=r, ranks=ranks)) for r in range(ranks)
        ]
        own = batch // ranks
        for step in range(steps):
            drawn = [row for part in parts for row in part[step * own : (step + 1) * own]]
            expected = whole[step * batch : (step + 1) * batch]
            assert sorted(map(str, drawn)) == sorted(map(str, expected))


@pytest.mark.parametrize("step", [0, 1, 7, 39])
def test_a_training_goes_on_from_its_update(module, step):
    whole = list(module.Mixed(sources(), 40, 6))
    assert list(module.Mixed(sources(), 40, 6, start_step=step)) == whole[step * 6 :]


def test_iterating_begins_at_the_start_again(module):
    """A Trainer that resumes with the objects of the first run skips what was drawn itself."""
    mixed = module.Mixed(sources(), 40, 6)
    whole = list(mixed)
    reading = iter(mixed)
    for _ in range(100):
        next(reading)
    assert list(mixed) == whole


def test_what_would_go_wrong_is_refused(module, monkeypatch):
    mixed = module.Mixed(sources(), 10, 30)
    with pytest.raises(ValueError, match="nothing was drawn here: a loader's workers have their"):
        mixed.state_dict()
    with pytest.raises(ValueError, match=r"batch_size 30: .* whole batches of 4 for each of 2 pro"):
        module.Mixed(sources(), 10, 30, rank=0, ranks=2, microbatch=4)
    with pytest.raises(ValueError, match="rank 2: must be 0 to 1"):
        module.Mixed(sources(), 10, 30, rank=2, ranks=2)
    with pytest.raises(ValueError, match="start_step 11: must be 0 to 10"):
        module.Mixed(sources(), 10, 30, start_step=11)
    once = {name: iter([{"i": 0}]) for name in DOMAINS}
    read = module.Mixed(once, 10, 30)
    list(read)
    with pytest.raises(ValueError, match="source code: was read before, and can be read only once"):
        iter(read)
    with pytest.raises(ValueError, match="2 processes with 1 workers share out sources with a len"):
        iter(module.Mixed(once, 10, 30, rank=0, ranks=2))
    next(iter(mixed))
    other = module.Mixed(sources(), 10, 15)
    with pytest.raises(ValueError, match="batch_size 15: the training that is resumed had 30"):
        other.load_state_dict(mixed.state_dict())
    # As within one of several workers: a process with JAX's threads must not be forked.
    workers = SimpleNamespace(num_workers=2, id=0)
    monkeypatch.setattr(module, "get_worker_info", lambda: workers)
    with pytest.raises(ValueError, match="num_workers 2: give `microbatch`, the loader's batch_si"):
        iter(mixed)


IN_PROCESSES = f"""
import json, os, sys
sys.path[:0] = [sys.argv[1], {sysconfig.get_paths()["purelib"]!r}]
import torch
from metatune_mixture import Mixed
from torch.utils.data import DataLoader

DOMAINS, STEPS, BATCH, MICRO, rank = {DOMAINS!r}, 6, 8, 2, int(sys.argv[3])
kind, sources = sys.argv[2], {{n: [i + 100 * d for i in range(37)] for d, n in enumerate(DOMAINS)}}

def rows(loader, per_update):
    got = [int(i) for batch in loader for i in batch]
    return [got[at : at + per_update] for at in range(0, len(got), per_update)]

found = {{}}
if kind == "one":
    for workers in (0, 1, 2):
        mixed = Mixed(sources, STEPS, BATCH, microbatch=MICRO)
        found[workers] = rows(DataLoader(mixed, batch_size=MICRO, num_workers=workers), BATCH)
else:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[4], RANK=str(rank),
                      WORLD_SIZE="2", LOCAL_RANK=str(rank), ACCELERATE_USE_CPU="true")
    if kind == "ddp":
        torch.distributed.init_process_group("gloo")
        for workers in (0, 2):
            mixed = Mixed(sources, STEPS, BATCH, microbatch=MICRO)
            loader = DataLoader(mixed, batch_size=MICRO, num_workers=workers)
            found[workers] = rows(loader, BATCH // 2)
    else:
        from accelerate import Accelerator
        from accelerate.utils import DataLoaderConfiguration
        from metatune_schedules import Schedule, optimizer
        for dispatch in (None, False):
            loaders = DataLoaderConfiguration(dispatch_batches=dispatch)
            own = Accelerator(cpu=True, dataloader_config=loaders)
            try:
                iter(Mixed(sources, STEPS, BATCH))
            except ValueError as error:
                found["refused"] = str(error)
            mixed = Mixed(sources, STEPS, BATCH, ranks=1)
            loader = own.prepare(DataLoader(mixed, batch_size=MICRO))
            found[str(dispatch)] = rows(loader, BATCH // 2)
        model = torch.nn.ParameterDict({{"a": torch.nn.Parameter(torch.ones(2))}})
        tuned = optimizer(model, STEPS)
        model, tuned, schedule = own.prepare(model, tuned, Schedule(tuned, STEPS))
        found["rates"] = []
        for _ in range(STEPS):
            for _ in range(2):
                with own.accumulate(model):
                    found["rates"].append(tuned.param_groups[0]["lr"])
                    own.backward(sum(p.sum() for p in model.parameters()))
                    tuned.step(); schedule.step(); tuned.zero_grad()
    torch.distributed.destroy_process_group()
print(json.dumps(found))
"""


def in_processes(folder, kind, ranks=1):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    running = [
        subprocess.Popen(
            [sys.executable, "-I", "-c", IN_PROCESSES, str(folder), kind, str(rank), port],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    done = [process.communicate(timeout=180) for process in running]
    assert all(process.returncode == 0 for process in running), done
    return [json.loads(out.splitlines()[-1]) for out, _ in done]


@pytest.fixture
def folder(make, tmp_path):
    shares = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    artefact = make(
        ("a",), 6, mixture=Mixture((0.0, 0.5), "linear", DOMAINS, shares), loss_weights=None
    )
    export(artefact, "torch", tmp_path / "out")
    return artefact, tmp_path / "out"


def test_workers_and_processes_draw_what_one_would(folder, load_module):
    """Loaders of PyTorch with 0, 1, 2 workers, alone and in 2 processes of Gloo."""
    _, path = folder
    module = load_module(path, "metatune_mixture")
    numbers = {n: [i + 100 * d for i in range(37)] for d, n in enumerate(DOMAINS)}
    whole = list(module.Mixed(numbers, 6, 8))
    updates = [whole[at : at + 8] for at in range(0, 48, 8)]
    (alone,) = in_processes(path, "one")
    assert alone == {workers: updates for workers in ("0", "1", "2")}
    first, second = in_processes(path, "ddp", 2)
    for workers in ("0", "2"):
        both = [a + b for a, b in zip(first[workers], second[workers], strict=True)]
        assert [sorted(rows) for rows in both] == [sorted(rows) for rows in updates]


@pytest.mark.needs("accelerate")
def test_accelerate_shares_updates_out_and_keeps_the_rates(folder, load_module):
    """Its loaders, dispatched from the first process or not, and its scheduler, on 2 processes."""
    artefact, path = folder
    module = load_module(path, "metatune_mixture")
    numbers = {n: [i + 100 * d for i in range(37)] for d, n in enumerate(DOMAINS)}
    whole = list(module.Mixed(numbers, 6, 8))
    first, second = in_processes(path, "accelerate", 2)
    for kind in ("None", "False"):
        both = [a + b for a, b in zip(first[kind], second[kind], strict=True)]
        updates = [sorted(whole[at : at + 8]) for at in range(0, 48, 8)]
        assert [sorted(rows) for rows in both] == updates
    assert first["refused"].startswith("2 processes under accelerate: give `ranks=1` where its pre")
    # Each update was made of one micro-batch here: accumulate() counts what it was told, one.
    expected = [artefact.learning_rate("a", min(step, 5), 6) for step in range(12)]
    assert first["rates"] == pytest.approx(expected, rel=1e-12)
