"""Ways to a hypergradient that needn't be compiled and timed: what they take follows from another.

In gradients of an inner step, MixFlow takes one forward, and about 2.6 backward: the tangent of a
gradient, and the optimizer twice. Without saved gradients each is computed once more; reverse mode
that recomputes its steps does so twice. So it is a matter of counting which of them is the fastest,
and no noise of a timing can turn it round.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple, overload

from metatune.inner import InnerTraining, estimators
from metatune.plan import cost_model, forward_mode, reverse_mode
from metatune.plan.cost import Seconds
from metatune.plan.measuring import MeasuredWay
from metatune.plan.memory import Memory
from metatune.plan.over_sizes import largest
from metatune.plan.pace import Pace, pace
from metatune.plan.progress import Tell
from metatune.plan.reverse_mode import Spec
from metatune.plan.timing import Line
from metatune.plan.work import Work, horizon
from metatune.recipe import schema


class Counted(NamedTuple):
    """What a way needs, from another that was measured.

    Attributes:
        memory: bytes.
        pace: seconds.
        gradients: of an inner step that a hypergradient takes, where they can be compared.
    """

    memory: Memory
    pace: Pace
    gradients: float | None


def counted(training: InnerTraining, base: MeasuredWay, folder: Path, tell: Tell) -> Counted:
    """What a training with its estimator needs, from a way that was measured.

    Args:
        training: the recipe's, with the estimator in question: of reverse mode, or FDS.
        base: the same with another estimator.
        folder: where the run would keep checkpoints on disk.
        tell: is told how far it is: what can't be counted is compiled for its bytes.

    Raises:
        CheckpointError: nothing fits the budget of the checkpoints.
        EstimatorError: the tangents exceed their budget.
    """
    spec, count = training.recipe.outer.estimator, None
    if isinstance(spec, schema.ForwardSpec):
        found = cost_model.cost(training, spec, folder, tell)
        memory = found.memory
        if isinstance(base.spec, Spec):  # else the base is one of forward mode, as it was timed
            count = found.seconds({forward_mode.PLAIN: Line(0.0, 1.0)}).hypergradient

        def seconds(of: Seconds) -> float:
            return found.seconds({forward_mode.PLAIN: of.training}).hypergradient

    elif isinstance(spec, Spec):
        memory = _memory(largest(training), spec, base, folder, tell)
        count, own = in_all(training, spec, memory), in_all(training, base.spec, base.memory)
        seconds = partial(_seconds, count, own)

    else:
        raise TypeError(f"{spec.kind} isn't counted from another way")
    rounds = tuple(seconds(each) for each in base.rounds)
    best = base.best._replace(hypergradient=seconds(base.best))
    work = Work(training, estimators.build(spec))
    return Counted(memory, pace(work, best, rounds, base.cost.compilation), count)


def _seconds(count: float, own: float | None, of: Seconds) -> float:
    """Of a hypergradient, from another whose gradients are `own`; None where they don't compare."""
    if own is None:
        return count * of.training.step
    # What was measured of the other holds, but for the gradients that they differ by.
    return max(of.hypergradient + (count - own) * of.training.step, of.hypergradient / 2)


@overload
def in_all(training: InnerTraining, spec: Spec, memory: Memory) -> float: ...


@overload
def in_all(training: InnerTraining, spec: schema.EstimatorSpec, memory: Memory) -> float | None: ...


def in_all(training: InnerTraining, spec: schema.EstimatorSpec, memory: Memory) -> float | None:
    """Gradients of an inner step that a hypergradient by reverse mode takes; None of others.

    Args:
        training: what is differentiated.
        spec: the estimator.
        memory: what it needs: segments that are run again for want of a kept state count, too.
    """
    if not isinstance(spec, Spec):
        return None
    work = reverse_mode.work_of(training, spec)
    steps, window = horizon(training.recipe)
    count = steps - window + window * estimators.gradients(spec) + work.objective_gradients()
    count += memory.recomputed_segments * work.estimator.segment
    return cost_model.repeats(training) * (work.members or 1) * count


def _memory(
    training: InnerTraining, spec: Spec, base: MeasuredWay, folder: Path, tell: Tell
) -> Memory:
    """Bytes of a way of reverse mode, from those of the programs of a MixFlow."""
    known = base.spec
    if not isinstance(known, schema.MixFlowSpec) or not known.mixed_mode:
        known = schema.MixFlowSpec(segment=spec.segment, checkpoints=spec.checkpoints)
    needs = reverse_mode.sizes(training, known, tell)
    # Inner gradients of a segment are saved, or arrays of the pullback, or not there at all.
    without = max(0, needs.pullback - (0 if needs.saved else needs.gradients))
    if isinstance(spec, schema.ReverseSpec):  # second-order activations aren't known: at least
        needs = needs._replace(pullback=without, saved=0)
    elif spec.save_gradients:
        needs = needs._replace(pullback=without, saved=needs.gradients)
    else:
        needs = needs._replace(pullback=without + needs.gradients, saved=0)
    work = reverse_mode.work_of(training, spec)
    found = reverse_mode.memory(work, needs, estimators.checkpoints(spec, folder))
    return cost_model.add_members(training, found)
