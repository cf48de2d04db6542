"""Reads an artefact back, and says what is wrong with one that can't be read."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from metatune.artefact import certificate, initialisation, learned_update, manifest, origin
from metatune.artefact.checks import Checker
from metatune.artefact.format import (
    FORMAT,
    RATER_SETTINGS,
    RATER_TENSORS,
    SETTINGS,
    TABLE,
    TENSORS,
    TUNED,
    VERSION,
    Artefact,
    ArtefactError,
    ClassWeights,
    ElementFactors,
    Labels,
    LearningRates,
    LossTerms,
    LossWeights,
    Mixture,
    Multipliers,
    Optimizer,
    OptimizerSchedules,
    Positions,
    Rater,
    Vocabulary,
)
from metatune.artefact.manifest import sha256
from metatune.artefact.writing import integrity
from metatune.recipe.bounds import OutOfBounds, read_json
from metatune.recipe.faults import Fault

CURE = "take the artefact anew from the run that wrote it"


def load(path: str | Path) -> Artefact:
    """Reads an artefact.

    Args:
        path: a tuned.json, the artefact folder, or a run folder that holds `artefact/`.

    Returns:
        The artefact, every number exactly as it was written, and the certificate beside it if
        there is one of its recipe.

    Raises:
        ArtefactError: nothing there, not an artefact, an unknown version, a missing or unknown
            key, a value that isn't allowed, a file that is missing, was changed or was added after
            it was written, or a certificate that can't be read. Artefacts that were written
            before the hashes of all files were kept have none, and are read without.
    """
    file = _find(Path(path))
    document = _parse(file)
    checker = Checker(CURE)
    checker.document(document)
    if checker.faults:
        raise ArtefactError(str(file), checker.faults)
    _check_integrity(file, document)
    tensors = _tensors(file, document)
    found = certificate.read(file.parent)
    tuned = replace(
        _artefact(document, tensors),
        origin=origin.read(file.parent),
        initialisation=initialisation.read(file.parent, document.get("initialisation")),
    )
    return certificate.with_certificate(tuned, found)


def folder_of(path: str | Path) -> Path:
    """The artefact folder that `load` would read.

    Raises:
        ArtefactError: nothing there.
    """
    return _find(Path(path)).parent


def _find(path: Path) -> Path:
    candidates = [path, path / TUNED, path / "artefact" / TUNED]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    problem = f"holds no artefact; looked for {', '.join(str(place) for place in candidates)}"
    if not path.exists():
        problem = "isn't there"
    cure = "give a run folder of `metatune fit`, an artefact folder, or a tuned.json"
    raise ArtefactError(str(path), [f"{problem}; {cure}"])


def _parse(file: Path) -> dict[str, Any]:
    try:
        document = read_json(file)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise ArtefactError(str(file), [f"not JSON ({place}); {CURE}"]) from error
    except UnicodeDecodeError as error:
        raise ArtefactError(str(file), [f"not UTF-8 text ({error.reason}); {CURE}"]) from error
    except OutOfBounds as error:
        raise ArtefactError(str(file), [f"holds {error}; {CURE}"]) from error
    found = document.get("format") if isinstance(document, dict) else None
    if not isinstance(document, dict) or found != FORMAT:
        cure = f"give the {TUNED} of a run of `metatune fit`"
        raise ArtefactError(str(file), [Fault("format", found, f"must be {FORMAT!r}", cure)])
    version = document.get("version")
    if version != VERSION or isinstance(version, bool):
        problem = f"an unknown version, this metatune reads version {VERSION}"
        raise ArtefactError(str(file), [Fault("version", version, problem, "upgrade metatune")])
    return document


def _check_integrity(file: Path, document: Mapping[str, Any]) -> None:
    stated, found = document["integrity"]["sha256"], integrity(document)
    if stated != found:
        problem = f"the hash of the content is {found}: the file was changed after it was written"
        raise ArtefactError(str(file), [Fault("integrity.sha256", stated, problem, CURE)])
    if "files" in document["integrity"]:
        faults = manifest.faults(file.parent, document["integrity"]["files"])
        if faults:
            raise ArtefactError(str(file), faults)


def _tensors(file: Path, document: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """What the file beside a document holds, empty if there is none."""
    tensors = document.get("tensors")
    if tensors is None:
        return {}
    beside = file.parent / TENSORS
    if not beside.is_file():
        problem = f"not found at {beside}, where the numbers must be that {TUNED} doesn't hold"
        cure = f"copy it together with {TUNED}"
        raise ArtefactError(str(file), [Fault("tensors.file", TENSORS, problem, cure)])
    content = beside.read_bytes()
    if sha256(content) != tensors["sha256"]:
        problem = f"the hash of {beside} is {sha256(content)}: it isn't the one that was written"
        fault = Fault("tensors.sha256", tensors["sha256"], problem, CURE)
        raise ArtefactError(str(file), [fault])
    try:
        held = load_tensors(content)
    except (SafetensorError, KeyError, ValueError) as error:  # of dtypes that NumPy hasn't
        raise ArtefactError(str(beside), [f"not safetensors ({error!r}); {CURE}"]) from error
    checker = Checker(CURE)
    checker.tensors(document, held)
    if checker.faults:
        raise ArtefactError(str(beside), checker.faults)
    return held


def _curves(
    parameters: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Rates [knots] by parameter, from the document or from the file beside it."""
    if TABLE in tensors:
        return dict(zip(parameters["names"], tensors[TABLE], strict=True))
    return {name: np.asarray(curve, np.float64) for name, curve in parameters.items()}


def _artefact(document: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Artefact:
    rates, optimizer = document["learning_rates"], document["optimizer"]
    multipliers, elements = rates["multipliers"], rates.get("elements")
    learned = document.get("learned_update")
    return Artefact(
        horizon_steps=document["horizon"]["steps"],
        horizon_tokens=document["horizon"]["tokens"],
        learning_rates=LearningRates(
            _floats(rates["knots"]),
            rates["interpolation"],
            _curves(rates["parameters"], tensors),
            multipliers
            and Multipliers(
                _floats(multipliers["knots"]),
                {group: _floats(curve) for group, curve in multipliers["groups"].items()},
                {group: tuple(names) for group, names in multipliers["members"].items()},
                multipliers.get("interpolation", "constant"),
            ),
            elements
            and ElementFactors(
                _floats(elements["knots"]),
                elements["interpolation"],
                {name: tensors[name] for name in elements["shapes"]},
            ),
        ),
        mixture=document["mixture"] and Mixture(**_domain_fields(document["mixture"])),
        loss_weights=_loss_weights(document["loss_weights"]),
        optimizer=Optimizer(
            {key: optimizer[key] for key in SETTINGS[optimizer["kind"]]},
            tuple(optimizer["decayed"]),
            _optimizer_schedules(optimizer.get("schedules")),
        ),
        provenance=document["provenance"],
        result=document["result"],
        loss_terms=_loss_terms(document.get("loss_terms")),
        learned_update=learned and learned_update.read(learned, tensors),
        rater=_rater(document.get("rater"), tensors),
    )


def _rater(held: Mapping[str, Any] | None, tensors: Mapping[str, np.ndarray]) -> Rater | None:
    if held is None:
        return None
    settings = {key: held[key] for key in RATER_SETTINGS[held["kind"]]}
    return Rater(
        settings, {name.removeprefix(RATER_TENSORS): tensors[name] for name in held["shapes"]}
    )


def _optimizer_schedules(schedules: Mapping[str, Any] | None) -> OptimizerSchedules | None:
    if schedules is None:
        return None
    decay = schedules["weight_decay"]
    return OptimizerSchedules(
        _floats(schedules["knots"]),
        schedules["interpolation"],
        _arrays(schedules["values"]),
        None if decay is None else _arrays(decay),
    )


def _loss_terms(terms: Mapping[str, Any] | None) -> LossTerms | None:
    if terms is None:
        return None
    return LossTerms(
        _floats(terms["knots"]),
        terms["interpolation"],
        _arrays(terms["values"]),
        tuple(terms["tuned"]),
    )


def _arrays(curves: Mapping[str, list[float]]) -> dict[str, np.ndarray]:
    return {name: np.asarray(curve, np.float64) for name, curve in curves.items()}


def _loss_weights(schedule: Mapping[str, Any] | None) -> LossWeights | ClassWeights | None:
    if schedule is None:
        return None
    if "classes" not in schedule:
        return LossWeights(**_domain_fields(schedule))
    return ClassWeights(
        _floats(schedule["knots"]),
        schedule["interpolation"],
        tuple(schedule["classes"]),
        np.asarray(schedule["shares"], np.float64),
        np.asarray(schedule["weights"], np.float64),
        _classes_of(schedule),
    )


def _classes_of(schedule: Mapping[str, Any]) -> Positions | Vocabulary | Labels | None:
    if "labels" in schedule:
        return Labels()
    if (found := schedule.get("positions")) is not None:
        return Positions(found["sequence_length"], tuple(found["starts"]))
    found = schedule.get("vocabulary")
    return None if found is None else Vocabulary(np.asarray(found, np.uint8))


def _domain_fields(schedule: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "knots": _floats(schedule["knots"]),
        "interpolation": schedule["interpolation"],
        "domains": tuple(schedule["domains"]),
        "weights": np.asarray(schedule["weights"], np.float64),
    }


def _floats(numbers: list[float]) -> tuple[float, ...]:
    return tuple(float(number) for number in numbers)
