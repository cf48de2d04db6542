"""Checking a recipe from end to end, and the certificate beside the result of its run."""

import hashlib
import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from metatune import artefact
from metatune.check.certificate import as_json, judge
from metatune.check.limits import limits
from metatune.check.measuring import cost, measure
from metatune.check.numbers import Numbers, Settings
from metatune.check.progress import CheckDisplay
from metatune.check.recipes import first_phase_alone, shortened, subject_of
from metatune.inner import InnerTraining
from metatune.recipe import writing
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.measures import unit
from metatune.recipe.schema import InnerOptimizerSpec, Recipe, in_groups
from metatune.report.artefact_readme import readme


def check(
    training: InnerTraining,
    settings: Settings,
    *,
    steps: int | None,
    scratch: Path,
    console: Console,
) -> dict[str, Any]:
    """Certifies the hypergradients of a recipe: those of its first phase.

    Args:
        training: the recipe's, with its estimator chosen.
        settings: how much to look at; the step of the metasmoothness is that of the search.
        steps: of a shortened training; None for the recipe's.
        scratch: a folder for states that are kept on disk.
        console: where progress is shown.

    Returns:
        The certificate, as plain JSON values.

    Raises:
        RecipeError: so many steps can't be, or its hypergradient can't be checked.
        EstimatorError: the recipe's estimator can't be used for this training.
        CheckpointError: no room for the states of the training.
    """
    numbers = measured(training, settings, steps=steps, scratch=scratch, console=console)
    recipe = training.recipe
    about = {
        "metatune": importlib.metadata.version("metatune"),
        "recipe_sha256": sha256(recipe),
        "recipe_steps": recipe.inner.steps,
        "phases": len(recipe.outer.phases or (first_phase_alone(recipe),)),
    }
    return with_fields(as_json(judge(numbers), about), recipe.inner.optimizer)


def with_fields(document: Any, optimizer: InnerOptimizerSpec) -> Any:
    """A certificate whose causes name the fields of the recipe, as of `schema.in_groups`."""
    if not isinstance(document, dict):
        return document
    return {
        key: [in_groups(cause, optimizer) for cause in value]
        if key == "causes"
        else with_fields(value, optimizer)
        for key, value in document.items()
    }


def measured(
    training: InnerTraining,
    settings: Settings,
    *,
    steps: int | None,
    scratch: Path,
    console: Console,
) -> Numbers:
    """What `check` judges by; arguments and errors are the same."""
    first = first_phase_alone(training.recipe)
    settings = settings._replace(step=first.outer.optimizer.learning_rate)
    own = checked = replace(training, recipe=first)
    if steps is not None:
        checked = shortened(own, steps)
    with CheckDisplay(console) as display:
        subject = subject_of(checked, scratch, display.watch)
        subject = replace(subject, own=subject_of(own, scratch).horizon)
        display.begin(cost(subject, settings))
        display.say(f"objectives are {unit(first)}")
        for line in limits(subject.horizon, subject.own or subject.horizon):
            display.say(line)
        return measure(subject, settings)


def sha256(recipe: Recipe) -> str:
    """The hash that an artefact's provenance names a recipe by."""
    return hashlib.sha256(writing.to_yaml(recipe).encode()).hexdigest()


def refuse_other_run(recipe: Recipe, tuned: artefact.Artefact) -> None:
    """A certificate belongs beside the result of its own recipe.

    Raises:
        RecipeError: the artefact is of another recipe.
    """
    own, other = sha256(recipe), tuned.provenance.get("recipe_sha256")
    if own != other:
        problem = f"is the recipe's, but the run was made with {other}"
        cure = "give the recipe.yaml of the run folder, and no changes to it"
        raise RecipeError("check", [Fault("recipe_sha256", own, problem, cure)])


def write_into_run(run: Path, document: dict[str, Any]) -> None:
    """Puts a certificate beside a run's result, and says so in its README.

    Args:
        run: a run folder, an artefact folder, or a tuned.json.
        document: the certificate.
    """
    tuned = replace(artefact.load(run), certificate=document)
    artefact.write(artefact.folder_of(run), tuned, readme(tuned))
