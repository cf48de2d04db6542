"""Rules on learning rates that are shared adaptively."""

from collections.abc import Iterable
from dataclasses import asdict
from statistics import NormalDist
from typing import get_args

from metatune.recipe.faults import Fault
from metatune.recipe.phases import said
from metatune.recipe.schema import LearningRatesSpec, OnlineSpec, OuterSpec, PerElement, SignSpec

PATH = "tune.learning_rates.sharing"


def there_is_something_to_share(tune_learning_rates: LearningRatesSpec) -> Iterable[Fault]:
    """Two cells or more, of groups of whole parameters."""
    if (spec := tune_learning_rates.sharing) is None:
        return
    per, windows = tune_learning_rates.per, tune_learning_rates.windows
    if per in get_args(PerElement):
        problem = f"is of groups of parameters, but per is {per}"
        yield Fault(PATH, asdict(spec), problem, "take tensor, or leave it out")
    if per == "global" and windows == 1:
        problem = "has no effect on a single group and window"
        cure = "leave it out, or say with per and windows how fine rates may become"
        yield Fault(PATH, asdict(spec), problem, cure)


def a_search_can_split(tune_learning_rates: LearningRatesSpec, outer: OuterSpec) -> Iterable[Fault]:
    """Hypergradients repeat each other but for noise, periods end, and what is split can move."""
    if (spec := tune_learning_rates.sharing) is None:
        return
    steps = outer.steps or sum(phase.steps for phase in outer.phases or ())
    if spec.every >= steps > 0:
        problem = f"must be less than the outer steps, {steps}: nothing would be split before them"
        yield Fault(f"{PATH}.every", spec.every, problem, "lower it")
    rarest, allowed = 2.0 ** (1 - spec.every), NormalDist().cdf(-spec.threshold)
    if rarest > allowed:
        problem = (
            f"is a probability of {allowed:.2g}, but {spec.every} outer steps tell none below "
            f"{rarest:.2g}: nothing would be split"
        )
        yield Fault(
            f"{PATH}.threshold", spec.threshold, problem, f"lower it, or raise {PATH}.every"
        )
    if not (outer.fresh.initialisation or outer.fresh.data):
        problem = "must draw initialisation or data anew, so that sharing can tell noise"
        cure = f"make one true, or take {PATH} out"
        yield Fault("outer.fresh", asdict(outer.fresh), problem, cure)
    if outer.population is not None and outer.population.adam == "own":
        problem = "has an optimizer for each member, but sharing splits and merges one for all"
        cure = f"take shared, or {PATH} out"
        yield Fault("outer.population.adam", outer.population.adam, problem, cure)
    for path, optimizer in said(outer, "optimizer"):
        if isinstance(optimizer, SignSpec):
            problem = "halves its steps for good: what is split later would hardly move"
            yield Fault(f"{path}.kind", optimizer.kind, problem, f"take adam, or {PATH} out")
    for path, unroll in said(outer, "unroll"):
        if isinstance(unroll, OnlineSpec):
            problem = "differentiates other inner steps each time: what differs isn't noise alone"
            yield Fault(f"{path}.kind", unroll.kind, problem, f"take full, or {PATH} out")
