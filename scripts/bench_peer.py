#!/usr/bin/env python3
"""MixFlow beside a PyTorch peer: time and memory of a hypergradient, and of a plain step.

The peer is what one would write in PyTorch: `torch.func.functional_call` on transformers' own
Llama (eager attention), Adam written out so that it is differentiable, the state before every
inner step kept, and the backward sweep one step at a time, each replayed and differentiated twice.
Both sides get the same weights, batches and meta-parameters (a log rate for each tensor, a log
weight for each example), and their hypergradients are compared.

Every contender is a process of its own on the same two threads. They take turns; the least time
counts. Memory is the peak of a process's resident memory while it works, once what compiling left
has been given back, less that of plain training on the same side.

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

THREADS = 2
MIB = 2**20
AGREE = 1e-3
"""Relative difference of two hypergradients in float32 whose sums run in other orders."""

Jobs = dict[str, Callable[[], Any]]
Given = dict[str, np.ndarray]


class Contender(NamedTuple):
    """A process.

    Attributes:
        side: `jax` or `torch`.
        remat: whether each block is recomputed in the backward pass.
        hypergradient: whether that is its job; plain steps otherwise.
    """

    side: str
    remat: bool
    hypergradient: bool

    @property
    def name(self) -> str:
        """Such as `jax, block remat`."""
        return self.side + (", block remat" if self.remat else "")


CONTENDERS = [
    Contender("jax", False, False),
    Contender("jax", True, False),
    Contender("torch", False, False),
    Contender("torch", True, False),
    Contender("jax", False, True),
    Contender("jax", True, True),
    # No block remat: PyTorch recomputes blocks after `functional_call` took its parameters away.
    Contender("torch", False, True),
]


def jax_problem(shape: Any, given: Given, remat: bool) -> tuple[Any, ...]:
    """Our model's parameter names, the training, η and the state, with the given weights."""
    import jax
    import jax.numpy as jnp

    from metatune.bench import workload
    from metatune.hypergrad import State

    model = workload.llama(shape, remat=remat, chunks=False)
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

    _, problem, eta, state = jax_problem(shape, given, contender.remat)
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

    names, problem, eta, state = jax_problem(shape, given, contender.remat)
    *inner, outer = (jnp.asarray(batch) for batch in given["tokens"])
    variant = Variant(mixed=True, remat=contender.remat, chunks=False, saved=True)

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


def torch_model(shape: Any, given: Given) -> Any:
    """Transformers' Llama with the given weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.sequence,
        tie_word_embeddings=shape.tied,
        attn_implementation="eager",
        use_cache=False,
    )
    model = LlamaForCausalLM(config).train()  # nothing is dropped; blocks may be recomputed
    weights = {name: torch.from_numpy(given[name]) for name, _ in model.named_parameters()}
    model.load_state_dict(weights, strict=not shape.tied)
    return model


def torch_losses(model: Callable[[Any], Any], tokens: Any) -> Any:
    """Mean next-token loss of each sequence."""
    from torch.nn.functional import cross_entropy

    logits = model(tokens[:, :-1]).logits
    flat = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return flat.view(len(tokens), -1).mean(-1)


def torch_plain(shape: Any, given: Given, contender: Contender) -> Jobs:
    """Plain steps, as anyone takes them."""
    import torch

    torch.set_num_threads(THREADS)
    model = torch_model(shape, given)
    if contender.remat:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    params = list(model.parameters())
    inner = [torch.from_numpy(batch).long() for batch in given["tokens"][:-1]]
    weights = torch.ones(shape.batch)
    adam = torch.optim.Adam(params, lr=1e-3)

    def gradient(batch: Any = inner[0]) -> Any:
        return torch.autograd.grad((weights * torch_losses(model, batch)).mean(), params)

    def train() -> None:
        for batch in inner:
            for param, grad in zip(params, gradient(batch), strict=True):
                param.grad = grad
            adam.step()
            adam.zero_grad()

    return {"gradient": gradient, "training": train}


def torch_adam(state: tuple, grads: Any, log_rates: Any, count: int) -> tuple:
    """`optax.scale_by_adam(eps_root=1e-8)` and a rate for each tensor, differentiable."""
    after: tuple[list, list, list] = ([], [], [])
    for p, m, v, g, log_rate in zip(*state, grads, log_rates, strict=True):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        direction = m / (1 - 0.9**count) / ((v / (1 - 0.999**count) + 1e-8).sqrt() + 1e-8)
        for kept, value in zip(after, (p - log_rate.exp() * direction, m, v), strict=True):
            kept.append(value)
    return after


def torch_hypergradient(shape: Any, given: Given, contender: Contender) -> Jobs:
    """The peer."""
    import torch
    from torch.func import functional_call

    from metatune.bench.workload import LEARNING_RATE

    del contender
    torch.set_num_threads(THREADS)
    model = torch_model(shape, given)
    names = [name for name, _ in model.named_parameters()]
    start = [param.detach() for param in model.parameters()]
    *inner, outer = (torch.from_numpy(batch).long() for batch in given["tokens"])
    log_rates = [torch.full((), float(np.log(LEARNING_RATE))) for _ in names]

    def losses(params: list, tokens: Any) -> Any:
        named = dict(zip(names, params, strict=True))
        return torch_losses(lambda inputs: functional_call(model, named, (inputs,)), tokens)

    def weighted(params: list, log_weights: Any, tokens: Any) -> Any:
        return (log_weights.exp() * losses(params, tokens)).mean()

    def fresh(tensors: list) -> list:
        return [tensor.detach().requires_grad_() for tensor in tensors]

    def estimate() -> Given:
        rates, weights = fresh(log_rates), torch.zeros(shape.batch, requires_grad=True)
        state = (start, *([torch.zeros_like(p) for p in start] for _ in range(2)))
        before = []
        for step, batch in enumerate(inner):
            before.append(state)
            params = fresh(state[0])
            grads = torch.autograd.grad(weighted(params, weights, batch), params)
            with torch.no_grad():
                state = torch_adam(state, grads, rates, step + 1)
        params = fresh(state[0])
        adjoint = [*torch.autograd.grad(losses(params, outer).mean(), params)]
        adjoint += [torch.zeros_like(p) for p in (*params, *params)]
        eta_bar = [torch.zeros_like(leaf) for leaf in (*rates, weights)]
        del state, params
        for step in reversed(range(len(inner))):
            params, m, v = map(fresh, before.pop())
            loss = weighted(params, weights, inner[step])
            grads = torch.autograd.grad(loss, params, create_graph=True)
            after = torch_adam((params, m, v), grads, rates, step + 1)
            flat = [leaf for part in after for leaf in part]
            pulled = torch.autograd.grad(flat, [*params, *m, *v, *rates, weights], adjoint)
            adjoint = list(pulled[: len(flat)])
            eta_bar = [a + b for a, b in zip(eta_bar, pulled[len(flat) :], strict=True)]
            del loss, grads, after, flat, pulled
        rates_bar = zip(names, eta_bar[:-1], strict=True)
        return {**{name: bar.numpy() for name, bar in rates_bar}, "weights": eta_bar[-1].numpy()}

    return {"hypergradient": estimate}


JOBS = {
    ("jax", False): jax_plain,
    ("jax", True): jax_hypergradient,
    ("torch", False): torch_plain,
    ("torch", True): torch_hypergradient,
}
"""What makes a contender's jobs, by its side and whether hypergradients are among them."""


def reset_peak() -> None:
    """Gives back what is free, and forgets the peak of resident memory so far."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The peak of this process's resident memory since it was forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def work(shape: tuple, folder: Path, contender: Contender, line: Connection) -> None:
    """A process: does its jobs once, then again whenever told to, and answers times and peaks."""
    from metatune.bench import Shape

    with np.load(folder / "given.npz") as stored:
        given = dict(stored)
    jobs = JOBS[contender.side, contender.hypergradient](Shape(*shape), given, contender)
    for job in jobs.values():
        first = job()  # compiles
    line.send(first if contender.hypergradient else None)
    while line.recv():
        answer = {}
        for name, job in jobs.items():
            reset_peak()
            began = time.perf_counter()
            job()
            answer[name] = (time.perf_counter() - began, peak_bytes())
        line.send(answer)


def prepare(shape: Any, folder: Path, line: Connection) -> None:
    """A process: makes weights under their checkpoint names, and tokens."""
    import jax

    from metatune.bench import workload

    _, state, tokens, outer = workload.initial(shape, jax.random.key(0))
    names = workload.llama(shape, remat=False, chunks=False).names()
    given = {"tokens": np.concatenate([tokens, outer[None]])}
    for leaf, param in zip(jax.tree.leaves(names), jax.tree.leaves(state.params), strict=True):
        tensors = np.asarray(param) if leaf.stacked else [np.asarray(param)]
        given |= dict(zip(leaf.names, tensors, strict=True))
    np.savez(folder / "given.npz", **given)
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
        sys.exit(f"error: {error}")
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    best, found = measure(case.shape, given.rounds)
    report(case, best, found, given.json)


def report(case: Any, best: dict, found: dict, path: Path | None) -> None:
    """Prints the tables and writes them; ends the process if the hypergradients differ."""
    peer = next(c for c in found if c.side == "torch")
    rows = []
    for contender, jobs in best.items():
        # Plain training of the same side, its blocks recomputed or not as here.
        plain = best[contender._replace(hypergradient=False)]["training"]
        for job, (seconds, peak) in jobs.items():
            row = {"contender": contender.name, "job": job, "seconds": seconds, "peak_rss": peak}
            if job == "training":
                row["seconds"] = seconds / case.shape.steps
            if job == "hypergradient":
                row["peak_over_plain"] = peak - plain[1]
                row["plain_steps_per_step"] = seconds / plain[0]
                row["difference_from_torch"] = difference(found[contender], found[peer])
            rows.append(row)
    print(f"{case}; {THREADS} threads\n")
    print("| | gradient, s | with update, s | peak RSS, MiB |")
    print("|---|---|---|---|")
    for contender, jobs in best.items():
        if not contender.hypergradient:
            update, peak = jobs["training"]
            print(
                f"| {contender.name} | {jobs['gradient'][0]:.3f} | {update / case.shape.steps:.3f} "
                f"| {peak / MIB:,.0f} |"
            )
    print(
        "\n| hypergradient | s | of the peer's | plain steps per inner step | "
        "peak RSS over plain training, MiB | of the peer's | difference |"
    )
    print("|---|---|---|---|---|---|---|")
    hyper = {row["contender"]: row for row in rows if row["job"] == "hypergradient"}
    theirs = hyper[peer.name]
    for name, row in hyper.items():
        print(
            f"| {name} | {row['seconds']:.2f} | {row['seconds'] / theirs['seconds']:.2f} | "
            f"{row['plain_steps_per_step']:.2f} | {row['peak_over_plain'] / MIB:,.0f} | "
            f"{row['peak_over_plain'] / theirs['peak_over_plain']:.2f} | "
            f"{row['difference_from_torch']:.1e} |"
        )
    if path is not None:
        path.write_text(json.dumps({"case": str(case), "rows": rows}, indent=1) + "\n")
    if not all(row["difference_from_torch"] <= AGREE for row in hyper.values()):
        sys.exit(f"error: the hypergradients differ by more than {AGREE:g}")


if __name__ == "__main__":
    main()
