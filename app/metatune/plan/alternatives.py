"""The ways to run a recipe, what each costs, and which one to take."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax

from metatune.hypergrad import CheckpointError, EstimatorError
from metatune.inner import InnerTraining, estimators
from metatune.inner.metrics import measure
from metatune.plan.choice import choose, forward_may_fit
from metatune.plan.foretold import cost
from metatune.plan.memory import Memory, limit_bytes
from metatune.plan.pace import Pace, pace
from metatune.plan.work import Work
from metatune.recipe import schema

ReverseMode = schema.MixFlow | schema.Reverse


class Alternative(NamedTuple):
    """A way to run a recipe.

    Attributes:
        name: in a few words.
        changes: `KEY.PATH=VALUE` each, from the recipe to this way; none for the recipe's own.
        memory: what it needs, or None where no checkpoints fit the budget.
        pace: how long it takes, or None where it isn't known.
        problem: why it can't be run; empty if it can.
    """

    name: str
    changes: tuple[str, ...]
    memory: Memory | None
    pace: Pace | None
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """What a recipe will cost.

    Attributes:
        alternatives: the recipe's own way first.
        limit_bytes: what the device has.
        device: what it is.
    """

    alternatives: tuple[Alternative, ...]
    limit_bytes: int
    device: str

    def fits(self, alternative: Alternative) -> bool:
        """Whether the device has room for an alternative."""
        found = alternative.memory
        return found is not None and found.device + found.host <= self.limit_bytes

    @property
    def pick(self) -> Alternative | None:
        """The fastest that fits; None if none does."""
        fitting = [way for way in self.alternatives if self.fits(way) and way.pace]
        return min(fitting, key=lambda way: way.pace.run if way.pace else 0.0, default=None)

    @property
    def why(self) -> str:
        """The reason for the pick, in a sentence."""
        own, pick = self.alternatives[0], self.pick
        if pick is None:
            least = min(
                (way for way in self.alternatives if way.memory),
                key=lambda way: way.memory.device if way.memory else 0,
                default=None,
            )
            if least is None or least.memory is None:
                return f"nothing fits: {own.problem}"
            return (
                f"nothing fits: the least is {least.memory.device:,} bytes with {least.name}; "
                "lower data.batch_size, set inner.micro_batch or model.remat=true, or take a "
                "larger device"
            )
        if pick is own:
            return "the recipe's own way is the fastest that fits"
        if own.memory is None:
            reason = own.problem
        else:
            reason = "it is faster" if self.fits(own) else "the recipe's own way doesn't fit"
        return f"{pick.name}, because {reason}: set {' '.join(pick.changes)}"


def alternatives(
    training: InnerTraining,
) -> Iterator[tuple[str, tuple[str, ...], schema.Estimator]]:
    """The recipe's own estimator, then others: name, changes, section.

    Forward mode is among them only where it may take less memory.
    """
    spec = training.recipe.outer.estimator
    yield "as in the recipe", (), spec
    if measure(training.recipe.outer) != "loss":  # which no other estimator can follow
        return
    kept = spec.checkpoints if isinstance(spec, ReverseMode) else schema.Checkpoints()
    segment = estimators.build(spec).segment
    common = {"segment": segment, "checkpoints": kept}
    path = "outer.estimator"
    for saves in (True, False):
        way = schema.MixFlow(**common, save_gradients=saves)
        if way != spec:
            name = "mixflow" + ("" if saves else ", inner gradients recomputed")
            changes = (f"{path}.kind=mixflow", f"{path}.save_gradients={str(saves).lower()}")
            yield name, changes, way
    if not isinstance(spec, schema.Reverse):
        yield "reverse", (f"{path}.kind=reverse",), schema.Reverse(**common)
    if not isinstance(spec, schema.Forward) and forward_may_fit(training):
        section = f"{path}={{kind: forward, segment: {segment}}}"
        yield "forward", (section,), schema.Forward(segment=segment)


def plan(training: InnerTraining, *, folder: Path) -> Plan:
    """Predicts what a recipe costs, its own way and others.

    Args:
        training: the recipe's.
        folder: where the run would keep checkpoints on disk.

    Raises:
        NotForetold: what the recipe's estimator costs can't be predicted.
    """
    ways = []
    for name, changes, spec in alternatives(decided(training, folder=folder)[0]):
        try:
            found = expected(_with(training, spec), folder=folder)
            ways.append(Alternative(name, changes, *found))
        except (CheckpointError, EstimatorError) as error:
            ways.append(Alternative(name, changes, None, None, str(error)))
    return Plan(tuple(ways), limit_bytes(), jax.devices()[0].device_kind)


def expected(training: InnerTraining, *, folder: Path) -> tuple[Memory, Pace]:
    """What a recipe's own way needs; arguments as for `plan`.

    Raises:
        CheckpointError: nothing fits the budget of the checkpoints.
        EstimatorError: the tangents exceed their budget.
        NotForetold: what the estimator costs can't be predicted.
    """
    spec = training.recipe.outer.estimator
    found = cost(training, spec, folder)
    work = Work(training, estimators.build(spec))
    return found.memory, pace(work, found.seconds(), work.judging(), found.compilation)


def decided(training: InnerTraining, *, folder: Path) -> tuple[InnerTraining, str]:
    """The training with an estimator, where the recipe leaves the choice open, and why this one.

    Args:
        training: the recipe's.
        folder: where the run would keep checkpoints on disk.

    Raises:
        EstimatorError: none fits.
    """
    auto = training.recipe.outer.estimator
    if not isinstance(auto, schema.Auto):
        return training, ""
    spec, why = choose(training, auto, folder=folder)
    return _with(training, spec), why


def _with(training: InnerTraining, spec: schema.Estimator) -> InnerTraining:
    """The training with another estimator."""
    recipe = training.recipe
    outer = replace(recipe.outer, estimator=spec)
    return replace(training, recipe=replace(recipe, outer=outer))
