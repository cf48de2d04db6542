#!/usr/bin/env python3
"""MixFlow beside bergson: the hypergradient of the weights of sequences, in time and memory.

bergson (EleutherAI) takes exact metagradients of Hugging Face models in PyTorch. Both sides get one
Llama (a checkpoint of ours, read by transformers there), the same batches, Adam with the same
numbers, and the same held-out loss. First their hypergradients are compared, then they are timed.

Every contender is a process of its own on the same two threads; bergson's has an environment of its
own, which is made where there is none. They take turns; the median time counts, and how far a
process grows over what it held when libraries and inputs were there, at its peak.

usage: bench_bergson.py [--steps 4 16] [--rounds N] [--batch B] [--sequence S] [--env DIR]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench_peer import ANSWER, MIB, THREADS, peak_bytes, reset_peak, resident_bytes
from safetensors.numpy import load_file, save_file

PACKAGES = ("torch==2.13.0", "bergson==2.5.1")
RATE, EPS_ROOT = 1e-3, 1e-8
AGREE = 1e-5
"""Norm of the difference of two hypergradients over that of one, at most."""

BERGSON = ("training", "default", "accumulated")


class Way(NamedTuple):
    """How ours computes it.

    Attributes:
        segment: inner steps of one.
        disk: keep states on disk rather than in memory.
        remat: compute each block again.
        micro_batches: of each batch.
        saved: keep inner gradients.
        training: only train.
    """

    segment: int = 16
    disk: bool = False
    remat: bool = False
    micro_batches: int = 1
    saved: bool = True
    training: bool = False


WAYS = {
    "training": Way(training=True),
    "default": Way(),
    "on disk": Way(1, disk=True),
    "on disk, block remat": Way(1, disk=True, remat=True),
    "on disk, 4 micro-batches": Way(1, disk=True, micro_batches=4),
    "on disk, 4 micro-batches, gradients recomputed": Way(
        1, disk=True, micro_batches=4, saved=False
    ),
}


def problem_of(shape: Any, way: Way) -> tuple[Any, Any]:
    """Our training with a weight for each sequence of each step, and its η."""
    import jax
    import jax.numpy as jnp
    import optax

    from metatune.bench import workload
    from metatune.hypergrad import Problem
    from metatune.inner.losses import sequence_losses

    model = workload.llama(shape, remat=way.remat, chunks=False)
    adam = optax.scale_by_adam(eps_root=EPS_ROOT)

    def loss(params: Any, weights: jax.Array, batch: Any) -> jax.Array:
        losses = sequence_losses(model, params, batch["tokens"])
        return jnp.mean(weights[batch["row"]] * losses)

    def update(grads: Any, opt_state: Any, params: Any, weights: Any) -> tuple[Any, Any]:
        directions, opt_state = adam.update(grads, opt_state)
        return jax.tree.map(lambda p, d: p - RATE * d, params, directions), opt_state

    def objective(params: Any, batch: Any) -> jax.Array:
        return jnp.mean(sequence_losses(model, params, batch["tokens"]))

    def hyper_at(eta: Any, step: jax.Array) -> Any:
        return jax.lax.dynamic_index_in_dim(eta["weights"], step, keepdims=False)

    problem = Problem(loss, update, objective, hyper_at, micro_batches=way.micro_batches)
    return problem, {"weights": jnp.ones((shape.steps, shape.batch))}


def ours(folder: Path, name: str, shape: Any, gradient: Path) -> Callable[[], None]:
    """A job of ours; writes its hypergradient."""
    import jax
    import jax.numpy as jnp
    import optax

    from metatune.hypergrad import Checkpoints, MixFlow, State, hypergradient, train
    from metatune.models import load_pretrained

    way = WAYS[name]
    problem, eta = problem_of(shape, way)
    given = load_file(folder / "given.safetensors")
    row = jnp.arange(shape.batch)
    inner = [{"tokens": jnp.asarray(tokens), "row": row} for tokens in given["inner"]]
    outer = {"tokens": jnp.asarray(given["outer"]), "row": row}

    def begin() -> State:
        _, params = load_pretrained(folder / "model")
        return State(params, optax.scale_by_adam().init(params))

    def job() -> None:
        state = begin()
        if way.training:
            found, _ = train(problem, eta, state, inner.__getitem__, steps=shape.steps, donate=True)
            jax.block_until_ready(found)
            return
        with tempfile.TemporaryDirectory() as kept:
            found = hypergradient(
                problem,
                eta,
                state,
                inner.__getitem__,
                [outer],
                steps=shape.steps,
                estimator=MixFlow(way.segment, save_gradients=way.saved),
                checkpoints=Checkpoints(store="disk", folder=Path(kept))
                if way.disk
                else Checkpoints(),
            )
            save_file({"weights": np.array(found.gradient["weights"])}, gradient)

    return job


def serve(folder: Path, name: str, shape: Any, gradient: Path) -> None:
    """A process of ours: does its job once, then again for each line of its input."""
    from metatune.fit.process.allocation import keep_memory

    keep_memory(whole=not WAYS[name].disk)  # as `metatune fit`
    job = ours(folder, name, shape, gradient)
    start = resident_bytes()
    job()
    print(f"{ANSWER}null", flush=True)
    for _ in sys.stdin:
        reset_peak()
        began = time.perf_counter()
        job()
        took = time.perf_counter() - began
        print(f"{ANSWER}{json.dumps([took, peak_bytes() - start])}", flush=True)


def give(folder: Path, shape: Any) -> None:
    """Makes a model and tokens."""
    import jax

    from metatune.bench import workload
    from metatune.models import save_pretrained

    _, state, tokens, outer = workload.initial(shape, jax.random.key(0))
    save_pretrained(
        folder / "model", workload.llama(shape, remat=False, chunks=False), state.params
    )
    given = {"inner": np.asarray(tokens, np.int64), "outer": np.asarray(outer, np.int64)}
    save_file(given, folder / "given.safetensors")


def environment(folder: Path) -> Path:
    """The Python of bergson, installed where it isn't yet."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        # Which it has no use for, and which may not load beside a torch for CPUs alone.
        unused = ("torchvision", "torchaudio")
        subprocess.run([python, "-m", "pip", "uninstall", "-qy", *unused], check=True)
        (folder / "ready").touch()
    return python


def begin(command: list[Any], surroundings: dict[str, str]) -> subprocess.Popen[str]:
    """A contender, which has done its job once."""
    process = subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=surroundings,
    )
    answer(process)
    return process


def answer(process: subprocess.Popen[str]) -> Any:
    """The next answer of a process; libraries may print other lines."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(ANSWER):
            return json.loads(line.removeprefix(ANSWER))
    raise SystemExit(f"error: a contender ended with {process.wait()}: {process.args}")


def measure(shape: Any, rounds: int, python: Path) -> None:
    """Prints the table of one number of steps."""
    here = Path(__file__)
    surroundings = os.environ | {"OMP_NUM_THREADS": str(THREADS), "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        give(folder, shape)
        processes, gradients = {}, {}
        sides = [("bergson", each) for each in BERGSON] + [("metatune", each) for each in WAYS]
        for side, each in sides:
            gradient = folder / f"{side} {each}.safetensors"
            command = [sys.executable, here, "--serve", folder, each, gradient, json.dumps(shape)]
            if side == "bergson":
                command = [python, here.with_name("bergson_peer.py"), folder, each, gradient]
                command += ["--rate", RATE, "--eps-root", EPS_ROOT]
            processes[side, each] = begin(command, surroundings)
            if each != "training":
                gradients[side, each] = load_file(gradient)["weights"]
        truth = gradients["bergson", "default"]
        apart = {
            key: float(np.linalg.norm(found - truth) / np.linalg.norm(truth))
            for key, found in gradients.items()
        }
        taken: dict[Any, list[Any]] = {key: [] for key in processes}
        for _ in range(rounds):
            for key, process in processes.items():
                assert process.stdin is not None
                print(file=process.stdin, flush=True)
                taken[key].append(answer(process))
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
    report(shape, taken, apart)
    if not all(each <= AGREE for each in apart.values()):
        sys.exit(f"error: hypergradients differ by more than {AGREE:g}")


def report(shape: Any, taken: dict[Any, list[Any]], apart: dict[Any, float]) -> None:
    """Prints medians, and ratios to bergson's."""
    of = {
        key: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for key, rows in taken.items()
    }
    default, accumulated = of["bergson", "default"], of["bergson", "accumulated"]
    print(f"\nT = {shape.steps}, {shape.batch} x {shape.sequence} tokens; {THREADS} threads\n")
    print("| | s | MiB | of bergson's default | of its accumulated | difference |")
    print("|---|---|---|---|---|---|")
    for (side, each), (seconds, grown) in of.items():
        ratios = [f"{seconds / s:.2f}, {grown / m:.2f}" for s, m in (default, accumulated)]
        off = f"{apart[side, each]:.1e}" if (side, each) in apart else ""
        print(
            f"| {side}, {each} | {seconds:.2f} | {grown / MIB:,.0f} |",
            " | ".join(ratios),
            f"| {off} |",
        )


def main() -> None:
    from metatune import bench
    from metatune.bench.sizes import Shape

    if sys.argv[1:2] == ["--serve"]:
        folder, name, gradient, shape = sys.argv[2:]
        serve(Path(folder), name, Shape(*json.loads(shape)), Path(gradient))
        return
    parser = argparse.ArgumentParser(usage=(__doc__ or "").split("usage: ")[1])
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--env", type=Path, default=Path("runs/bergson"))
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    python = environment(given.env)
    for steps in given.steps:
        vary = [f"batch={given.batch}", f"sequence={given.sequence}", f"steps={steps}"]
        (case,) = bench.cases(["5.3M"], vary)
        measure(case.shape, given.rounds, python)


if __name__ == "__main__":
    main()
