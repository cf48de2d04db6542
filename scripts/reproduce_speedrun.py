#!/usr/bin/env python3
"""How many steps a tuned schedule saves: the speedrun recipe against its untuned schedule.

The untuned schedule is the recipe's own, its peaks chosen by a sweep of them and of its decay
(`sweep`). It trains for T steps; schedules are fractions of a training, so that the tuned one is
stretched to fewer steps, and by interpolation there is a number at which it comes to the untuned
loss, for each seed by itself: over T, the ratio. Likewise to the loss of the untuned shape with all
peaks and the momentum swept again, as validation chooses them. Beside them the tuned rates and
momentum alone.

Every training is a line of trainings.jsonl; called again, only what isn't there is trained. A
schedule is known by what every step of it uses.

usage: reproduce_speedrun.py [--out runs/speedrun] [--seeds 10] [--apart 5] [sweep] [compare]
"""

import argparse
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from rich.console import Console

from metatune import artefact
from metatune.artefact import Artefact
from metatune.fit.making import artefact_of
from metatune.fit.outer_loop import fit
from metatune.fit.process.compilation import keep_compiled
from metatune.inner import InnerTraining, prepare
from metatune.inner.seeds import Purpose
from metatune.ladder.measuring import following, held_out_loss
from metatune.recipe import reading, shipped
from metatune.recipe.schema import GroupsSpec, Recipe, WarmupStableDecaySpec
from metatune.tunables.groups import Groups
from metatune.tunables.learning_rates import TunableLearningRates

COARSE, FINE = (1 / 3, 1.0, 3.0), (0.5, 1.0, 2.0)
"""Factors of the recipe's peaks: of a sweep from far, and of one around the best of it."""
ODDS: Final = (1.0, 9 / 19, 4 / 19)
"""Factors of the odds of Muon's momentum: from 0.95, to 0.9 and 0.8."""
DECAYS: Final = (0.2, 0.4, 0.6)
SWEEPS: Final = 2
"""Seeds of validation for each cell of a sweep."""
FRACTIONS: Final = (1.0, 0.85, 0.7, 0.55, 0.4)
"""Lengths of the tuned schedule over the untuned one's, down to the first at which no seed is as
good."""
UNTUNED, TUNED, SWEPT = "untuned", "tuned", "swept again"
ALONE: Final = ("rates alone", "momentum alone")
Constants = Mapping[str, float]
"""Factors of the recipe's own by the names in `CONSTANTS`: of three peaks, `MUON`'s of two kinds of
parameters, and of the odds of its momentum."""
MUON: Final = "muon"
MOMENTUM: Final = "momentum"
CONSTANTS: tuple[str, ...] = ("head", "embedding", MUON, MOMENTUM)
Split = Literal[Purpose.TEST, Purpose.VALIDATION]


class Trainings:
    """Losses of trainings, each kept in a file as soon as it is known."""

    def __init__(self, path: Path):
        """Reads what the file knows, if it is there."""
        self._path, self._known = path, dict[str, float]()
        if path.exists():
            for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
                self._known[_key(line)] = line["loss"]

    def losses(
        self, training: InnerTraining, schedule: Artefact, purpose: Split, count: int
    ) -> list[float]:
        """The held-out losses of a schedule, stretched to the training's steps.

        Args:
            training: of so many steps.
            schedule: of any number of steps.
            purpose: test for unseen seeds and text, validation for a choice.
            count: of seeds.
        """
        name, found, followed = digest(schedule), list[float](), None
        for index in range(count):
            asked = {
                "schedule": name,
                "steps": training.recipe.inner.steps,
                "purpose": purpose.name.lower(),
                "seed": index,
            }
            key = _key(asked)
            if key not in self._known:
                began = sum(os.times()[:2])
                followed = followed or following(training, schedule)
                loss = held_out_loss(followed, index, purpose=purpose)
                line = asked | {"loss": loss, "processor_seconds": sum(os.times()[:2]) - began}
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                self._known[key] = loss
            found.append(self._known[key])
        return found


def _key(line: Mapping[str, Any]) -> str:
    return " ".join(str(line[name]) for name in ("schedule", "steps", "purpose", "seed"))


def digest(schedule: Artefact) -> str:
    """A name for what every step of a schedule uses."""
    curves = {
        name: np.asarray(c).tolist() for name, c in schedule.learning_rates.parameters.items()
    }
    text = json.dumps([curves, repr(schedule.optimizer)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_constants(training: InnerTraining, factors: Constants) -> Artefact:
    """The recipe's own schedule with its constants times these."""
    (rates,) = (own for own in training.tunables if isinstance(own, TunableLearningRates))
    assert isinstance(rates.cells, Groups)
    logs = [math.log(factors.get(label, factors[MUON])) for label in rates.cells.labels]
    eta = training.initial_eta()
    eta |= {
        rates.key: jnp.broadcast_to(jnp.array(logs), eta[rates.key].shape),
        MOMENTUM: jnp.full_like(eta[MOMENTUM], math.log(factors[MOMENTUM])),
    }
    return artefact_of(training, eta, {})


def decaying(recipe: Recipe, decay: float) -> Recipe:
    """The recipe with another decay of its schedule."""
    optimizer = recipe.inner.optimizer
    assert isinstance(optimizer, GroupsSpec)
    assert isinstance(optimizer.schedule, WarmupStableDecaySpec)
    schedule = replace(optimizer.schedule, decay=decay)
    changed = replace(optimizer, schedule=schedule)
    return replace(recipe, inner=replace(recipe.inner, optimizer=changed))


def judged(trainings: Trainings, training: InnerTraining, factors: Constants) -> float:
    """What validation says of the recipe's schedule with its constants times these; prints it."""
    schedule = with_constants(training, factors)
    each = trainings.losses(training, schedule, Purpose.VALIDATION, SWEEPS)
    times = " | ".join(f"{factors[name]:.2f}" for name in CONSTANTS)
    losses = ", ".join(f"{loss:.4f}" for loss in each)
    print(f"| {times} | {np.mean(each):.4f} | {losses} |", flush=True)
    return float(np.mean(each))


def swept(trainings: Trainings, training: InnerTraining, factors: Sequence[float]) -> Constants:
    """The constants that validation likes best, one after the other; prints all."""
    print(f"| {' | '.join(CONSTANTS)} | loss | each |\n|{'---|' * (len(CONSTANTS) + 2)}")
    found = dict[tuple[float, ...], float]()

    def best() -> Constants:
        return dict(zip(CONSTANTS, min(found, key=lambda each: found[each]), strict=True))

    def tried(constants: Constants) -> None:
        key = tuple(constants[name] for name in CONSTANTS)
        if key not in found:
            found[key] = judged(trainings, training, constants)

    tried(dict.fromkeys(CONSTANTS, 1.0))
    for name in CONSTANTS:
        so_far = best()
        for factor in ODDS if name == MOMENTUM else factors:
            tried({**so_far, name: factor})
    print(f"best: {', '.join(f'{name} {factor:.2f}' for name, factor in best().items())}\n")
    return best()


def sweep(trainings: Trainings, recipe: Recipe) -> None:
    """Sweeps the constants of the untuned schedule, and its decay at the best of them."""
    best = swept(trainings, prepare(recipe), COARSE)
    for decay in DECAYS:
        print(f"decay over {decay:g} of the training:")
        judged(trainings, prepare(decaying(recipe, decay)), best)


class Reached(NamedTuple):
    """Where a schedule comes to a loss.

    Attributes:
        fraction: its length over that of the schedule whose loss it is.
        within: whether it lies between lengths that were trained.
    """

    fraction: float
    within: bool


def reached(fractions: Sequence[float], losses: Sequence[float], wanted: float) -> Reached:
    """How long a training is as good as wanted, on a line between two that were done.

    The line is against the logarithm of the length. The two are the first that is worse, from the
    longest down, and the one before it; where there are no such two, the line through the nearest
    is followed beyond them.

    Args:
        fractions: lengths, from the longest down.
        losses: at these.
        wanted: a loss.
    """
    worse = next((at for at, loss in enumerate(losses) if loss > wanted), len(losses))
    upper = min(max(worse - 1, 0), len(losses) - 2)
    long, short = np.log(fractions[upper : upper + 2])
    slope = (losses[upper + 1] - losses[upper]) / (short - long)
    if slope >= 0:  # a longer training that isn't better has no such line
        return Reached(math.nan, False)
    fraction = math.exp(long + (wanted - losses[upper]) / slope)
    return Reached(fraction, 0 < worse < len(losses))


def schedules(
    trainings: Trainings, training: InnerTraining, tuned: Artefact
) -> Iterator[tuple[str, Artefact]]:
    """What is compared, the untuned schedule first."""
    untuned = artefact_of(training, training.initial_eta(), {})
    yield UNTUNED, untuned
    yield TUNED, tuned
    yield SWEPT, with_constants(training, swept(trainings, training, FINE))
    rates, momentum = ALONE
    yield rates, replace(tuned, optimizer=untuned.optimizer)
    yield momentum, replace(tuned, learning_rates=untuned.learning_rates)


def mean(values: Sequence[float]) -> str:
    """A mean with its standard error."""
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.4f}"


def compare(trainings: Trainings, recipe: Recipe, run: Path, seeds: int, apart: int) -> None:
    """Prints losses at each length, and the ratios of steps.

    Args:
        trainings: those that are known.
        recipe: the shipped one.
        run: its run; tuned first if it isn't there.
        seeds: of each length.
        apart: of those, how many for rates and momentum alone.
    """
    whole = prepare(recipe)
    if not (run / "artefact").exists():
        fit(whole, run, console=Console(stderr=True))
    tuned = artefact.load(run)
    print("| schedule | steps | held-out nats per byte | minus untuned |\n|---|---|---|---|")
    at_length, untuned = dict[str, list[float]](), list[float]()

    def told(name: str, schedule: Artefact, training: InnerTraining) -> list[float]:
        count = apart if name in ALONE else seeds
        losses = trainings.losses(training, schedule, Purpose.TEST, count)
        off = np.subtract(losses, untuned[:count] or losses).tolist()
        row = f"| {name} | {training.recipe.inner.steps} | {mean(losses)} |"
        print(f"{row} {mean(off)} |", flush=True)
        return losses

    for name, schedule in schedules(trainings, whole, tuned):
        at_length[name] = told(name, schedule, whole)
        untuned = untuned or at_length[name]
    curves = [at_length[TUNED]]
    for fraction in FRACTIONS[1:]:
        steps = round(fraction * recipe.inner.steps)
        shorter = replace(recipe, inner=replace(recipe.inner, steps=steps))
        curves.append(told(TUNED, tuned, prepare(shorter)))
        if all(loss > own for loss, own in zip(curves[-1], untuned, strict=True)):
            break
    print(
        "\n| steps of the tuned schedule to the loss of | over its own | seeds beyond the lengths |"
    )
    print("|---|---|---|")
    for name in (UNTUNED, SWEPT):
        found = [
            reached(FRACTIONS[: len(curves)], losses, wanted)
            for *losses, wanted in zip(*curves, at_length[name], strict=True)
        ]
        ratios = [each.fraction for each in found]
        outside = sum(not each.within for each in found)
        print(f"| {name} | {mean(ratios)} | {outside} of {len(found)} |")
        print(", ".join(f"{ratio:.3f}" for ratio in ratios))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/speedrun"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--apart", type=int, default=5, help="seeds for rates and momentum alone")
    parser.add_argument("parts", nargs="*", choices=["sweep", "compare"], default=["compare"])
    given = parser.parse_args()
    keep_compiled()
    given.out.mkdir(parents=True, exist_ok=True)
    recipe = reading.read(shipped.find("speedrun"))
    trainings = Trainings(given.out / "trainings.jsonl")
    if "sweep" in given.parts:
        sweep(trainings, recipe)
    if "compare" in given.parts:
        compare(trainings, recipe, given.out / "run", given.seeds, min(given.apart, given.seeds))


if __name__ == "__main__":
    main()
