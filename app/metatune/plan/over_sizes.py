"""What a hypergradient over several sizes costs: that of each, one after the other."""

from collections.abc import Sequence

from metatune.inner import InnerTraining
from metatune.plan.cost import Cost, Seconds
from metatune.plan.timing import Line, Lines, Probe
from metatune.transfer.sized import Sized, sizes


def largest(training: InnerTraining) -> InnerTraining:
    """The largest training of `outer.robust`; the recipe's own where it has none."""
    return sizes(training)[-1].training


def over_sizes(several: Sequence[Sized], costs: Sequence[Cost], seeds: int) -> Cost:
    """Of a hypergradient that is the mean over sizes.

    Args:
        several: the sizes.
        costs: of a hypergradient at each.
        seeds: trainings of each.
    """

    def probes() -> tuple[Probe, ...]:
        return tuple(
            _named(probe, each)
            for each, cost in zip(several, costs, strict=True)
            for probe in cost.probes()
        )

    def seconds(lines: Lines) -> Seconds:
        found = [cost.seconds(_of(each, lines)) for each, cost in zip(several, costs, strict=True)]
        trained = [one.training for one in found]
        own = next(
            line for each, line in zip(several, trained, strict=True) if each.name == "proxy"
        )
        in_all = Line(sum(line.segment for line in trained), sum(line.step for line in trained))
        return Seconds(seeds * sum(one.hypergradient for one in found), in_all, own)

    return Cost(
        max((cost.memory for cost in costs), key=lambda memory: memory.device),
        sum(cost.compilation for cost in costs),
        probes,
        seconds,
    )


def _named(probe: Probe, each: Sized) -> Probe:
    return probe._replace(program=probe.program._replace(name=at_size(probe.program.name, each)))


def at_size(program: str, each: Sized) -> str:
    """What a program of a size is called among those of all."""
    return program + _suffix(each)


def _of(each: Sized, lines: Lines) -> Lines:
    """The lines of the programs of a size, as these are called by themselves."""
    end = _suffix(each)
    return {name.removesuffix(end): line for name, line in lines.items() if name.endswith(end)}


def _suffix(each: Sized) -> str:
    return f" at {each.name}"
