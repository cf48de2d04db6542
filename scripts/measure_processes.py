"""Several processes on this machine's CPU: agreement, the end of one of two, preemption.

    python scripts/measure_processes.py agreement   # 2 and 4 processes against one, one device each
    python scripts/measure_processes.py killed      # SIGKILL of either of two, SIGTERM to one
    python scripts/measure_processes.py preempted   # the quickstart: SIGTERM and a notice file

Seconds are of this machine as it is; numbers of searches aren't. Folders are of a temporary one.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

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
LONG = "outer.steps=100000"
CAN_START_SECONDS = 1200


def main() -> None:
    """Prints lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    table = {"agreement": agreement, "killed": killed, "preempted": preempted}
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
        codes = [each.wait() for each in started(count, out, changes)]
        if any(codes):
            raise RuntimeError(f"{count} processes ended with {codes}")
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
