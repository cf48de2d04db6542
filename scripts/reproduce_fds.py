#!/usr/bin/env python3
"""FDS in miniature: what sharing does to noise, and ten outer steps against black-box search.

The training: a perceptron with one hidden layer on images of digits, by SGD with momentum and
weight decay.

noise   Each inner step has a learning rate of its own. The hypergradients of many seeds have a mean
        (the truth) and noise; a rate that W steps share sees the mean of theirs. Its mean squared
        error is at most `(1 + c (W - 1)) / W MSE_1 + L² (W² - 1) / 12`, where c bounds the
        correlation between steps and L the drift of the truth in a step.
search  Five windows of the learning rate, momentum and weight decay, all from zero, by `Forward`
        and steps of the sign. Random search and Optuna's TPE draw the same seven numbers, on two
        scales, or three: one learning rate for all windows. Each search knows the held-out loss of
        single trainings; what counts is the loss on a third set of the best it has seen so far,
        over fresh seeds.

Source: Micaelli & Storkey, Gradient-based Hyperparameter Optimization Over Long Horizons, 2021,
theorem 3.1 and section 5.

usage: reproduce_fds.py [--quick] [--json FILE] [--picture FILE.svg]
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optuna
from PIL import Image, ImageDraw, ImageFont

from metatune.fit.process.compilation import keep_compiled
from metatune.fit.searching.outer_optimizers import sign_with_halving
from metatune.hypergrad import Forward, MixFlow, Problem, State, hypergradient, train
from metatune.hypergrad.segments import Segment, advance
from metatune.report.pictures.panels import Curve, Panel, line_chart

SIDE, HIDDEN, CLASSES = 12, 48, 10
EXAMPLES = {"train": 2000, "held out": 1000, "test": 2000}
BATCH = 32
FRESH = 10
"""Seeds of the trainings that count."""

NOISE_STEPS = 256
SHARED = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NOISE_RATE, NOISE_MOMENTUM = 0.1, 0.5
PER_STEP = MixFlow(64)

STEPS, WINDOWS, OUTER_STEPS = 500, 5, 10
FIRST_STEPS = {"rates": 0.1, "momentum": 0.1, "decay": 1e-3}
LARGEST = {"rates": 1.0, "momentum": 0.99, "decay": 1e-2}
SMALLEST = {"rates": 1e-3, "momentum": 0.0, "decay": 1e-5}
"""Of black-box search where it draws rates and weight decay log-uniformly; else from zero."""

DIVERGED = 1e3
Hyper = dict[str, Any]


class Space(NamedTuple):
    """What black-box search draws: so many numbers, rates and decay on a logarithmic scale or not.

    The best are near the upper ends, where uniform draws mostly are and log-uniform ones seldom.
    """

    dimensions: int
    log: bool

    def __str__(self) -> str:
        """In a table."""
        return f"{self.dimensions} numbers, {'log-uniform' if self.log else 'uniform'}"


SPACES = Space(WINDOWS + 2, False), Space(WINDOWS + 2, True), Space(3, True)


@cache
def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Digits of many sizes, moved, turned and noisy: images [n, pixels] and labels [n]."""
    rng, count = np.random.default_rng(list(EXAMPLES).index(split)), EXAMPLES[split]
    labels = rng.integers(0, CLASSES, count)
    fonts = [ImageFont.load_default(size=size) for size in range(9, 15)]
    images, edge = np.zeros((count, SIDE, SIDE)), SIDE // 2
    for image, label in zip(images, labels, strict=True):
        paper = Image.new("L", (2 * SIDE, 2 * SIDE))
        place, font = SIDE + rng.uniform(-1, 1, 2), fonts[rng.integers(len(fonts))]
        ImageDraw.Draw(paper).text(tuple(place), str(label), 255, font, anchor="mm")
        turned = paper.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)
        image[:] = np.asarray(turned)[edge : edge + SIDE, edge : edge + SIDE] / 255
    images += 0.2 * rng.normal(size=images.shape)
    images = (images - images.mean()) / images.std()
    return images.reshape(count, -1).astype(np.float32), labels.astype(np.int32)


def initialise(key: jax.Array) -> State:
    """Random parameters, and no velocity."""
    first, second = jax.random.split(key)
    params = {
        "in": jax.random.normal(first, (SIDE**2, HIDDEN)) / SIDE,
        "hidden": jnp.zeros(HIDDEN),
        "out": jax.random.normal(second, (HIDDEN, CLASSES)) / HIDDEN**0.5,
        "classes": jnp.zeros(CLASSES),
    }
    return State(params, jax.tree.map(jnp.zeros_like, params))


def cross_entropy(params: Any, batch: Any) -> jax.Array:
    images, labels = batch
    hidden = jnp.tanh(images @ params["in"] + params["hidden"][None])
    scores = jax.nn.log_softmax(hidden @ params["out"] + params["classes"][None])
    return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))


def descend(grads: Any, velocity: Any, params: Any, hyper: Hyper) -> tuple[Any, Any]:
    """SGD with momentum, and weight decay in the gradient."""
    velocity = jax.tree.map(
        lambda g, v, p: hyper["momentum"] * v + g + hyper["decay"] * p, grads, velocity, params
    )
    moved = jax.tree.map(lambda p, v: p - hyper["rate"] * v, params, velocity)
    return moved, velocity


def training(hyper_at: Callable[[Any, jax.Array], Hyper]) -> Problem:
    """A training on digits whose batches are indices of examples."""

    def loss(data: Any, params: Any, hyper: Hyper, batch: jax.Array) -> jax.Array:
        return cross_entropy(params, [jnp.asarray(part)[batch] for part in data])

    bound = jax.tree_util.Partial(loss, digits("train"))
    return Problem(bound, descend, cross_entropy, hyper_at)


def drawn(key: jax.Array, steps: int) -> tuple[State, jax.Array]:
    """The state that a seed begins with, and its examples, [steps, batch]."""
    first, second = jax.random.split(key)
    return initialise(first), jax.random.randint(second, (steps, BATCH), 0, EXAMPLES["train"])


class Noise(NamedTuple):
    """What sharing does; lists hold a number for each of `SHARED`.

    Attributes:
        measured: mean squared error of the shared hypergradients.
        bound: with the largest correlation and the largest drift.
        expected: with the mean correlation and the mean drift.
        correlations: c: the largest mean over pairs equally far apart, and the mean of all pairs.
        drifts: L: the largest, with what noise is left in it, and the slope of a line that varies
            as much as the truth.
        sharing_error: of `Forward` over windows of 32 steps against means of single steps', as a
            share of their norm.
    """

    measured: list[float]
    bound: list[float]
    expected: list[float]
    correlations: tuple[float, float]
    drifts: tuple[float, float]
    sharing_error: float


def noise(seeds: int) -> Noise:
    """Hypergradients of a rate for each inner step, over seeds: half for the truth, half for noise.

    Reverse mode gives them all in one sweep.
    """
    schedule = optax.cosine_decay_schedule(NOISE_RATE, NOISE_STEPS)

    def hyper_at(eta: jax.Array, step: jax.Array) -> Hyper:
        rate = schedule(step) + eta[step * len(eta) // NOISE_STEPS]
        return {"rate": rate, "momentum": NOISE_MOMENTUM, "decay": 0.0}

    problem = training(hyper_at)

    def gradient(key: jax.Array, windows: int = NOISE_STEPS, how: Any = PER_STEP) -> Any:
        state, batches = drawn(key, NOISE_STEPS)
        return hypergradient(
            problem,
            jnp.zeros(windows),
            state,
            lambda step: batches[step],
            [digits("held out")],
            steps=NOISE_STEPS,
            estimator=how,
        ).gradient

    keys = jax.random.split(jax.random.key(1), seeds)
    found = np.asarray(jax.jit(partial(jax.lax.map, gradient, batch_size=8))(keys), np.float64)
    seen, truth = found[: seeds // 2], found[seeds // 2 :].mean(axis=0)
    measured = []
    for width in SHARED:
        shared = np.repeat(seen.reshape(len(seen), -1, width).mean(axis=2), width, axis=1)
        measured.append(float(np.mean((shared - truth[None]) ** 2)))

    covariance = np.cov(found, rowvar=False)
    scales = np.sqrt(np.diag(covariance))
    products = np.outer(scales, scales)
    apart = [
        float(np.diagonal(covariance, lag).sum() / np.diagonal(products, lag).sum())
        for lag in range(1, NOISE_STEPS)
    ]
    every = (covariance.sum() - np.trace(covariance)) / (products.sum() - np.trace(products))
    left = np.mean(np.diag(covariance) - np.mean(covariance)) / (seeds // 2)
    varied = max(0.0, float(np.var(truth) - left))
    correlations = max(apart), float(every)
    drifts = float(np.abs(np.diff(truth)).max()), (12 * varied / (NOISE_STEPS**2 - 1)) ** 0.5

    def law(correlation: float, drift: float) -> list[float]:
        return [
            (1 + correlation * (w - 1)) / w * measured[0] + drift**2 * (w**2 - 1) / 12
            for w in SHARED
        ]

    together = 32 * found[0].reshape(-1, 32).mean(axis=1)
    apart_from = np.asarray(gradient(keys[0], len(together), Forward(32))) - together
    bound, expected = map(law, correlations, drifts)
    error = float(np.linalg.norm(apart_from) / np.linalg.norm(together))
    return Noise(measured, bound, expected, correlations, drifts, error)


def _hyper_at(eta: Any, step: jax.Array) -> Hyper:
    rate = eta["rates"][step * WINDOWS // STEPS]
    return {"rate": rate, "momentum": eta["momentum"], "decay": eta["decay"]}


PROBLEM = training(_hyper_at)


@jax.jit
@jax.vmap
def trial(eta: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Trainings with meta-parameters and seeds of their own: held-out and test losses."""
    state, batches = drawn(key, STEPS)
    segment = Segment(np.int32(0), np.int32(STEPS), batches)
    state, _ = advance(PROBLEM, eta, state, segment)
    losses = [cross_entropy(state.params, digits(split)) for split in ("held out", "test")]
    held_out, test = (jnp.where(jnp.isfinite(loss), loss, DIVERGED) for loss in losses)
    return held_out, test


def trials(etas: Any, keys: jax.Array, at_a_time: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Many trials in programs of one size."""
    count = len(keys)
    rows = np.minimum(np.arange(-(-count // at_a_time) * at_a_time), count - 1)
    found = [
        trial(jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], etas), keys[chosen])
        for chosen in rows.reshape(-1, at_a_time)
    ]
    held_out, test = (np.concatenate(losses)[:count] for losses in zip(*found, strict=True))
    return held_out, test


class Search(NamedTuple):
    """A search of one seed.

    Attributes:
        after: trainings after which each best so far was found, in ascending order.
        losses: mean test loss of each over fresh seeds.
        held_out: what each was chosen by.
        trainings: in all.
    """

    after: list[int]
    losses: list[float]
    held_out: list[float]
    trainings: int

    def reached(self, loss: float) -> int | None:
        """The first trainings after which a loss is reached; None if it isn't."""
        return next(
            (n for n, best in zip(self.after, self.losses, strict=True) if best <= loss), None
        )


def judged(etas: Any, held_out: np.ndarray) -> Search:
    """The best so far by the held-out loss of single trainings, in the order of the trials."""
    best = np.flatnonzero(held_out < np.minimum.accumulate(np.append(np.inf, held_out))[:-1])
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf[best], FRESH, axis=0), etas)
    fresh = jnp.tile(jax.random.split(jax.random.key(1_000_000), FRESH), len(best))
    _, test = trials(repeated, fresh)
    means = test.reshape(-1, FRESH).mean(axis=1)
    return Search((best + 1).tolist(), means.tolist(), held_out[best].tolist(), len(held_out))


class Cost(NamedTuple):
    """CPU seconds of all threads: of an outer step with tangents, and of a training alone."""

    tangents: float
    plain: float


def by_sign(seed: int) -> tuple[Search, Cost]:
    """Ten outer steps from zero: forward-mode, and steps of the sign within a box."""
    optimizer = sign_with_halving(FIRST_STEPS["rates"], FIRST_STEPS)
    eta = {"rates": jnp.zeros(WINDOWS), "momentum": jnp.zeros(()), "decay": jnp.zeros(())}
    opt_state, etas, held_out, costs = optimizer.init(eta), [], [], []
    segment = STEPS // WINDOWS
    for outer_step in range(OUTER_STEPS):
        state, indices = drawn(_key(seed, outer_step), STEPS)
        batches: Any = np.asarray(indices).__getitem__
        began = time.process_time()
        found = hypergradient(
            PROBLEM,
            eta,
            state,
            batches,
            [digits("held out")],
            steps=STEPS,
            estimator=Forward(segment),
        )
        held_out.append(float(found.value))
        between = time.process_time()
        alone = train(PROBLEM, eta, state, batches, steps=STEPS, segment=segment)
        jax.block_until_ready(alone)
        costs.append(Cost(between - began, time.process_time() - between))
        etas.append(eta)
        updates, opt_state = optimizer.update(found.gradient, opt_state, eta)
        eta = jax.tree.map(lambda p, u, top: jnp.clip(p + u, 0, top), eta, updates, LARGEST)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *etas)
    # Only the first of all compiles; medians leave that out.
    cost = Cost(*np.median(np.array(costs), axis=0).tolist())
    return judged(stacked, np.array(held_out)), cost


def _key(seed: int, index: Any) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), index)


def from_units(units: np.ndarray, space: Space) -> Any:
    """Meta-parameters of points of the unit cube: rates (five, or one for all), momentum, decay."""
    parts = {"rates": units[:, :-2], "momentum": units[:, -2], "decay": units[:, -1]}
    eta = {}
    for name, part in parts.items():
        low, high = SMALLEST[name], LARGEST[name]
        drawn = low * (high / low) ** part if space.log and low else high * part
        eta[name] = jnp.asarray(drawn, jnp.float32)
    return {**eta, "rates": jnp.broadcast_to(eta["rates"], (len(units), WINDOWS))}


def at_random(seeds: int, count: int, space: Space) -> list[Search]:
    searches = []
    for seed in range(seeds):
        rng = np.random.default_rng((2, space.dimensions, seed))
        etas = from_units(rng.uniform(size=(count, space.dimensions)), space)
        keys = jax.vmap(partial(_key, 100 + seed))(jnp.arange(count))
        searches.append(judged(etas, trials(etas, keys)[0]))
    return searches


def by_tpe(seeds: int, count: int, space: Space) -> list[Search]:
    """Optuna's tree-structured Parzen estimator; the seeds take their turns together."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    studies = [
        optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed)) for seed in range(seeds)
    ]
    units = np.zeros((count, seeds, space.dimensions))
    held_out = np.zeros((count, seeds))
    for index in range(count):
        asked = [study.ask() for study in studies]
        for seed, one in enumerate(asked):
            units[index, seed] = [
                one.suggest_float(f"x{place}", 0, 1) for place in range(space.dimensions)
            ]
        keys = jnp.stack([_key(200 + seed, index) for seed in range(seeds)])
        held_out[index], _ = trials(from_units(units[index], space), keys, at_a_time=seeds)
        for study, one, loss in zip(studies, asked, held_out[index], strict=True):
            study.tell(one, float(loss))
    return [judged(from_units(units[:, seed], space), held_out[:, seed]) for seed in range(seeds)]


class Multiple(NamedTuple):
    """What a search needed to be as good as ten outer steps were in the mean of their seeds.

    Attributes:
        trainings: of each seed; None where the loss was not reached.
        budget: trainings that each had.
    """

    trainings: list[int | None]
    budget: int

    def times(self, unit: float) -> str:
        """Median, least and most, in units of so many trainings; ">" where it wasn't reached."""
        lasted = sorted((n or np.inf, n is None) for n in self.trainings)
        shown = [
            f"> {self.budget / unit:.0f}" if missing else f"{n / unit:.1f}" for n, missing in lasted
        ]
        least, middle, most = shown[0], shown[len(shown) // 2], shown[-1]
        return middle if least == most else f"{middle} ({least} to {most})"


def print_noise(found: Noise) -> None:
    print("| W | MSE measured | expected | bound |\n|---|---|---|---|")
    columns = found.measured, found.expected, found.bound
    for width, *row in zip(SHARED, *columns, strict=True):
        print(f"| {width} | " + " | ".join(f"{value:.3g}" for value in row) + " |")
    least = [SHARED[int(np.argmin(column))] for column in columns]
    print(f"least at W = {least[0]} measured, {least[1]} expected, {least[2]} by the bound")
    print(
        f"c: at most {found.correlations[0]:.3f}, mean {found.correlations[1]:.3f}; "
        f"L: at most {found.drifts[0]:.3g}, mean {found.drifts[1]:.3g}\n"
        f"Forward over windows of 32 against the means of single steps: "
        f"{found.sharing_error:.1g} of their norm\n",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer seeds and trials")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    keep_compiled()
    noise_seeds, seeds, random_trials, tpe_trials = (
        (64, 2, 200, 30) if given.quick else (512, 5, 600, 300)
    )
    seen = noise(noise_seeds)
    print_noise(seen)

    signed, costs = zip(*(by_sign(seed) for seed in range(seeds)), strict=True)
    cost = Cost(*np.median(np.array(costs), axis=0).tolist())
    target = float(np.mean([search.losses[-1] for search in signed]))
    # Momentum and decay act from the start, a window's rate from its own on.
    active = 2 + (WINDOWS + 1) / 2
    units = {
        "inner steps": OUTER_STEPS,
        f"counting 1 + 2N = {1 + 2 * active:.0f}": OUTER_STEPS * (1 + 2 * active),
        f"by CPU time ({cost.tangents / cost.plain:.1f})": OUTER_STEPS * cost.tangents / cost.plain,
    }
    searches = {"ten outer steps": list(signed)}
    for name, how, count in (("random", at_random, random_trials), ("TPE", by_tpe, tpe_trials)):
        for space in SPACES:
            searches[f"{name}, {space}"] = how(seeds, count, space)
    print(f"| search | trainings | test loss at the end | {' | '.join(units)} |")
    print("|---|---|---|" + "---|" * len(units))
    multiples = {}
    for name, found in searches.items():
        last = np.array([search.losses[-1] for search in found])
        row = f"| {name} | {found[0].trainings} | {last.mean():.3f} ({last.min():.3f} to "
        row += f"{last.max():.3f}) |"
        if name != "ten outer steps":
            reached = [search.reached(target) for search in found]
            multiples[name] = Multiple(reached, found[0].trainings)
            row += "".join(f" {multiples[name].times(unit)} |" for unit in units.values())
        else:
            row += " 1 |" * len(units)
        print(row, flush=True)
    _write(given, seen, searches, multiples, cost)


def _write(
    given: argparse.Namespace,
    seen: Noise,
    searches: dict[str, list[Search]],
    multiples: dict[str, Multiple],
    cost: Cost,
) -> None:
    if given.json:
        numbers = {
            "noise": {"widths": SHARED, **seen._asdict()},
            "searches": {name: [s._asdict() for s in found] for name, found in searches.items()},
            "trainings_to_reach": {name: found._asdict() for name, found in multiples.items()},
            "cpu_seconds": cost._asdict(),
        }
        given.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    if given.picture:
        noise_curves = {
            "measured": Curve(SHARED, seen.measured),
            "expected: mean correlation and drift": Curve(SHARED, seen.expected, theory=True),
        }
        panels = [
            Panel("Error of a hypergradient", "inner steps that share", noise_curves, True, True),
            Panel("Test loss of the best so far", "inner steps", _progress(searches), True, False),
        ]
        caption = (
            "Left: mean squared error over seeds of the hypergradient of a learning rate that W "
            "inner steps share. Right: means over seeds, by inner steps alone."
        )
        picture = line_chart("Forward-mode differentiation with sharing", panels, caption)
        given.picture.write_text(picture, encoding="utf-8")


def _progress(searches: dict[str, list[Search]]) -> dict[str, Curve]:
    """The test loss of the best so far, in the mean of the seeds."""
    curves = {}
    for name, found in searches.items():
        ends = sorted({n for search in found for n in search.after} | {found[0].trainings})
        best = [
            np.mean([s.losses[int(np.searchsorted(s.after, n, "right")) - 1] for s in found])
            for n in ends
        ]
        curves[name] = Curve([STEPS * n for n in ends], [float(x) for x in best], stairs=True)
    return curves


if __name__ == "__main__":
    main()
