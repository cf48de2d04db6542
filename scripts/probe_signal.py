#!/usr/bin/env python3
"""Which hypergradients point somewhere: exact and damped ones against differences of trainings.

For each seed of a small Llama over ordinary steps: the derivatives of the objective along "all
rates of a window" and "share of code in a window" (the logit of its share), by the exact
hypergradient, by other ways (WAYS: `cap:C` damps the adjoint, `restart:C` lets it begin anew,
`directions:N` is the forward gradient along N directions), and by central differences of whole
trainings a step of EPS apart in the meta-parameters, which are those of the smoothed objective, and
taken for the truth. A truth is sure where its mean over the seeds is more than two standard errors
from zero. "followed" is what the first outer steps of a search follow (`outer.signal: auto`), until
all that growth dominates has been measured once: the exact derivative, blended there with
differences of the same seed and the next, times what noise leaves of the step. What it leaves
nothing of isn't wrong, but "open".

Each number is written to OUT (JSON lines) as soon as it is there, and is not computed again. The
table is made of what OUT holds.

With --choose N: what a search of N outer steps measures at its first, with the seed FIRST, and what
it chooses to follow; OUT gets the measurement, as `metrics.jsonl` has it, and nothing else is done.

usage: probe_signal.py OUT [--layers 6] [--hidden 128] [--steps 200] [--seeds 5] [--first 0]
                       [--eps 0.3] [--ways cap:1 restart:10 directions:8] [--rate 1e-3] [--table]
                       [--choose N]
"""

import argparse
import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from metatune.data import stratified_batches
from metatune.fit.process.compilation import keep_compiled
from metatune.fit.searching.hypergradients import source
from metatune.fit.searching.phases import begin
from metatune.fit.searching.truncation import next_span
from metatune.fit.signal.memory import blank, kept, with_slope
from metatune.fit.signal.signal import signal
from metatune.hypergrad import (
    Damping,
    ForwardGradient,
    Growth,
    MixFlow,
    hypergradient,
    measured,
    train,
)
from metatune.hypergrad.estimator import Estimator
from metatune.inner import InnerTraining, prepare
from metatune.inner.metrics import held_out_batches
from metatune.inner.seeds import Purpose, Stream, data_seed, direction_key, model_key
from metatune.recipe import reading
from metatune.recipe.phases import resolved
from metatune.recipe.schema import SignalSpec
from metatune.report.signal import chosen
from metatune.tunables.blocks import WindowBlock, growths

WINDOWS, SEGMENTS = 4, 8
RECIPE = """
model:
  config: {{model_type: llama, hidden_size: {hidden}, intermediate_size: {wide},
    num_hidden_layers: {layers}, num_attention_heads: 4}}
data:
  domains: {{code: {{shipped: code_stdlib}}, drama: {{shipped: drama_shakespeare}}}}
  target: {{code: 1}}
  sequence_length: 128
  batch_size: 4
inner:
  optimizer: {{kind: adamw, learning_rate: {rate}, schedule: {{kind: cosine, warmup: 0.1}}}}
  steps: {steps}
tune: {{learning_rates: {{per: kind, windows: 4}}, mixture: {{windows: 4}}}}
outer:
  steps: {outer}
  objective: {{sequences: 64, micro_batch: 16}}
"""


def directions(eta: Any) -> dict[str, Any]:
    """Directions in η by name: one in all rates of a window, one in the share of code."""
    found = {}
    for window in range(WINDOWS):
        for key, column, name in (
            ("learning_rates", slice(None), "rates"),
            ("mixture", 0, "share"),
        ):
            along = {each: np.zeros(leaf.shape, np.float32) for each, leaf in eta.items()}
            along[key][window, column] = 1
            found[f"{name}, window {window}"] = along
    return found


class Probe:
    """One training at a time, by its seed, and the numbers that are known of it."""

    def __init__(self, training: InnerTraining, out: Path):
        """Reads what OUT holds."""
        self.training, self.out = training, out
        self.steps = training.recipe.inner.steps
        self.eta = training.initial_eta()
        self.known: dict[tuple[int, str], Any] = {}
        if out.exists():
            for line in map(json.loads, out.read_text().splitlines()):
                self.known[line["seed"], line["what"]] = line["value"]

    def number(self, seed: int, what: str, make: Any) -> Any:
        """A number, computed unless it is known."""
        if (seed, what) not in self.known:
            value = self.known[seed, what] = make()
            with self.out.open("a") as file:
                print(json.dumps({"seed": seed, "what": what, "value": value}), file=file)
            print(seed, what, value, flush=True)
        return self.known[seed, what]

    def options(self, seed: int) -> tuple[Any, Any, Any]:
        """The state, the batches and the held-out batches of a seed."""
        training = self.training
        drawn = partial(data_seed, seed, Purpose.HYPERGRADIENT)
        batches = stratified_batches(
            training.corpus,
            seed=drawn(0, Stream.TRAINING),
            batch_size=training.recipe.data.batch_size,
            shares=training.trajectory(self.eta).mixture,
        )
        outer = training.recipe.outer
        held_out = held_out_batches(
            outer,
            training.corpus,
            "validation",
            seed=drawn(0, Stream.HELD_OUT),
            sequences=outer.objective.sequences,
        )
        key = model_key(seed, Purpose.HYPERGRADIENT, 0)
        return training.initialise(key), batches, held_out

    def gradient(self, seed: int, way: str) -> dict[str, Any]:
        """The derivatives by a hypergradient, and how its adjoint grew where it has one."""
        state, batches, held_out = self.options(seed)
        estimator = estimator_of(way, self.steps // SEGMENTS)
        key = direction_key(seed, 0) if estimator.draws else None
        found = hypergradient(
            *(self.training.reweighted, self.eta, state, batches, held_out),
            **{"steps": self.steps, "estimator": estimator, "key": key},
        )
        along = {
            name: sum(float(np.vdot(found.gradient[key], part)) for key, part in each.items())
            for name, each in directions(self.eta).items()
        }
        growth, squares = found.diagnostics.growth, jax.tree.map(jnp.square, found.gradient)
        norm = float(sum(map(jnp.sum, jax.tree.leaves(squares)))) ** 0.5
        if growth is None or growth.tangents:
            return {"along": along, "norm": norm}
        norms = np.asarray(growth.params).tolist()
        damped = np.asarray(growth.damped).tolist()
        return {"along": along, "norm": norm, "norms": norms, "damped": damped}

    def loss(self, seed: int, name: str, eps: float) -> float:
        """The objective a step of eps along a direction."""
        state, batches, held_out = self.options(seed)
        along = directions(self.eta)[name]
        eta = jax.tree.map(lambda leaf, part: leaf + eps * part, self.eta, along)
        problem = self.training.reweighted
        segment = self.steps // SEGMENTS
        end, _ = train(problem, eta, state, batches, steps=self.steps, segment=segment)
        return measured(problem, end.params, held_out, dtype=np.float64)


def estimator_of(way: str, segment: int) -> Estimator:
    """That of a way: exact, cap:C, restart:C or directions:N."""
    kind, _, number = way.partition(":")
    if kind == "directions":
        return ForwardGradient(int(number), segment)
    damping = {
        "exact": lambda: None,
        "cap": lambda: Damping(float(number)),
        "restart": lambda: Damping(float(number), "segment", restart=True),
    }[kind]()
    return MixFlow(segment, damping=damping)


def followed(
    exact: dict[str, Any], slopes: list[dict[str, float]], names: list[str]
) -> dict[str, float]:
    """What a search follows along each direction, by the exact hypergradient and differences.

    Args:
        exact: the hypergradient, and norms of its adjoint.
        slopes: of the trainings that differences are of.
        names: of the directions.
    """
    spec, norms = SignalSpec(), jnp.asarray(exact["norms"])
    # Where in the training matters, not how long that is.
    growth = Growth(np.arange(len(norms)), norms, norms, jnp.zeros(len(norms) - 1))
    keys = [name.split(",")[0] for name in names]
    where = [
        WindowBlock(key, window, window / WINDOWS, (window + 1) / WINDOWS, False)
        for key, window in zip(keys, map(window_of, names), strict=True)
    ]
    memory = blank(where, {key: np.zeros((WINDOWS, 1)) for key in keys})
    found, one = dict(exact["along"]), np.ones(1)
    noisy = [i for i, times in enumerate(growths(growth, where, SEGMENTS)) if times >= spec.growth]
    for i in noisy:
        each = np.array([of_seed[names[i]] for of_seed in slopes[: spec.seeds]])
        memory, _ = with_slope(memory, where, i, 0, one, each)
    for i in noisy:
        weight = 1 / (1 + (growths(growth, where, SEGMENTS)[i] / spec.growth) ** 2)
        slope = float(memory.slopes[where[i].key][where[i].window, 0])
        whole = weight * found[names[i]] + (1 - weight) * slope
        found[names[i]] = whole * (weight + (1 - weight) * kept(memory, where, i))
    return found


def choose(training: InnerTraining, out: Path) -> None:
    """Prints what the first outer step of a search chooses, and how clear each window was."""
    (phase,) = resolved(training.recipe.outer)
    search = begin(training, phase, training.initial_eta())
    span = next_span(training.recipe, phase, search)
    with TemporaryDirectory() as scratch:
        hypergradients = source(training, Path(scratch), lambda: lambda heard: None)
        watched = signal(training, hypergradients, lambda name: lambda heard: None)
        assert watched is not None
        followed = watched(search, phase, span, hypergradients(search, phase, span))
    if followed.told is None:
        print("no window is dominated by growth")
        return
    for each in followed.told["windows"]:
        print(
            f"{each['tunable']} window {each['window'] + 1}: growth {each['growth'] or np.inf:.3g}"
        )
    if followed.chosen is None:
        print(f"nothing is chosen, as {followed.told['unmeasured']}")
        return
    out.write_text(json.dumps(followed.chosen) + "\n")
    print(chosen(0, followed.chosen))
    for each in followed.chosen["measured"]["windows"]:
        ways = ", ".join(
            f"{way} {seen['mean'] or np.nan:+.3g} ± {seen['error'] or np.nan:.2g} "
            f"({seen['trainings'] or np.inf:.3g} needed)"
            for way, seen in each["ways"].items()
        )
        true = f"{each['slope']:+.4f} ± {each['error']:.4f}"
        print(f"{each['tunable']} window {each['window'] + 1}: {true}; {ways}")


def window_of(name: str) -> int:
    """The window that a direction is in."""
    return int(name.split()[-1])


def table(known: dict[tuple[int, str], Any], names: list[str], eps: float) -> None:
    """Prints mean and standard error of each estimate, and how often its sign is the truth's."""
    by: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    seeds = sorted({seed for seed, _ in known})
    for seed in seeds:
        for what in {what for each, what in known if each == seed and what.startswith("gradient")}:
            for name, value in known[seed, what]["along"].items():
                by[what.removeprefix("gradient ")][name].append(value)
        for name in names:
            sides = [known.get((seed, f"loss {name} {sign * eps:g}")) for sign in (1, -1)]
            if sides[0] is not None and sides[1] is not None:
                by["smoothed"][name].append((sides[0] - sides[1]) / (2 * eps))
    complete = min((len(by["smoothed"][name]) for name in names), default=0)
    for number in range(complete):
        around = [(number + more) % complete for more in range(min(complete, SignalSpec().seeds))]
        slopes = [{name: by["smoothed"][name][other] for name in names} for other in around]
        exact = known[seeds[number], "gradient exact"]
        for name, value in followed(exact, slopes, names).items():
            by["followed"][name].append(value)
    norms: dict[str, list[float]] = defaultdict(list)
    for (_, what), value in known.items():
        if what.startswith("gradient") and "norm" in value:
            norms[what.removeprefix("gradient ")].append(value["norm"])
    ways = sorted(by, key=lambda way: (way == "smoothed", way))
    print("|", *(f"| {way}" for way in ways), "|")
    agreed: dict[str, list[bool]] = defaultdict(list)
    opened: dict[str, int] = defaultdict(int)
    for name in names:
        cells, truth = [], np.array(by["smoothed"][name])
        sure = len(truth) > 1 and abs(truth.mean()) > 2 * truth.std(ddof=1) / len(truth) ** 0.5
        for way in ways:
            found = np.array(by[way][name])
            error = found.std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else np.nan
            cells.append(f"{found.mean():+.3f} ± {error:.3f}" if len(found) else "")
            if sure:
                moved = found[np.abs(found) > 1e-9]
                agreed[way] += (np.sign(moved) == np.sign(truth.mean())).tolist()
                opened[way] += len(found) - len(moved)
        print(f"| {name}{' (sure)' if sure else ''} |", " | ".join(cells), "|")
    print("| sign agreement |", *(f"{np.mean(agreed[way]):.2f} |" for way in ways))
    print("| norm, median |", *(f"{np.median(norms[way] or np.nan):.3g} |" for way in ways))
    print("| of signs |", *(f"{len(agreed[way])}, {opened[way]} open |" for way in ways))


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--eps", type=float, default=0.3)
    parser.add_argument("--ways", nargs="*", default=["cap:1", "restart:10"])
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--choose", type=int, metavar="N", help="a search of N outer steps")
    parser.add_argument("--table", action="store_true", help="of what OUT holds, no more trainings")
    options = parser.parse_args()
    keep_compiled()
    sizes = {"hidden": options.hidden, "wide": 3 * options.hidden, "layers": options.layers}
    sizes |= {"rate": options.rate, "steps": options.steps, "outer": options.choose or 1}
    recipe = yaml.safe_load(RECIPE.format(**sizes)) | {"seed": options.first}
    training = prepare(reading.parse(recipe, "probe"))
    if options.choose:
        choose(training, options.out)
        return
    probe = Probe(training, options.out)
    names = list(directions(probe.eta))
    for seed in () if options.table else range(options.first, options.first + options.seeds):
        for way in ("exact", *options.ways):
            probe.number(seed, f"gradient {way}", partial(probe.gradient, seed, way))
        for name in names:
            for eps in (options.eps, -options.eps):
                probe.number(seed, f"loss {name} {eps:g}", partial(probe.loss, seed, name, eps))
    table(probe.known, names, options.eps)


if __name__ == "__main__":
    main()
