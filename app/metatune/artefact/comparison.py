"""Compares an artefact with the model, the data and the recipe that it is to be used for."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import yaml

from metatune.artefact.format import Artefact
from metatune.artefact.sections.loss_weights import LossWeights
from metatune.artefact.sections.mixture import Mixture
from metatune.recipe.faults import nearest
from metatune.recipe.writing import flat

Shape = tuple[int, ...]


class Counterpart(NamedTuple):
    """What an artefact is compared with.

    Attributes:
        source: the path that it was read from.
        parameters: checkpoint names.
        shapes: of parameters, by checkpoint name; those of `parameters` and perhaps of others.
        tokenizer_sha256: None where it has no tokenizer.
        domains: names; None where it has no data.
        recipe: the text of its recipe.yaml; None where it isn't a recipe.
        recipe_sha256: of that text.
        data_sha256: of the data by domain.
        model_config: fields of its config.json; None where it has none.
        weights_sha256: of the pretrained weights that a recipe starts from; None for none.
        horizon: updates and tokens of its training; None where it isn't a recipe.
    """

    source: str
    parameters: tuple[str, ...]
    shapes: Mapping[str, Shape]
    tokenizer_sha256: str | None
    domains: tuple[str, ...] | None
    recipe: str | None = None
    recipe_sha256: str | None = None
    data_sha256: Mapping[str, str] | None = None
    model_config: Mapping[str, Any] | None = None
    weights_sha256: str | None = None
    horizon: tuple[int, int] | None = None


def differences(artefact: Artefact, shapes: Mapping[str, Shape], other: Counterpart) -> list[str]:
    """What doesn't match, a line each with nearest names; empty if everything does.

    Args:
        artefact: the tuned one.
        shapes: of the parameters of its model, as far as it says what that was.
        other: what it is to be used for.
    """
    lines = unmatched_parameters(artefact, other.parameters, other.source)
    lines += other_shapes(shapes, other.shapes, other.source)
    lines += _hashes(artefact, "tokenizer", other.tokenizer_sha256, other.source)
    if other.domains is not None:
        for schedule in (artefact.mixture, artefact.loss_weights):
            if isinstance(schedule, Mixture | LossWeights):
                lines += one_sided("domains", schedule.domains, other.domains, other.source)
                break
    lines += _data(artefact, other)
    if other.recipe is not None:
        lines += _hashes(artefact, "weights", other.weights_sha256, other.source)
    lines += _model_config(artefact, other)
    lines += _horizon(artefact, other)
    return lines + _recipe(artefact, other)


def unmatched_parameters(artefact: Artefact, others: Collection[str], source: str) -> list[str]:
    """The parameters that only the artefact or only `source` has, with nearest names."""
    return one_sided("parameters", tuple(artefact.learning_rates.parameters), others, source)


def other_shapes(ours: Mapping[str, Shape], theirs: Mapping[str, Shape], source: str) -> list[str]:
    """The parameters of the artefact's model that have another shape in `source`."""
    lines = [
        f"  {name}: {list(shape)} of the artefact, {list(theirs[name])} of {source}"
        for name, shape in ours.items()
        if name in theirs and theirs[name] != shape
    ]
    return [f"{len(lines)} parameters of another shape:", *lines] if lines else []


def config_sha256(config: Mapping[str, Any]) -> str:
    """SHA-256 of a model's config, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def one_sided(what: str, ours: Collection[str], theirs: Collection[str], source: str) -> list[str]:
    """The names that only one side has, under a head for each side."""
    lines = []
    for head, names, others in (
        (f"{what} of the artefact that {source} doesn't have", ours, theirs),
        (f"{what} of {source} that the artefact doesn't have", theirs, ours),
    ):
        known = set(others)
        alone = [name for name in names if name not in known]
        if alone:
            lines.append(f"{len(alone)} {head}:")
        for name in alone:
            near = nearest(name, others)
            lines.append(f"  {name}" + (f" (nearest: {near})" if near else ""))
    return lines


def _hashes(artefact: Artefact, what: str, theirs: str | None, source: str) -> list[str]:
    ours = artefact.provenance.get(f"{what}_sha256")
    if not ours or not theirs or ours == theirs:
        return []
    other = "other" if what == "weights" else "another"
    return [f"{other} {what}: the artefact's has the hash {ours}, that of {source} {theirs}"]


def _data(artefact: Artefact, other: Counterpart) -> list[str]:
    ours, theirs = artefact.provenance.get("data_sha256", {}), other.data_sha256 or {}
    return [
        f"other data of {name}: the artefact's has the hash {ours[name]}, "
        f"that of {other.source} {theirs[name]}"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    ]


def _model_config(artefact: Artefact, other: Counterpart) -> list[str]:
    """Fields that the artefact's model was made by; a folder's config.json may have more."""
    if other.model_config is None:
        return []
    ours, theirs = flat(artefact.provenance.get("model_config", {})), flat(other.model_config)
    keys = [key for key in ours if other.recipe is not None or key in theirs]
    keys += [key for key in theirs if other.recipe is not None and key not in ours]
    return _fields("another model config", ours, theirs, keys, other.source)


def _horizon(artefact: Artefact, other: Counterpart) -> list[str]:
    ours = (artefact.horizon_steps, artefact.horizon_tokens)
    if other.horizon is None or other.horizon == ours:
        return []
    said = (f"{steps:,} steps, {tokens:,} tokens" for steps, tokens in (ours, other.horizon))
    return [f"another horizon: {next(said)} of the artefact, {next(said)} of {other.source}"]


def _recipe(artefact: Artefact, other: Counterpart) -> list[str]:
    """Another recipe, field by field where the artefact has its own.

    An estimator that is left to be chosen is no other than the one that was chosen.
    """
    if other.recipe is None:
        return []
    if artefact.origin is None:
        return _hashes(artefact, "recipe", other.recipe_sha256, other.source)
    ours = flat(yaml.safe_load(artefact.origin.recipe))
    theirs = flat(yaml.safe_load(other.recipe))
    chosen = theirs.get("outer.estimator.kind") == "auto"
    keys = [
        key
        for key in dict.fromkeys([*ours, *theirs])
        if not (chosen and key.startswith("outer.estimator."))
    ]
    return _fields("another recipe", ours, theirs, keys, other.source)


def _fields(
    head: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], keys: list[str], source: str
) -> list[str]:
    lines = [
        f"  {key}: {ours.get(key, '(absent)')!r} of the artefact, "
        f"{theirs.get(key, '(absent)')!r} of {source}"
        for key in keys
        if key not in ours or key not in theirs or ours[key] != theirs[key]
    ]
    return [f"{head}:", *lines] if lines else []
