"""Rules on the inner training."""

from collections.abc import Iterable

from metatune.recipe.expressions import no_expressions
from metatune.recipe.faults import Fault
from metatune.recipe.schema import DataSpec, InnerSpec, WarmupStableDecaySpec


def schedule_fits(inner: InnerSpec) -> Iterable[Fault]:
    """Warmup and decay don't overlap."""
    schedule = inner.optimizer.schedule
    if isinstance(schedule, WarmupStableDecaySpec) and schedule.warmup + schedule.decay > 1:
        problem = f"with warmup = {schedule.warmup} exceeds the training; must sum to at most 1"
        path = "inner.optimizer.schedule.decay"
        yield Fault(path, schedule.decay, problem, "lower one of them")


def what_is_trained_is_expressions(inner: InnerSpec) -> Iterable[Fault]:
    """What is trained and what has adapters are regular expressions, one or more."""
    lists = {"inner.train": inner.train, "inner.lora.targets": inner.lora and inner.lora.targets}
    for path, expressions in lists.items():
        if expressions is not None and not expressions:
            yield Fault(path, [], "names nothing", "write at least one regular expression")
        yield from no_expressions({f"{path}[{i}]": e for i, e in enumerate(expressions or ())})


def micro_batch_divides_the_batch(inner: InnerSpec, data: DataSpec) -> Iterable[Fault]:
    """All micro-batches are of one size."""
    if inner.micro_batch is not None and data.batch_size % inner.micro_batch:
        problem = f"must divide data.batch_size, {data.batch_size}"
        cure = "change one of the two, or leave it out for the whole batch"
        yield Fault("inner.micro_batch", inner.micro_batch, problem, cure)
