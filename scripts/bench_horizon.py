#!/usr/bin/env python3
"""What a longer horizon costs: peak memory, and time per inner step, of an exact hypergradient.

Trains a multilayer perceptron with Adam on made-up data and differentiates through all of it, once
for each horizon, each in a process of its own: memory is the most that the process ever had. Times
are taken when everything is compiled; CPU time (of all threads) is the one to compare on a machine
that does other work too.

usage: bench_horizon.py [STEPS ...] [--policy P] [--slots S] [--store device|host|disk] ...
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metatune.fit.process.allocation import keep_memory
from metatune.hypergrad import Checkpoints, MixFlow, Problem, State, hypergradient

INPUTS, OUTPUTS, WINDOWS = 64, 16, 10
MIB = 2**20


def parameters(width: int) -> dict[str, jax.Array]:
    """Two hidden layers: about width² parameters."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"in": (INPUTS, width), "hidden": (width, width), "out": (width, OUTPUTS)}
    return {
        name: jax.random.normal(key, shape) / shape[0] ** 0.5
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def training(steps: int) -> tuple[Problem, optax.GradientTransformation]:
    """Adam, whose log learning rates in ten windows of the training are η."""
    adam = optax.scale_by_adam(eps_root=1e-12)

    def loss(params: Any, hyper: Any, batch: Any) -> jax.Array:
        hidden = jnp.tanh(batch["x"] @ params["in"])
        hidden = jnp.tanh(hidden @ params["hidden"])
        return jnp.mean((hidden @ params["out"] - batch["y"]) ** 2)

    def update(grads: Any, opt_state: Any, params: Any, rate: Any) -> Any:
        updates, opt_state = adam.update(grads, opt_state)
        return jax.tree.map(lambda p, u: p - rate * u, params, updates), opt_state

    def rate_at(eta: Any, step: jax.Array) -> jax.Array:
        return jnp.exp(eta[step * WINDOWS // steps])

    return Problem(loss, update, lambda params, batch: loss(params, None, batch), rate_at), adam


def batch_at(step: int, size: int) -> dict[str, np.ndarray]:
    """A noisy linear map; a pure function of the step."""
    rng = np.random.default_rng([1, step])
    x = rng.standard_normal((size, INPUTS), np.float32)
    noise = rng.standard_normal((size, OUTPUTS), np.float32)
    return {"x": x, "y": np.sin(x[:, :OUTPUTS]) + 0.1 * noise}


def measure(given: argparse.Namespace, steps: int) -> dict[str, float]:
    """One horizon, in this process."""
    keep_memory()
    problem, adam = training(steps)
    params = parameters(given.width)
    state = State(params, adam.init(params))
    eta = jnp.full(WINDOWS, np.log(1e-3))
    estimator = MixFlow(
        given.segment,
        save_gradients=given.save_gradients,
        gradient_dtype=given.gradient_dtype,
    )
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        scratch = Path(folder) if given.store == "disk" else None
        policy = int(given.policy) if given.policy.isdigit() else given.policy
        checkpoints = Checkpoints(policy, given.slots, given.store, scratch)

        def estimate(steps: int) -> Any:
            result = hypergradient(
                problem,
                eta,
                state,
                lambda step: batch_at(step, given.batch_size),
                [batch_at(steps + 10**6, 512)],
                steps=steps,
                estimator=estimator,
                checkpoints=checkpoints,
            )
            return jax.block_until_ready(result)

        estimate(given.segment)  # compiles all that any horizon needs
        began, worked = time.perf_counter(), time.process_time()
        result = estimate(steps)
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
    return {
        "steps": steps,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": seconds,
        "cpu_seconds": worked,
        "norm": float(jnp.linalg.norm(result.gradient)),
        "peak_states": result.diagnostics.peak_states,
        "peak_bytes": result.diagnostics.peak_bytes,
        "recomputed": result.diagnostics.recomputed_segments,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("steps", nargs="*", type=int, default=[100, 10_000])
    parser.add_argument("--policy", default="sqrt")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--store", default="host")
    parser.add_argument("--folder", help="where the store `disk` writes")
    parser.add_argument("--segment", type=int, default=10)
    parser.add_argument("--width", type=int, default=960)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--save-gradients", action="store_true")
    parser.add_argument("--gradient-dtype", choices=["bfloat16"])
    given = parser.parse_args()
    print(f"{given.policy}, {given.store}; segments of {given.segment} steps")
    print(
        f"{'steps':>7} {'peak RSS, MiB':>14} {'ms a step':>10} {'CPU ms':>7} {'kept':>5} "
        f"{'store, MiB':>11} {'run again':>10} {'|dF/d log rates|':>17}"
    )
    spawn = multiprocessing.get_context("spawn")
    rows = []
    for steps in given.steps:
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            row = process.submit(measure, given, steps).result()
        rows.append(row)
        print(
            f"{steps:7} {row['peak_rss'] / MIB:14.0f} {row['seconds'] / steps * 1e3:10.2f} "
            f"{row['cpu_seconds'] / steps * 1e3:7.2f} {row['peak_states']:5} "
            f"{row['peak_bytes'] / MIB:11.0f} {row['recomputed']:10} {row['norm']:17.4g}",
            flush=True,
        )
    first, last = rows[0], rows[-1]
    wall, cpu = (
        last[clock] / last["steps"] / (first[clock] / first["steps"])
        for clock in ("seconds", "cpu_seconds")
    )
    growth = (last["peak_rss"] - first["peak_rss"]) / MIB
    print(
        f"{first['parameters']} parameters: {growth:+.0f} MiB, {wall:.2f}x time and {cpu:.2f}x CPU "
        "time per inner step"
    )


if __name__ == "__main__":
    main()
