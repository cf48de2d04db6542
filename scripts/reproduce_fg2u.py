#!/usr/bin/env python3
"""(FG)²U in miniature: memory by horizon and by meta-parameters, error by directions, two phases.

memory  Peak of a process above that of the training alone, which ran before it.
error   Of the mean over b random directions, as a share of the hypergradient: by the theory
        √((N-1)/b) for Rademacher directions, √((N+1)/b) for Gaussian ones, √(N/b - 1) for
        orthogonal ones.
phases  Weights of groups of examples, half of which have wrong labels, and learning rates, tuned
        with Adam in equal compute, counted in plain inner steps: T + 3 W for a hypergradient
        truncated to W steps, 4 T for an exact one, (1 + 2 b) T along b directions.

Source: Shen et al., Memory-Efficient Gradient Unrolling for Large-Scale Bi-level Optimization,
2024.

usage: reproduce_fg2u.py [--quick] [--json FILE] [--picture FILE.svg]
"""

import argparse
import json
import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metatune.fit.process.compilation import keep_compiled
from metatune.hypergrad import (
    Forward,
    ForwardGradient,
    MixFlow,
    Problem,
    State,
    hypergradient,
    train,
)
from metatune.report.pictures.panels import Curve, Panel, line_chart

MIB = 2**20
INPUTS, CLASSES = 32, 8
ADAM = optax.scale_by_adam(eps_root=1e-12)

WIDE, SEGMENT = 384, 8
HORIZONS, SIZES = (16, 64, 256), (4, 16, 64)
USUAL_STEPS, USUAL_SIZE = 64, 16
ESTIMATORS: dict[str, Any] = {
    "ForwardGradient, 8 directions": ForwardGradient(8, SEGMENT),
    "Forward": Forward(SEGMENT),
    "MixFlow, all states kept": MixFlow(SEGMENT),
}

ERROR_STEPS, ERROR_SIZE = 32, 32
COUNTS = (1, 2, 4, 8, 16, 31)

PHASE_STEPS, WINDOW, RATE_WINDOWS, GROUPS, DIRECTIONS = 100, 10, 10, 64, 8
BATCH, OUTER_RATE = 32, 0.1
TEACHER = np.random.default_rng(0).normal(size=(INPUTS, CLASSES))


def initialise(width: int, key: jax.Array) -> State:
    """A perceptron with two hidden layers, about width² parameters, and Adam's moments."""
    shapes = (INPUTS, width), (width, width), (width, CLASSES)
    keys = jax.random.split(key, len(shapes))
    params = [
        jax.random.normal(key, shape) / shape[0] ** 0.5
        for key, shape in zip(keys, shapes, strict=True)
    ]
    return State(params, ADAM.init(params))


def losses(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Of each example."""
    for layer in params[:-1]:
        inputs = jnp.tanh(inputs @ layer)
    return -jnp.take_along_axis(jax.nn.log_softmax(inputs @ params[-1]), labels[:, None], 1)[:, 0]


def loss(params: Any, hyper: Any, batch: Any) -> jax.Array:
    inputs, labels, groups = batch
    return jnp.mean(losses(params, inputs, labels) * hyper["weights"][groups])


def update(grads: Any, opt_state: Any, params: Any, hyper: Any) -> tuple[Any, Any]:
    updates, opt_state = ADAM.update(grads, opt_state)
    return jax.tree.map(lambda p, u: p - hyper["rate"] * u, params, updates), opt_state


def objective(params: Any, batch: Any) -> jax.Array:
    inputs, labels, _ = batch
    return jnp.mean(losses(params, inputs, labels))


def problem(steps: int) -> Problem:
    """η: log rates of equal windows, and logits of the weights, which are one in the mean."""

    def hyper_at(eta: Any, step: jax.Array) -> Any:
        rates, logits = eta["rates"], eta["logits"]
        weights = len(logits) * jax.nn.softmax(logits)
        return {"rate": jnp.exp(rates[step * len(rates) // steps]), "weights": weights}

    return Problem(loss, update, objective, hyper_at)


def examples(key: jax.Array, count: int, groups: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Inputs, labels of a linear teacher, wrong ones in odd groups, and groups."""
    first, second, third = jax.random.split(key, 3)
    inputs = jax.random.normal(first, (count, INPUTS))
    right = jnp.argmax(inputs @ jnp.asarray(TEACHER, inputs.dtype), axis=1)
    wrong = jax.random.randint(second, (count,), 0, CLASSES)
    group = jax.random.randint(third, (count,), 0, groups)
    return inputs, jnp.where(group % 2 == 1, wrong, right), group


def memory(name: str, steps: int, size: int) -> int:
    """Bytes that one hypergradient of `size` rates takes on top, in a process of its own."""
    eta = {"rates": jnp.full(size, -7.0), "logits": jnp.zeros(1)}
    every = [jax.tree.map(np.asarray, examples(jax.random.key(i), BATCH, 1)) for i in range(steps)]
    state, training = initialise(WIDE, jax.random.key(0)), problem(steps)

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    common: dict[str, Any] = {"steps": steps}
    plain = train(training, eta, state, every.__getitem__, segment=SEGMENT, **common)
    before = peak() if jax.block_until_ready(plain) else 0
    found = hypergradient(
        training,
        eta,
        state,
        every.__getitem__,
        [every[0]],
        estimator=ESTIMATORS[name],
        key=jax.random.key(1),
        **common,
    )
    jax.block_until_ready(found)
    return peak() - before


def memories(horizons: tuple[int, ...], sizes: tuple[int, ...]) -> dict[str, dict[str, list[int]]]:
    """By horizon and by number of meta-parameters."""
    cases = [(steps, USUAL_SIZE) for steps in horizons] + [(USUAL_STEPS, n) for n in sizes]
    spawn, found = multiprocessing.get_context("spawn"), {}
    for name in ESTIMATORS:
        for case in dict.fromkeys(cases):
            with ProcessPoolExecutor(1, mp_context=spawn) as process:
                found[name, *case] = process.submit(memory, name, *case).result()
    return {
        name: {
            "T": [found[name, steps, USUAL_SIZE] for steps in horizons],
            "N": [found[name, USUAL_STEPS, size] for size in sizes],
        }
        for name in ESTIMATORS
    }


def relative_errors(draws: int) -> dict[str, list[float]]:
    """Of each distribution and number of directions, the root of the mean square over draws."""
    batches = [examples(jax.random.key(step), BATCH, 1) for step in range(ERROR_STEPS)]
    # A single logit of the weights acts on nothing: N counts it, its derivative is zero.
    size = ERROR_SIZE - 1
    eta = {"rates": jnp.linspace(-3.0, -5.0, size), "logits": jnp.zeros(1)}
    common: dict[str, Any] = {"steps": ERROR_STEPS}
    given = problem(ERROR_STEPS), eta, initialise(16, jax.random.key(0)), batches.__getitem__
    held_out = [examples(jax.random.key(99), 256, 1)]

    def rates(key: jax.Array, estimator: Any) -> jax.Array:
        found = hypergradient(*given, held_out, estimator=estimator, key=key, **common)
        return jnp.concatenate([found.gradient["rates"], found.gradient["logits"]])

    exact = rates(jax.random.key(0), MixFlow(ERROR_STEPS))
    found = {}
    for distribution in ("rademacher", "gaussian", "orthogonal"):
        found[distribution] = []
        for count in COUNTS:
            estimator = ForwardGradient(count, ERROR_STEPS, distribution)
            draw = jax.jit(partial(jax.lax.map, partial(rates, estimator=estimator), batch_size=32))
            gaps = draw(jax.random.split(jax.random.key(count), draws)) - exact[None]
            found[distribution].append(float(jnp.linalg.norm(gaps) / jnp.linalg.norm(exact)))
        found[distribution] = [error / draws**0.5 for error in found[distribution]]
    return found


def theory(distribution: str, count: int) -> float:
    """The relative error that a distribution has."""
    n = ERROR_SIZE
    squared = {"rademacher": (n - 1) / count, "gaussian": (n + 1) / count}
    return squared.get(distribution, n / count - 1) ** 0.5


class Phase(NamedTuple):
    """Outer steps of one estimator; what a hypergradient costs is counted in plain inner steps."""

    estimator: Any
    window: int | None
    cost: float


TRUNCATED = Phase(MixFlow(PHASE_STEPS), WINDOW, PHASE_STEPS + 3 * WINDOW)
ALONG = Phase(ForwardGradient(DIRECTIONS, PHASE_STEPS), None, (1 + 2 * DIRECTIONS) * PHASE_STEPS)
EXACT = Phase(MixFlow(PHASE_STEPS), None, 4 * PHASE_STEPS)


def tune(phases: list[tuple[Phase, int]], seeds: int) -> tuple[list[float], list[float]]:
    """Outer steps of phases, one after the other: costs, and mean test losses over seeds."""
    optimizer = optax.adam(OUTER_RATE)
    training = problem(PHASE_STEPS)
    held_out, test = (examples(jax.random.key(key), 1000, 1) for key in (1, 2))
    pool = examples(jax.random.key(0), 2000, GROUPS)

    def batches(key: jax.Array) -> Callable[[int], Any]:
        chosen = jax.random.randint(key, (PHASE_STEPS, BATCH), 0, len(pool[0]))
        return lambda step: tuple(part[chosen[step]] for part in pool)

    def step(phase: Phase, carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        eta, opt_state = carry
        first, second, third = jax.random.split(key, 3)
        found = hypergradient(
            training,
            eta,
            initialise(16, first),
            batches(second),
            [held_out],
            steps=PHASE_STEPS,
            window=phase.window,
            estimator=phase.estimator,
            key=third,
        )
        updates, opt_state = optimizer.update(found.gradient, opt_state)
        return (optax.apply_updates(eta, updates), opt_state), objective(found.state.params, test)

    keys = jax.random.split(jax.random.key(3), seeds)
    eta = {"rates": jnp.full(RATE_WINDOWS, -7.0), "logits": jnp.zeros(GROUPS)}
    start = eta, optimizer.init(eta)
    carry = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * seeds), start)
    cost, costs, seen, done = 0.0, [], [], 0
    for phase, count in phases:
        run = jax.jit(jax.vmap(partial(step, phase)))
        for _ in range(count):
            carry, losses = run(carry, jax.vmap(jax.random.fold_in, (0, None))(keys, done))
            done += 1
            # The loss belongs to the η before the step.
            costs.append(cost)
            seen.append(float(losses.mean()))
            cost += phase.cost
    return costs, seen


SCHEDULES: dict[str, list[tuple[Phase, int]]] = {
    f"{DIRECTIONS} directions": [(ALONG, 60)],
    f"truncated to {WINDOW} steps": [(TRUNCATED, 150)],
    f"truncated, then {DIRECTIONS} directions": [(TRUNCATED, 40), (ALONG, 56)],
    "exact (MixFlow)": [(EXACT, 120)],
}
LAST = 10
"""Outer steps whose mean is the end of a search."""


def print_memory(found: dict[str, dict[str, list[int]]], axes: dict[str, tuple[int, ...]]) -> None:
    heads = [f"{axis} = {value}" for axis, values in axes.items() for value in values]
    print(f"MiB above plain training; else T = {USUAL_STEPS}, N = {USUAL_SIZE}")
    print(f"| | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name, rows in found.items():
        cells = [f"{size / MIB:.0f}" for axis in axes for size in rows[axis]]
        print(f"| {name} | {' | '.join(cells)} |")
    print(flush=True)


def print_errors(found: dict[str, list[float]]) -> None:
    print(f"Relative error, N = {ERROR_SIZE}: measured, and measured / theory")
    print(f"| b | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for place, count in enumerate(COUNTS):
        cells = [
            f"{errors[place]:.3f} ({errors[place] / theory(name, count):.2f})"
            for name, errors in found.items()
        ]
        print(f"| {count} | {' | '.join(cells)} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer cases, draws and seeds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    keep_compiled()
    ends = slice(0, 2) if given.quick else slice(None)
    axes = {"T": HORIZONS[ends], "N": SIZES[ends]}
    held = memories(axes["T"], axes["N"])
    print_memory(held, axes)
    errors = relative_errors(50 if given.quick else 400)
    print_errors(errors)
    searches = {}
    print("| search | outer steps | plain inner steps | test loss at the start | at the end |")
    print("|---|---|---|---|---|")
    for name, phases in SCHEDULES.items():
        costs, seen = searches[name] = tune(phases, 1 if given.quick else 3)
        end = np.mean(seen[-LAST:])
        print(
            f"| {name} | {len(seen)} | {costs[-1]:,.0f} | {seen[0]:.3f} | {end:.3f} |", flush=True
        )
    if given.json:
        numbers = {"axes": axes, "bytes": held, "counts": COUNTS, "relative_errors": errors}
        text = json.dumps({**numbers, "phases": searches}, indent=1)
        given.json.write_text(text + "\n", encoding="utf-8")
    if given.picture:
        given.picture.write_text(picture(held, axes, errors, searches), encoding="utf-8")


def picture(
    held: dict[str, dict[str, list[int]]],
    axes: dict[str, tuple[int, ...]],
    errors: dict[str, list[float]],
    searches: dict[str, tuple[list[float], list[float]]],
) -> str:
    """All of it as one SVG."""
    by_horizon, by_size = (
        {
            name: Curve(values, [max(size, MIB) / MIB for size in rows[axis]])
            for name, rows in held.items()
        }
        for axis, values in axes.items()
    )
    expected = [theory("rademacher", count) for count in COUNTS]
    law = {
        "Rademacher, measured": Curve(COUNTS, errors["rademacher"]),
        "√((N-1)/b)": Curve(COUNTS, expected, theory=True),
    }
    progress = {
        name: Curve(costs[1:], seen[1:], stairs=True) for name, (costs, seen) in searches.items()
    }
    return line_chart(
        "Gradients along random directions",
        [
            Panel("MiB on top of training", "inner steps T", by_horizon, True, True),
            Panel("MiB on top of training", "meta-parameters N", by_size, True, True),
            Panel("Relative error", "directions b", law, True, True),
            Panel("Test loss", "plain inner steps", progress, True),
        ],
        f"Memory at N = {USUAL_SIZE}, and at T = {USUAL_STEPS}; below 1 MiB it is drawn as that. "
        f"Error at N = {ERROR_SIZE}. Tuning in the mean of the seeds.",
    )


if __name__ == "__main__":
    main()
