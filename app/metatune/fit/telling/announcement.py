"""What a search is about to do, in words."""

from collections.abc import Iterator, Sequence

from metatune.fit.searching import population
from metatune.fit.searching.phases import steps_at_most
from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import next_span
from metatune.inner import InnerTraining
from metatune.recipe.phases import Phase
from metatune.recipe.schema import PersistentESSpec
from metatune.transfer.sized import rungs, sizes


def announcement(training: InnerTraining, phases: Sequence[Phase], search: Search) -> str:
    """What is about to be done, in a line."""
    sizes = {key: "x".join(map(str, leaf.shape)) for key, leaf in search.eta.items()}
    tuned = ", ".join(f"{key} ({size})" for key, size in sizes.items())
    phase = phases[search.phase]
    span = next_span(training.recipe, phase, search)
    steps = f"{span.steps} inner steps{' at first' if span.rescaled else ''}"
    if training.recipe.outer.population:
        ages = population.ages(training.recipe, phase)
        steps += f" of {len(ages)} trainings"
        if any(ages) and search.step == search.phase_start:
            steps += f", trained to the ages of {', '.join(map(str, ages))} inner steps first"
    if robust := training.recipe.outer.robust:
        names = "; ".join(rung.name for rung in rungs(robust))
        each = f", {robust.seeds} of each" if robust.seeds > 1 else ""
        steps += f" at {len(rungs(robust))} sizes{each} ({names}; by {robust.rule})"
    if isinstance(phase.estimator, PersistentESSpec):
        steps += f" of {2 * phase.estimator.pairs} trainings in pairs"
    begin = f"from point {search.step}, " if search.step else ""
    count = steps_at_most(phases, search)
    which = f"phase {phase.number + 1} of {len(phases)}, {ways(phase)}; "
    return (
        f"tuning {tuned} over {count} outer step{'' if count == 1 else 's'} of {steps}; "
        f"{which if len(phases) > 1 else ''}{begin}compiling ..."
    )


def undone(training: InnerTraining) -> Iterator[str]:
    """What a rule asks of trainings of other sizes that none here does, a line each."""
    for each in sizes(training):
        yield from (f"warning: not done here at {each.name}: {what}" for what in each.undone)


def ways(phase: Phase) -> str:
    """The choices of a phase in a few words."""
    return (
        f"{phase.estimator.kind}, {phase.unroll.kind}, {phase.optimizer.kind}, "
        f"{phase.steps} outer steps at most"
    )
