"""What an outer step asks of its trainings, whatever their number."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from metatune.data import stratified_batches
from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import Span
from metatune.hypergrad.problem import Batches
from metatune.inner import InnerTraining, estimators
from metatune.inner.devices import over_processes, share
from metatune.inner.horizons import Rescaled
from metatune.inner.metrics import held_out_batches
from metatune.inner.seeds import Purpose, Stream, data_seed
from metatune.recipe.phases import Phase
from metatune.recipe.trajectory import points


def asked(
    training: InnerTraining, search: Search, phase: Phase, span: Span, scratch: Path
) -> tuple[Callable[[int, int | None], Batches], dict[str, Any]]:
    """What an outer step asks of its trainings.

    Args:
        training: of the recipe.
        search: where the search stands.
        phase: the one that it is in.
        span: the inner steps that are differentiated.
        scratch: where checkpoints on disk lie.

    Returns:
        The data, by the number of a training and of a member, and the arguments of `hypergradient`
        that all have.
    """
    recipe, outer = training.recipe, training.recipe.outer
    seed = partial(data_seed, recipe.seed, Purpose.HYPERGRADIENT)
    if span.rescaled:
        shorter = Rescaled(training, span.steps)
        problem, shares = shorter.problem, shorter.shares(search.eta)
    else:
        problem, shares = training.reweighted, training.trajectory(search.eta).mixture

    def batches(number: int, member: int | None) -> Batches:
        mine = stratified_batches(
            training.corpus,
            seed=seed(number if outer.fresh.data else 0, Stream.TRAINING, member),
            batch_size=recipe.data.batch_size,
            shares=shares,
            part=share(training.layout),
        )
        return over_processes(training.layout, mine)

    return batches, {
        "problem": problem,
        "eta": search.eta,
        "outer_batches": held_out_batches(
            outer,
            training.corpus,
            "validation",
            seed=seed(search.step if outer.fresh.data else 0, Stream.HELD_OUT),
            sequences=outer.objective.sequences,
            layout=training.layout,
        ),
        "steps": span.steps,
        "window": span.window,
        "points": points(outer.objective.trajectory, span.steps),
        "estimator": estimators.build(phase.estimator),
        "checkpoints": estimators.checkpoints(phase.estimator, scratch),
        "control": search.control or None,
    }
