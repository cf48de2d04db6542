"""The ways to run a recipe, what each costs, and which one to take."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

import jax
import numpy as np

from metatune.hypergrad import CheckpointError, EstimatorError
from metatune.inner import InnerTraining, devices, estimators
from metatune.plan.choice import choose, forward_may_fit
from metatune.plan.counting import counted, in_all
from metatune.plan.measuring import measured
from metatune.plan.memory import Memory, limit_bytes
from metatune.plan.pace import Pace
from metatune.plan.progress import Listener, silent, told
from metatune.plan.reverse_mode import Spec
from metatune.recipe import schema

TIE: Final = 0.05
"""Differences of fewer seconds, relative, are none: predictions are no better than that."""


class Alternative(NamedTuple):
    """A way to run a recipe.

    Attributes:
        name: in a few words.
        changes: `KEY.PATH=VALUE` each, from the recipe to this way; none for the recipe's own.
        memory: what it needs, or None where no checkpoints fit the budget.
        pace: how long it takes, or None where it isn't known.
        problem: why it can't be run; empty if it can.
        gradients: of an inner step that a hypergradient takes, where they can be counted: which of
            two such ways is the faster one is known without a timing.
        counted: whether it was not timed, but counted from a way that was.
    """

    name: str
    changes: tuple[str, ...]
    memory: Memory | None
    pace: Pace | None
    problem: str = ""
    gradients: float | None = None
    counted: bool = False


@dataclass(frozen=True)
class Plan:
    """What a recipe will cost.

    Attributes:
        alternatives: the recipe's own way first.
        limit_bytes: what the device has.
        device: what it is.
        devices: the mesh of such devices that a training lies on.
    """

    alternatives: tuple[Alternative, ...]
    limit_bytes: int
    device: str
    devices: schema.DevicesSpec = field(default_factory=schema.DevicesSpec)

    def fits(self, alternative: Alternative) -> bool:
        """Whether the device has room for an alternative."""
        found = alternative.memory
        return found is not None and found.with_host <= self.limit_bytes

    @property
    def pick(self) -> Alternative | None:
        """The fastest that fits; None if none does.

        Of those that are as fast within the spread of the timings, the one that takes the least
        memory; of those, the first.
        """
        fitting = [way for way in self.alternatives if self.fits(way) and way.pace]
        fast = [way for way in fitting if not any(slower(way, other) for other in fitting)]
        return min(fast, key=_bytes, default=None)

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
            tied = any(
                way.pace and self.fits(way) and way is not own and not slower(way, own)
                for way in self.alternatives
            )
            if not tied:
                return "the recipe's own way is the fastest that fits"
            return (
                "the recipe's own way: others are as fast within the spread of the timings, and "
                "take no less memory"
            )
        if own.memory is None:
            reason = own.problem
        elif not self.fits(own):
            reason = "the recipe's own way doesn't fit"
        elif slower(own, pick):
            reason = "it is faster"
        else:
            reason = "it is as fast within the spread of the timings, and takes less memory"
        return f"{pick.name}, because {reason}: set {' '.join(pick.changes)}"


def alternatives(
    training: InnerTraining,
) -> Iterator[tuple[str, tuple[str, ...], schema.EstimatorSpec]]:
    """The recipe's own estimator, then others: name, changes, section.

    Forward mode is among them only where it may take less memory.
    """
    spec = training.recipe.outer.estimator
    yield "as in the recipe", (), spec
    # Where the loss isn't what is measured, or is measured elsewhere, no other can follow.
    recipe = training.recipe
    if recipe.trainer is not None or recipe.outer.objective.measure != "loss":
        return
    if isinstance(spec, schema.PersistentESSpec):
        return  # all others leave out what came before the window
    kept = spec.checkpoints if isinstance(spec, Spec) else schema.CheckpointsSpec()
    segment = estimators.build(spec).segment
    common = {"segment": segment, "checkpoints": kept}
    path = "outer.estimator"
    damping = spec.damping if isinstance(spec, schema.MixFlowSpec) else None
    for saves in (True, False):
        way = schema.MixFlowSpec(**common, save_gradients=saves, damping=damping)
        if way != spec:
            name = "mixflow" + ("" if saves else ", inner gradients recomputed")
            changes = (f"{path}.kind=mixflow", f"{path}.save_gradients={str(saves).lower()}")
            yield name, changes, way
    if damping is not None:
        return  # all others are exact
    if spec.kind != "reverse":
        yield "reverse", (f"{path}.kind=reverse",), schema.ReverseSpec(**common)
    if spec.kind != "forward" and forward_may_fit(training):
        section = f"{path}={{kind: forward, segment: {segment}}}"
        yield "forward", (section,), schema.ForwardSpec(segment=segment)


def slower(way: Alternative, than: Alternative) -> bool:
    """Whether a way is slower than another, beyond what rounds of the timings differ by.

    Where the gradients of both are counted, that one takes more of them, whatever noise says; else
    three quarters of the rounds have to say so. In any case by more than `TIE`.
    """
    if way.gradients is not None and than.gradients is not None:
        return way.gradients > (1 + TIE) * than.gradients
    ours, theirs = _rounds(way), _rounds(than)
    if len(ours) != len(theirs):  # not measured together
        return min(ours) > (1 + TIE) * np.quantile(theirs, 0.75)
    return bool(np.quantile(np.subtract(ours, theirs) / theirs, 0.25) > TIE)


def plan(training: InnerTraining, *, folder: Path, listener: Listener = silent) -> Plan:
    """Predicts what a recipe costs, its own way and others.

    Only the recipe's own way is timed; what others take is counted from it. Programs of MixFlow are
    compiled for their bytes where they aren't the recipe's own, and of forward mode.

    Args:
        training: the recipe's.
        folder: where the run would keep checkpoints on disk.
        listener: is told how far the prediction is.

    Raises:
        NotPredicted: what the recipe's estimator costs can't be predicted.
    """
    training = decided(training, folder=folder, listener=listener)[0]
    ways, base = list[Alternative](), None
    named = list(alternatives(training))
    for number, (name, changes, spec) in enumerate(named, start=1):
        tell = told(listener, name, number, len(named))
        try:
            if base is None:
                base = measured(_with(training, spec), folder, tell)
                count = in_all(base.training, spec, base.memory)
                own = Alternative(name, changes, base.memory, base.pace(), gradients=count)
                ways.append(own)
            else:
                memory, seconds, count = counted(_with(training, spec), base, folder, tell)
                way = Alternative(name, changes, memory, seconds, gradients=count, counted=True)
                ways.append(way)
        except (CheckpointError, EstimatorError) as error:
            ways.append(Alternative(name, changes, None, None, str(error)))
    mesh = devices.resolved(training.recipe)
    return Plan(tuple(ways), limit_bytes(), jax.devices()[0].device_kind, mesh)


def expected(
    training: InnerTraining, *, folder: Path, listener: Listener = silent
) -> tuple[Memory, Pace]:
    """What a recipe's own way needs; arguments as for `plan`.

    Raises:
        CheckpointError: nothing fits the budget of the checkpoints.
        EstimatorError: the tangents exceed their budget.
        NotPredicted: what the estimator costs can't be predicted.
    """
    found = measured(training, folder, told(listener, "the recipe's own way"))
    return found.memory, found.pace()


def decided(
    training: InnerTraining, *, folder: Path, listener: Listener = silent
) -> tuple[InnerTraining, str]:
    """The training with an estimator, where the recipe leaves the choice open, and why this one.

    Args:
        training: the recipe's.
        folder: where the run would keep checkpoints on disk.
        listener: is told how far the prediction is.

    Raises:
        EstimatorError: none fits.
    """
    auto = training.recipe.outer.estimator
    if not isinstance(auto, schema.AutoSpec):
        return training, ""
    spec, why = choose(training, auto, folder=folder, listener=listener)
    return _with(training, spec), why


def _rounds(way: Alternative) -> tuple[float, ...]:
    """Seconds of a hypergradient by round of a way that has them."""
    return way.pace.rounds or (way.pace.hypergradient,) if way.pace else (math.inf,)


def _bytes(way: Alternative) -> int:
    """Bytes of a way that has them, on the device and in the memory of the host."""
    return way.memory.with_host if way.memory else 0


def _with(training: InnerTraining, spec: schema.EstimatorSpec) -> InnerTraining:
    """The training with another estimator."""
    recipe = training.recipe
    outer = replace(recipe.outer, estimator=spec)
    return replace(training, recipe=replace(recipe, outer=outer))
