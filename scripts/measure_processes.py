"""Several processes on this machine's CPU: agreement, the end of one of two, preemption.

    python scripts/measure_processes.py agreement   # 2 and 4 processes against one, one device each
    python scripts/measure_processes.py killed      # SIGKILL of either of two, SIGTERM to one
    python scripts/measure_processes.py resumed     # both killed, gone on with by two, by one
    python scripts/measure_processes.py preempted   # the quickstart: SIGTERM and a notice file

Seconds are of this machine as it is; numbers of searches aren't. Folders are of a temporary one.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metatune.runs import processes, stops

RECIPE = "quickstart"
BATCH = (
    "data.batch_size=8",
    "outer.objective.sequences=8",
    "outer.validation.sequences=8",
    "outer.test.sequences=8",
    "outer.test.seeds=1",
    "inner.optimizer.eps_root=1e-5",
    "inner.steps=8",
    "outer.estimator={kind: mixflow, segment: 4}",
)
"""A short search, whose batches four processes divide."""
SMALL = (
    *BATCH,
    "model.config.hidden_size=16",
    "model.config.intermediate_size=32",
    "data.sequence_length=16",
    "outer.validation.seeds=1",
)
"""The same of a model that compiles quickly."""
LONG = "outer.steps=100000"
CAN_START_SECONDS = 1200


def main() -> None:
    """Prints lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    table = {
        "agreement": agreement,
        "killed": killed,
        "resumed": resumed,
        "preempted": preempted,
    }
    parser.add_argument("what", choices=table)
    measure = table[parser.parse_args().what]
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(Path(folder)):
            print(line, flush=True)


def agreement(folder: Path) -> Iterator[str]:
    """Points of a short search, of 1, 2 and 4 processes."""
    found = {}
    for count in (1, 2, 4):
        out = folder / str(count)
        changes = (*BATCH, "outer.steps=2", f"devices.fsdp={count}")
        ended(started(count, out, changes))
        found[count] = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    for count in (2, 4):
        for one, several in zip(found[1], found[count], strict=True):
            if "objective" not in one:  # the last point, which no step is taken from
                continue
            ours, theirs = (
                {**line["hypergradient_norm"], "objective": line["objective"]}
                for line in (several, one)
            )
            apart = {key: abs(ours[key] - value) / abs(value) for key, value in theirs.items()}
            said = ", ".join(f"{key} {value:.1e}" for key, value in apart.items())
            yield f"{count} processes, point {one['step']}, relative differences: {said}"


def killed(folder: Path) -> Iterator[str]:
    """Seconds until all have ended, their exit codes, and what is kept."""
    changes = (*BATCH, LONG, "devices.fsdp=2")
    for number, who in ((signal.SIGKILL, 1), (signal.SIGKILL, 0), (signal.SIGTERM, 1)):
        out = folder / f"{number.name}{who}"
        several = started(2, out, changes)
        reached(out, 3, several)
        several[who].send_signal(number)
        began = time.monotonic()
        codes = [each.wait() for each in several]
        seconds = time.monotonic() - began
        kept = sorted(int(path.name) for path in (out / "checkpoints").iterdir())
        yield f"{number.name} to process {who}: {codes} after {seconds:.1f} s; checkpoints {kept}"


def resumed(folder: Path) -> Iterator[str]:
    """A search of two processes, killed between its points, against one that wasn't."""
    changes = (*SMALL, "outer.steps=4", "devices.fsdp=2")
    whole, cut = folder / "whole", folder / "cut"
    ended(started(2, whole, changes))
    several = started(2, cut, changes)
    reached(cut, 2, several)
    for each in several:
        each.kill()
    codes = [each.wait() for each in several]
    reached_by_then = len((cut / "metrics.jsonl").read_bytes().splitlines())
    yield f"killed after {reached_by_then} points: exit codes {codes}"
    for count in (2, 1):
        out = folder / str(count)
        shutil.copytree(cut, out)
        ended(started(count, out, (*changes[:-1], f"devices.fsdp={count}", "--resume")))
        same = {
            "points": points(out) == points(whole),
            "tuned.json": tuned(out) == tuned(whole),
        }
        apart = max(
            0.0 if ours == theirs else abs(ours - theirs) / max(abs(ours), abs(theirs))
            for ours, theirs in zip(measured(out), measured(whole), strict=True)
        )
        said = ", ".join(
            f"{name} {'the same' if is_so else 'others'}" for name, is_so in same.items()
        )
        yield f"resumed by {count}: bits of {said}; numbers differ by {apart:.1e} of them at most"


def points(out: Path) -> list[dict[str, Any]]:
    """The points of a search, without their seconds."""
    lines = map(json.loads, (out / "metrics.jsonl").open())
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def tuned(out: Path) -> bytes:
    """The artefact's document."""
    return (out / "artefact" / "tuned.json").read_bytes()


def measured(out: Path) -> list[float]:
    """All losses and norms of a search's points, and of its result."""
    result = json.loads(tuned(out))["result"]
    leaves = [points(out), result["before"], result["after"]]
    found = list[float]()
    while leaves:
        leaf = leaves.pop()
        if isinstance(leaf, dict | list):
            leaves += leaf.values() if isinstance(leaf, dict) else leaf
        elif isinstance(leaf, float):
            found.append(leaf)
    return found


def preempted(folder: Path) -> Iterator[str]:
    """Seconds from the request to the end, and the exit code, of the quickstart."""
    notice = folder / "taken away"
    for how in ("SIGTERM", "notice"):
        out = folder / how
        (one,) = started(1, out, (LONG,), {stops.NOTICE: str(notice)})
        reached(out, 1, [one])
        time.sleep(1)
        began = time.monotonic()
        notice.touch() if how == "notice" else one.send_signal(signal.SIGTERM)
        code = one.wait()
        yield f"{how}: exit code {code} after {time.monotonic() - began:.1f} s"


def started(
    count: int, out: Path, changes: Sequence[str], environment: dict[str, str] | None = None
) -> list[subprocess.Popen[bytes]]:
    """A search in so many processes, each with one device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "import sys; from metatune.cli import main; main(sys.argv[1:])"
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, "fit", RECIPE, *changes, "--out", str(out)],
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": "1",
                processes.COORDINATOR: f"127.0.0.1:{port}",
                processes.COUNT: str(count),
                processes.INDEX: str(index),
                **(environment or {}),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for index in range(count)
    ]


def ended(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Waits for processes.

    Raises:
        RuntimeError: one failed.
    """
    codes = [each.wait() for each in running]
    if any(codes):
        raise RuntimeError(f"{len(running)} processes ended with {codes}")


def reached(out: Path, points: int, running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Waits until so many points of a search are kept.

    Raises:
        RuntimeError: a process has ended, or it takes too long.
    """
    deadline, metrics = time.monotonic() + CAN_START_SECONDS, out / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_bytes().splitlines()) < points:
        if time.monotonic() > deadline or any(each.poll() is not None for each in running):
            raise RuntimeError(f"{out}: {points} points weren't reached")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
