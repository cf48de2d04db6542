"""What a search in phases costs: each as if it were the whole search, and all together."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from metatune.inner import InnerTraining
from metatune.plan.alternatives import Plan, plan
from metatune.plan.alternatives import decided as decided_alone
from metatune.plan.alternatives import expected as expected_alone
from metatune.plan.memory import Memory
from metatune.plan.pace import Pace
from metatune.plan.progress import Listener, silent
from metatune.recipe import phases
from metatune.recipe.phases import Phase
from metatune.recipe.schema import (
    AutoSpec,
    EstimatorSpec,
    FullSpec,
    MixFlowSpec,
    OuterSpec,
    Recipe,
)

PATH = "outer.estimator"
"""Where a recipe without phases has its estimator."""


def by_phase(
    training: InnerTraining, *, folder: Path, listener: Listener = silent
) -> tuple[Plan, ...]:
    """Predicts what each phase of a recipe costs, its own way and others.

    Args:
        training: the recipe's.
        folder: where the run would keep checkpoints on disk.
        listener: is told how far the prediction is.

    Returns:
        A plan for each phase as if it were the whole search, judging and report included; where
        its horizon grows, as if it had the longest from the start.
    """
    made = []
    each = zip(phases.resolved(training.recipe.outer), each_alone(training), strict=True)
    for phase, alone in each:
        found = plan(alone, folder=folder, listener=listener)
        if training.recipe.outer.phases is not None:
            found = _at(found, f"outer.phases[{phase.number}].estimator")
        made.append(found)
    return tuple(made)


def each_alone(training: InnerTraining) -> Iterator[InnerTraining]:
    """The training of each phase as if it were the whole search, with its longest horizon."""
    for phase in phases.resolved(training.recipe.outer):
        yield _alone(training, _longest(phase, training.recipe))


def expected(
    training: InnerTraining, *, folder: Path, listener: Listener = silent
) -> tuple[Memory, Pace]:
    """What a recipe's own way needs; arguments as for `by_phase`.

    Returns:
        The memory of what needs most on the device, and the time of all phases: of a hypergradient
        and of an outer step in the mean.

    Raises:
        CheckpointError: nothing fits the budget of the checkpoints.
        NotPredicted: what the estimator of a phase costs can't be predicted.
    """
    parts = [
        part
        for phase in phases.resolved(training.recipe.outer)
        for part in _of_one_horizon(phase, training.recipe)
    ]
    found = [
        expected_alone(_alone(training, part), folder=folder, listener=listener) for part in parts
    ]
    needed = max((memory for memory, _ in found), key=lambda memory: memory.device)
    return needed, in_all([pace for _, pace in found], [part.steps for part in parts])


def decided(
    training: InnerTraining,
    *,
    folder: Path,
    before: OuterSpec | None = None,
    listener: Listener = silent,
) -> tuple[InnerTraining, list[str]]:
    """The training with an estimator for each phase that leaves the choice open.

    Args:
        training: the recipe's.
        folder: where the run would keep checkpoints on disk.
        before: the search of the run that goes on: what was chosen then stays.
        listener: is told how far it is.

    Returns:
        The training, and why for each choice.

    Raises:
        EstimatorError: none fits.
    """
    outer, reasons = training.recipe.outer, list[str]()
    then = phases.resolved(before) if before else ()
    chosen: dict[int, EstimatorSpec] = {}
    for phase in phases.resolved(outer):
        if not isinstance(phase.estimator, AutoSpec):
            continue
        if phase.number < len(then):
            spec = then[phase.number].estimator
            why = f"{spec.kind}, as when the run began"
        else:
            alone = _alone(training, _longest(phase, training.recipe))
            found, why = decided_alone(alone, folder=folder, listener=listener)
            spec = found.recipe.outer.estimator
        chosen[phase.number] = spec
        reasons.append(f"of phase {phase.number + 1}: {why}" if outer.phases else why)
    if outer.phases:
        open_for_all = isinstance(outer.estimator, AutoSpec)
        outer = replace(
            outer,
            estimator=MixFlowSpec() if open_for_all else outer.estimator,  # now each has its own
            phases=tuple(
                replace(phase, estimator=chosen.get(number, phase.estimator))
                for number, phase in enumerate(outer.phases)
            ),
        )
    elif chosen:
        outer = replace(outer, estimator=chosen[0])
    return replace(training, recipe=replace(training.recipe, outer=outer)), reasons


def in_all(paces: Sequence[Pace], steps: Sequence[int]) -> Pace:
    """The pace of searches one after the other.

    Args:
        paces: of each as if it were the only one.
        steps: outer steps of each.
    """
    count, first = sum(steps), paces[0]
    each = list(zip(steps, paces, strict=True))
    compilation = sum(pace.compilation for pace in paces)
    searching = sum(n * pace.outer_step for n, pace in each)
    # The last judgement and the report are the same for all, and done once.
    once = first.run - first.compilation - steps[0] * first.outer_step
    return Pace(
        hypergradient=sum(n * pace.hypergradient for n, pace in each) / count,
        judging=first.judging,
        outer_step=searching / count,
        run=compilation + searching + once,
        compilation=compilation,
        differences=max(pace.differences for pace in paces),
        choice=max(pace.choice for pace in paces),
    )


def _of_one_horizon(phase: Phase, recipe: Recipe) -> Iterator[Phase]:
    """A phase, cut where its horizon changes."""
    found = phases.horizons(phase.unroll, recipe.inner, recipe.tune)
    if found is None:
        yield phase
        return
    given = found[: phase.steps]
    for horizon, those in groupby((*given, *given[-1:] * (phase.steps - len(given)))):
        yield replace(phase, steps=len(list(those)), unroll=FullSpec(horizons=(horizon,)))


def _longest(phase: Phase, recipe: Recipe) -> Phase:
    """A phase as if it had its longest horizon from the start."""
    return replace(max(_of_one_horizon(phase, recipe), key=_horizon), steps=phase.steps)


def _horizon(phase: Phase) -> int:
    """Of a phase that has one; 0 where it is the training's."""
    return (isinstance(phase.unroll, FullSpec) and phase.unroll.horizons or (0,))[0]


def _alone(training: InnerTraining, phase: Phase) -> InnerTraining:
    return replace(training, recipe=phases.alone(training.recipe, phase))


def _at(found: Plan, path: str) -> Plan:
    """A plan whose changes are those of the estimator at a path of the recipe."""
    ways = tuple(
        way._replace(changes=tuple(change.replace(PATH, path, 1) for change in way.changes))
        for way in found.alternatives
    )
    return replace(found, alternatives=ways)
