"""Rules on how what is tuned is divided: into groups of parameters, and windows."""

from collections.abc import Iterable, Mapping

from metatune.recipe.expressions import no_expressions
from metatune.recipe.faults import Fault
from metatune.recipe.schema import LearningRatesSpec, PointSpec, TuneSpec


def groups_are_expressions(tune: TuneSpec) -> Iterable[Fault]:
    """Groups of parameters are regular expressions, one or more."""
    for _, entry, settings in tune.entries():
        per, path = getattr(settings, "per", ""), f"{entry}.per"
        if isinstance(per, str):
            continue
        if not per:
            yield Fault(path, per, "names no group", "write at least one regular expression")
        if isinstance(per, Mapping):
            expressions = {f"{path}.{name}": expression for name, expression in per.items()}
        else:
            expressions = {f"{path}[{index}]": expression for index, expression in enumerate(per)}
        yield from no_expressions(expressions)
    if isinstance(tune.initialisation, PointSpec):
        path, moved = "tune.initialisation.parameters", tune.initialisation.parameters or ()
        yield from no_expressions({f"{path}[{i}]": e for i, e in enumerate(moved)})


def windows_to_go_between(tune_learning_rates: LearningRatesSpec) -> Iterable[Fault]:
    """What is said of the way from window to window has an effect."""
    rates, path = tune_learning_rates, "tune.learning_rates"
    if rates.windows > 1:
        return
    cure = f"leave it out, or raise {path}.windows"
    if rates.interpolation == "linear":
        problem = "has no effect on a single window"
        yield Fault(f"{path}.interpolation", rates.interpolation, problem, cure)
    if rates.smoothness > 0:
        problem = "has no effect on a single window"
        yield Fault(f"{path}.smoothness", rates.smoothness, problem, cure)
