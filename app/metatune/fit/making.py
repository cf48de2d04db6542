"""Makes the artefact of meta-parameters: what every inner step used, under portable names."""

import hashlib
import importlib.metadata
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import jax

from metatune import artefact
from metatune.artefact.sections import SECTIONS
from metatune.fit.process.machine import packages
from metatune.fit.replaying.record import origin
from metatune.fit.telling import dataset_statistics
from metatune.inner import InnerTraining
from metatune.recipe import schema, writing
from metatune.tunables import ENTRIES, Used


def artefact_of(
    training: InnerTraining,
    eta: Mapping[str, jax.Array],
    result: Mapping[str, Any],
    recorded: Mapping[str, Any] | None = None,
) -> artefact.Artefact:
    """The artefact of meta-parameters.

    Args:
        training: the inner training.
        eta: meta-parameters.
        result: what was measured.
        recorded: of the tuned training that was measured first; None where none was.
    """
    steps, tokens = horizon(training.recipe)
    return artefact.Artefact(
        horizon_steps=steps,
        horizon_tokens=tokens,
        provenance=provenance(training),
        result=dict(result),
        origin=origin(training, eta, recorded),
        **sections_of(training, eta),
    )


def sections_of(
    training: InnerTraining, eta: Mapping[str, jax.Array], keys: Collection[str] = tuple(SECTIONS)
) -> dict[str, Any]:
    """The sections of the artefact of meta-parameters by key, or some of them; None for none."""
    recipe = training.recipe
    used = Used(
        steps=recipe.inner.steps,
        trajectory=training.trajectory(eta),
        domains=training.corpus.names,
        sequence_length=training.corpus.sequence_length,
        optimizer=recipe.inner.optimizer,
        decayed=training.decayed(),
        members=training.members(),
        start=lambda: training.start(eta),
    )
    return {key: ENTRIES[key].section(training.tunables, eta, used) for key in keys}


def horizon(recipe: schema.Recipe) -> tuple[int, int]:
    """Updates and tokens of the training of a recipe."""
    steps = recipe.inner.steps
    return steps, steps * recipe.data.batch_size * recipe.data.sequence_length


def provenance(training: InnerTraining) -> dict[str, Any]:
    """What the artefact came from: hashes of all that went in, and versions."""
    recipe, corpus = training.recipe, training.corpus
    return {
        "metatune": importlib.metadata.version("metatune"),
        "recipe_sha256": hashlib.sha256(writing.to_yaml(recipe).encode()).hexdigest(),
        "tokenizer_sha256": corpus.tokenizer.sha256,
        "domains": dataset_statistics.provenance(training),
        "data_sha256": {domain.name: domain.sha256 for domain in corpus.measured},
        "target": {
            domain.name: float(weight)
            for domain, weight in zip(corpus.measured, corpus.target, strict=True)
        },
        "model_config": training.model.config_json(),
        "vocab_size": training.model.config.vocab_size,
        **({"weights_sha256": training.weights_sha256} if training.weights_sha256 else {}),
        **(
            {"checkpoints_sha256": dict(training.checkpoints_sha256)}
            if training.checkpoints_sha256
            else {}
        ),
        **({"lora": asdict(recipe.inner.lora)} if recipe.inner.lora else {}),
        "packages": packages(),
    }
