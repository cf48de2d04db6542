"""The two sides of a transfer, from an artefact, a model's folder and a recipe."""

from pathlib import Path
from typing import Any

import yaml

from metatune.artefact import Artefact, ArtefactError
from metatune.artefact.demands import destination
from metatune.data.tokenizers import tokenizer
from metatune.inner import InnerTraining
from metatune.models import read_config
from metatune.recipe.faults import ABSENT, Fault
from metatune.recipe.schema import GroupsSpec
from metatune.transfer.sizes import Side, of_config, of_model
from metatune.transfer.stepping import called, kinds_of

TUNED = "the tuned model"
"""What the side of an artefact is called."""

TOKENIZER = "tokenizer.json"


def of_artefact(artefact: Artefact) -> Side:
    """That of the training that was tuned; of a carried artefact, that which it was carried to.

    Raises:
        ArtefactError: it doesn't say what its model was.
        RecipeError: its model's config can't be read.
    """
    if (carried := destination(artefact)) is not None:
        return of_config(carried.source, carried.model_config, steps=carried.steps)
    config = artefact.provenance.get("model_config")
    if not config:
        problem = "isn't there, so that the sizes of the tuned model can't be known"
        cure = "tune anew, or leave the model to come out"
        raise ArtefactError("artefact", [Fault("provenance.model_config", ABSENT, problem, cure)])
    data: dict[str, Any] = {}
    if artefact.origin is not None:
        data = (yaml.safe_load(artefact.origin.recipe) or {}).get("data", {})
    return of_config(
        TUNED,
        config,
        vocabulary=artefact.provenance.get("vocab_size"),
        sequence_length=data.get("sequence_length"),
        batch_size=data.get("batch_size"),
        steps=artefact.horizon_steps,
        tokenizer_sha256=artefact.provenance.get("tokenizer_sha256"),
        optimizer=called(artefact.optimizer.settings["kind"], artefact.optimizer.kinds),
    )


def of_folder(folder: Path, **training: Any) -> Side:
    """That of the config.json in a folder; there need be no weights.

    Args:
        folder: with a config.json, and perhaps the tokenizer.
        training: what is known of the training, by fields of `Side`.

    Raises:
        RecipeError: there is none, or it can't be read.
    """
    there = (folder / TOKENIZER).is_file()
    sha256 = tokenizer(str(folder)).sha256 if there else None
    return of_config(str(folder), read_config(folder), tokenizer_sha256=sha256, **training)


def of_training(training: InnerTraining, source: str) -> Side:
    """That of a recipe's training."""
    recipe = training.recipe
    optimizer = recipe.inner.optimizer
    of = kinds_of(optimizer, training.names)
    groups = optimizer.groups if isinstance(optimizer, GroupsSpec) else (optimizer,)
    kinds = [each.kind for each in groups]
    adapted = "adapters" if recipe.inner.lora else None
    pretrained = "pretrained weights" if training.weights_sha256 else None
    return of_model(
        source,
        training.model,
        sequence_length=recipe.data.sequence_length,
        batch_size=recipe.data.batch_size,
        steps=recipe.inner.steps,
        tokenizer_sha256=training.corpus.tokenizer.sha256,
        optimizer=called(optimizer.kind, kinds),
        kinds={} if isinstance(of, str) else of,
        start=adapted or pretrained,
    )
