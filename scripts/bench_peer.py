#!/usr/bin/env python3
"""MixFlow beside a PyTorch peer: time and memory of a hypergradient, and of a plain step.

The peer is what one would write in PyTorch (`torch_peer.py` beside this file). Both sides get the
same weights, batches and meta-parameters (a log rate for each tensor, a log weight for each
example), and their hypergradients are compared.

Every contender is a process of its own on the same two threads. They take turns; the least time
counts. Memory is the peak of a process's resident memory while it works, once what compiling left
has been given back, less that of plain training on the same side. Times are taken in other runs, in
which both sides keep what they freed (`metatune.fit.process.allocation`), as `metatune fit` does.

usage: bench_peer.py [--size SIZE] [--batch B] [--sequence S] [--steps T] [--rounds N] [--json FILE]
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

THREADS = 2
MIB = 2**20
ANSWER = "answer: "
"""Begins a line of a process that is measured from outside."""
AGREE = 1e-3
"""Relative difference of two hypergradients in float32 whose sums run in other orders."""

GIVEN = "given.safetensors"
Jobs = dict[str, Callable[[], Any]]
Given = dict[str, np.ndarray]


class Contender(NamedTuple):
    """A process.

    Attributes:
        side: `jax` or `torch`.
        remat: whether each block is recomputed in the backward pass.
        hypergradient: whether that is its job; plain steps otherwise.
        chunks: whether attention and loss are computed a chunk at a time.
    """

    side: str
    remat: bool
    hypergradient: bool
    chunks: bool = False

    @property
    def name(self) -> str:
        """Such as `jax, block remat`."""
        return self.side + ", block remat" * self.remat + ", chunks" * self.chunks


CONTENDERS = [
    Contender("jax", False, False),
    Contender("jax", True, False),
    Contender("torch", False, False),
    Contender("torch", True, False),
    Contender("jax", False, True),
    Contender("jax", True, True),
    Contender("jax", True, True, chunks=True),
    Contender("torch", False, True),
]


def jax_problem(shape: Any, given: Given, contender: Contender) -> tuple[Any, ...]:
    """Our model's parameter names, the training, η and the state, with the given weights."""
    import jax
    import jax.numpy as jnp

    from metatune.bench import workload
    from metatune.hypergrad import State

    model = workload.llama(shape, remat=contender.remat, chunks=contender.chunks)
    names = model.names()

    def stored(leaf: Any) -> jax.Array:
        arrays = [given[name] for name in leaf.names]
        return jnp.asarray(np.stack(arrays) if leaf.stacked else arrays[0])

    params = jax.tree.map(stored, names)
    state = State(params, workload.ADAM.init(params))
    return names, workload.training(model), workload.initial(shape, jax.random.key(0))[0], state


def jax_plain(shape: Any, given: Given, contender: Contender) -> Jobs:
    """Plain steps of ours."""
    import jax
    import jax.numpy as jnp

    from metatune.bench import workload

    _, problem, eta, state = jax_problem(shape, given, contender)
    batches = [jnp.asarray(batch) for batch in given["tokens"][:-1]]
    hyper = problem.hyper_at(eta, jnp.int32(0))
    gradient = jax.jit(jax.grad(problem.loss))
    step = jax.jit(workload.plain_step(shape, remat=contender.remat), donate_argnums=1)
    held = [state]

    def train() -> None:
        for batch in batches:
            held[0] = step(eta, held[0], batch)
        jax.block_until_ready(held[0])

    return {
        "gradient": lambda: jax.block_until_ready(gradient(held[0].params, hyper, batches[0])),
        "training": train,
    }


def jax_hypergradient(shape: Any, given: Given, contender: Contender) -> Jobs:
    """MixFlow, as `metatune fit` runs it."""
    import jax
    import jax.numpy as jnp

    from metatune.bench import Variant
    from metatune.hypergrad import hypergradient

    names, problem, eta, state = jax_problem(shape, given, contender)
    *inner, outer = (jnp.asarray(batch) for batch in given["tokens"])
    variant = Variant(mixed=True, remat=contender.remat, chunks=contender.chunks, saved=True)

    def estimate() -> Given:
        found = hypergradient(
            problem,
            eta,
            state,
            inner.__getitem__,
            [outer],
            steps=shape.steps,
            estimator=variant.estimator(shape.steps),
        ).gradient
        rates = zip(jax.tree.leaves(names), jax.tree.leaves(found["rates"]), strict=True)
        tensors = {
            name: value
            for leaf, rate in rates
            for name, value in zip(leaf.names, np.ravel(rate), strict=True)
        }
        return {**tensors, "weights": np.asarray(found["weights"])}

    return {"hypergradient": estimate}


def torch_jobs(shape: Any, given: Given, contender: Contender) -> Jobs:
    """What the peer does."""
    import torch
    import torch_peer

    from metatune.bench.workload import LEARNING_RATE

    torch.set_num_threads(THREADS)
    if contender.hypergradient:
        return torch_peer.hypergradient(shape, given, rate=LEARNING_RATE)
    return torch_peer.plain(shape, given, rate=LEARNING_RATE, remat=contender.remat)


def jax_jobs(shape: Any, given: Given, contender: Contender) -> Jobs:
    """What we do."""
    return (jax_hypergradient if contender.hypergradient else jax_plain)(shape, given, contender)


def reset_peak() -> None:
    """Gives back what is free, and forgets the peak of resident memory so far."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The peak of this process's resident memory since it was forgotten."""
    return _status("VmHWM")


def resident_bytes() -> int:
    """This process's resident memory now."""
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def work(shape: tuple, folder: Path, contender: Contender, line: Connection) -> None:
    """A process: does its jobs once, then again whenever told to, and answers times and peaks."""
    from metatune.bench import Shape
    from metatune.fit.process.allocation import keep_memory

    keep_memory()
    given = load_file(folder / GIVEN)
    make = {"jax": jax_jobs, "torch": torch_jobs}[contender.side]
    jobs = make(Shape(*shape), given, contender)
    first = {name: job() for name, job in jobs.items()}  # compiles
    line.send(first.get("hypergradient"))
    while line.recv():
        answer = {}
        for name, job in jobs.items():
            reset_peak()
            job()
            peak = peak_bytes()
            began = time.perf_counter()
            job()
            answer[name] = (time.perf_counter() - began, peak)
        line.send(answer)


def prepare(shape: Any, folder: Path, line: Connection) -> None:
    """A process: makes weights under their checkpoint names, and tokens."""
    import jax

    from metatune.bench import workload

    _, state, tokens, outer = workload.initial(shape, jax.random.key(0))
    names = workload.llama(shape, remat=False, chunks=False).names()
    given = {"tokens": np.concatenate([tokens, outer[None]])}
    for leaf, param in zip(jax.tree.leaves(names), jax.tree.leaves(state.params), strict=True):
        tensors = np.array(param) if leaf.stacked else [np.array(param)]
        given |= dict(zip(leaf.names, tensors, strict=True))
    save_file(given, folder / GIVEN)
    line.send(None)


def measure(shape: Any, rounds: int) -> tuple[dict, dict]:
    """The least time and highest peak of every job, and the hypergradients, by contender."""
    spawn = multiprocessing.get_context("spawn")
    best: dict[Contender, dict[str, tuple[float, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:

        def start(target: Callable, *arguments: Any) -> Connection:
            ours, theirs = spawn.Pipe()
            spawn.Process(target=target, args=(*arguments, theirs), daemon=True).start()
            theirs.close()
            return ours

        start(prepare, shape, Path(folder)).recv()
        lines, found = {}, {}
        for contender in CONTENDERS:  # one after the other, so that none compiles beside another
            lines[contender] = start(work, tuple(shape), Path(folder), contender)
            found[contender] = lines[contender].recv()
        for _ in range(rounds):
            for contender, line in lines.items():
                line.send(True)
                answer = line.recv()
                held = best.setdefault(contender, answer)
                best[contender] = {
                    job: (min(took, held[job][0]), max(peak, held[job][1]))
                    for job, (took, peak) in answer.items()
                }
        for line in lines.values():
            line.send(False)
    return best, {c: values for c, values in found.items() if c.hypergradient}


def difference(ours: Given, theirs: Given) -> float:
    """Norm of the difference of two hypergradients over the norm of the second one."""
    flat = [np.concatenate([np.ravel(given[name]) for name in theirs]) for given in (ours, theirs)]
    return float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1]))


def main() -> None:
    from metatune import bench
    from metatune.recipe.faults import RecipeError

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="5.3M")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    try:
        bench.writable(given.json, None)
        vary = [f"{axis}={getattr(given, axis)}" for axis in ("batch", "sequence", "steps")]
        (case,) = bench.cases([given.size], vary)
    except RecipeError as error:
        parser.error(str(error))
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    best, found = measure(case.shape, given.rounds)
    report(case, best, found, given.json)


def report(case: Any, best: dict, found: dict, path: Path | None) -> None:
    """Prints the tables and writes them; ends the process if the hypergradients differ."""
    steps, peer = case.shape.steps, next(c for c in found if c.side == "torch")
    plain, hyper = [], []
    for contender, jobs in best.items():
        # Plain training of the same side, its blocks recomputed or not as here.
        training, baseline = best[contender._replace(hypergradient=False, chunks=False)]["training"]
        row: dict[str, Any] = {"contender": contender.name}
        if contender.hypergradient:
            seconds, peak = jobs["hypergradient"]
            row |= {"seconds": seconds, "plain_steps_per_step": seconds / training}
            row |= {"bytes_over_plain_training": peak - baseline}
            row |= {"difference": difference(found[contender], found[peer])}
            hyper.append(row)
        else:
            row |= {"gradient_seconds": jobs["gradient"][0], "step_seconds": training / steps}
            plain.append(row | {"peak_bytes": baseline})
    print(f"{case}; {THREADS} threads\n\n| plain step | gradient, s | with update, s | peak MiB |")
    print("|---|---|---|---|")
    for row in plain:
        seconds = f"{row['gradient_seconds']:.3f} | {row['step_seconds']:.3f}"
        print(f"| {row['contender']} | {seconds} | {row['peak_bytes'] / MIB:,.0f} |")
    print("\n| hypergradient | s | of the peer's | plain steps per inner step |", end="")
    print(" MiB over plain training | of the peer's | difference |\n|---|---|---|---|---|---|---|")
    theirs = hyper[-1]
    for row in hyper:
        over, base = (r["bytes_over_plain_training"] for r in (row, theirs))
        print(
            f"| {row['contender']} | {row['seconds']:.2f} | "
            f"{row['seconds'] / theirs['seconds']:.2f} | {row['plain_steps_per_step']:.2f} | "
            f"{over / MIB:,.0f} | {over / base:.2f} | {row['difference']:.1e} |"
        )
    if path is not None:
        numbers = {"case": str(case), "plain": plain, "hypergradients": hyper}
        path.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    if not all(row["difference"] <= AGREE for row in hyper):
        sys.exit(f"error: the hypergradients differ by more than {AGREE:g}")


if __name__ == "__main__":
    main()
