"""What the processes of a run have to have in common before any of them computes."""

from metatune.fit.inputs import inputs
from metatune.fit.process.machine import packages
from metatune.inner import InnerTraining
from metatune.recipe import schema, writing
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.phases import resolved
from metatune.runs import processes
from metatune.runs.inputs import flat


def refuse_different(training: InnerTraining, **options: object) -> None:
    """Refuses processes whose recipe, data, versions or options aren't those of the first.

    Args:
        training: as this process has prepared it.
        options: of the command line, that decide what is computed or where it is kept.

    Raises:
        ProcessesError: some differ.
    """
    if processes.here().count == 1:
        return
    made_of = {
        **{f"recipe {k}": v for k, v in writing.flat(writing.to_tree(training.recipe)).items()},
        **flat(inputs(training)),
        **{f"package {name}": version for name, version in packages().items()},
        **{f"--{name.replace('_', '-')}": str(value) for name, value in options.items()},
    }
    processes.refuse_different(made_of)


def refuse_alone(training: InnerTraining) -> None:
    """Refuses what several processes can't do: what each would choose for itself, by its clock.

    Raises:
        RecipeError: the estimator is left open.
    """
    if processes.here().count == 1:
        return
    for number, phase in enumerate(resolved(training.recipe.outer)):
        if isinstance(phase.estimator, schema.AutoSpec):
            where = f"outer.phases[{number}]" if training.recipe.outer.phases else "outer"
            raise RecipeError(
                "recipe",
                (
                    Fault(
                        f"{where}.estimator",
                        "auto",
                        "is chosen by what fits one process; several can't agree on it",
                        "name one: `metatune plan --devices` says what it takes",
                    ),
                ),
            )
