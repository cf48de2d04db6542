"""Artefacts for the model of a folder, and for the training of a recipe."""

from dataclasses import replace
from pathlib import Path

from metatune.artefact import Artefact, ArtefactError
from metatune.artefact.comparison import unmatched_parameters
from metatune.inner import InnerTraining
from metatune.recipe.faults import Fault
from metatune.transfer import sides
from metatune.transfer.carried import Carried, carry

NO_SIZES = "note: the artefact doesn't say what its model was: sizes aren't compared"


def toward_folder(
    artefact: Artefact,
    folder: Path | None,
    rule: str | None = None,
    *,
    steps: int | None = None,
    tokens_per_step: int | None = None,
    sequences_per_step: int | None = None,
) -> Carried:
    """An artefact for the model of a folder: as it is, if all its sizes are those that were tuned.

    Args:
        artefact: as it was tuned.
        folder: of the model to come, with a config.json; None for any model.
        rule: a name of `RULES`; by default `complete_d_p` where something differs.
        steps: updates of the training to come; those of the tuned one by default.
        tokens_per_step: its tokens per update.
        sequences_per_step: its sequences per update.

    Raises:
        ArtefactError: a rule without a model; as of `carry`.
        RecipeError: the folder has no config.json that can be read.
    """
    if folder is None:
        if rule is None:
            return Carried(artefact, None)
        cure = "add --against MODEL_DIR, a folder with its config.json"
        fault = Fault("--rule", rule, "needs the model that the rates are for", cure)
        raise ArtefactError("export", [fault])
    sequence = None
    if tokens_per_step and sequences_per_step and not tokens_per_step % sequences_per_step:
        sequence = tokens_per_step // sequences_per_step
    target = sides.of_folder(
        folder, steps=steps, batch_size=sequences_per_step, sequence_length=sequence
    )
    if rule is None and not artefact.provenance.get("model_config"):
        return _by_names(artefact, list(target.parameters), target.source)
    proxy = sides.of_artefact(artefact)
    if steps is None:
        target = replace(target, steps=proxy.steps)
    return carry(artefact, proxy, target, rule)


def toward_training(
    artefact: Artefact,
    training: InnerTraining,
    source: str,
    rule: str | None = None,
    *,
    steps: int | None = None,
) -> Carried:
    """An artefact for the training of a recipe: as it is, if all sizes are those that were tuned.

    Args:
        artefact: as it was tuned.
        training: of the recipe.
        source: what to call it.
        rule: a name of `RULES`; by default `complete_d_p` where something differs.
        steps: updates; the recipe's by default.

    Raises:
        ArtefactError: as of `carry`; a rule where the artefact doesn't say what its model was.
    """
    if rule is None and not artefact.provenance.get("model_config"):
        return Carried(artefact, None, warnings=(NO_SIZES,))
    target = sides.of_training(training, source)
    if steps is not None:
        target = replace(target, steps=steps)
    tokens = {name: its.tokens for name, its in training.corpus.statistics.items()}
    return carry(artefact, sides.of_artefact(artefact), target, rule, tokens)


def _by_names(artefact: Artefact, names: list[str], source: str) -> Carried:
    """An artefact as it is, of which no more is known than the names of its parameters.

    Raises:
        ArtefactError: naming on both sides what only one of them has.
    """
    if lines := unmatched_parameters(artefact, names, source):
        said = "\n".join(f"  {line}" for line in lines)
        raise ArtefactError(source, [f"its parameters aren't those of the artefact\n{said}"])
    return Carried(artefact, None, warnings=(NO_SIZES,))
