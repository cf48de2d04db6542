"""Writes an artefact: tuned.json, its README.md, and what else it has.

That is tuned.safetensors if the curves are many, initialisation.safetensors if the start was tuned,
certificate.json if it was checked, and what it can be trained again from. tuned.json has the hashes
of all of them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_tensors

from metatune.artefact import certificate, initialisation, origin
from metatune.artefact.checks import Checker
from metatune.artefact.folders import replace_folder
from metatune.artefact.format import (
    CERTIFICATE,
    CLASS_WEIGHT_UNIT,
    ELEMENT_UNIT,
    FORMAT,
    INITIALISATION,
    LOSS_TERM_UNIT,
    LOSS_WEIGHT_UNIT,
    MIXTURE_UNIT,
    MULTIPLIER_UNIT,
    RATE_UNIT,
    RATER_UNIT,
    README,
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
    LossWeights,
    Mixture,
    Optimizer,
    Positions,
    Rater,
)
from metatune.artefact.manifest import hashes, sha256
from metatune.recipe.faults import ABSENT, Fault

READABLE_NUMBERS = 200_000
"""Curves of more numbers than this go to tuned.safetensors."""

LINE_LENGTH = 100

OWN = {TUNED, TENSORS, INITIALISATION, README, CERTIFICATE, *origin.FILES}
"""Names of the files of an artefact."""

CURE = "an artefact can't be written with it"


def write(folder: str | Path, artefact: Artefact, readme: str) -> Path:
    """Writes `artefact` as a whole folder, in the place of an older one of the same name.

    Args:
        folder: the artefact folder; may be absent, or hold an older artefact.
        artefact: what to write; every number comes back exactly from `load`.
        readme: text of its README.md.

    Returns:
        The path of its tuned.json.

    Raises:
        ArtefactError: a value that the format doesn't allow, or a folder with other files in it.
    """
    folder = Path(folder)
    rates = artefact.learning_rates
    table = None
    if len(rates.parameters) * len(rates.knots) > READABLE_NUMBERS:
        table = _table(rates, str(folder))
    beside: dict[str, bytes | str] = {README: readme}
    if artefact.certificate is not None:
        beside[CERTIFICATE] = certificate.rendered(artefact.certificate)
    if artefact.origin is not None:
        beside |= origin.files(artefact.origin)
    files = {**beside, **_files(artefact, str(folder), table, beside)}
    replace_folder(folder, files, OWN.__contains__)
    return folder / TUNED


def self_contained(artefact: Artefact) -> str:
    """The text of a tuned.json that holds every number itself, however many.

    Raises:
        ArtefactError: a value that the format doesn't allow, or what stands outside: rates within
            parameters, a start, or networks.
    """
    if artefact.initialisation is not None:
        problem = "the weights of a start don't stand in a tuned.json"
        raise ArtefactError("artefact", [Fault("initialisation", ABSENT, problem)])
    if artefact.learned_update is not None:
        problem = "networks don't stand in a tuned.json"
        raise ArtefactError("artefact", [Fault("learned_update", ABSENT, problem)])
    if artefact.learning_rates.elements is not None:
        problem = "rates within parameters don't stand in a tuned.json"
        raise ArtefactError("artefact", [Fault("learning_rates.elements", ABSENT, problem)])
    if artefact.rater is not None:
        problem = "the parameters of a rater don't stand in a tuned.json"
        raise ArtefactError("artefact", [Fault("rater", ABSENT, problem)])
    return str(portable_files(artefact)[TUNED])


def portable_files(artefact: Artefact) -> dict[str, bytes | str]:
    """A tuned.json that holds every curve itself, however long, by its file name.

    Beside it a tuned.safetensors where rates were tuned within parameters, or networks, and an
    initialisation.safetensors where the start was tuned.

    Raises:
        ArtefactError: a value that the format doesn't allow.
    """
    return _files(artefact, "artefact", None)


def _files(
    artefact: Artefact,
    source: str,
    table: np.ndarray | None,
    beside: Mapping[str, bytes | str] | None = None,
) -> dict[str, bytes | str]:
    """The files with the numbers.

    Args:
        artefact: the artefact.
        source: what errors call it.
        table: array [parameters, knots] of rates that are to stand outside the document.
        beside: the other files of the folder, whose hashes the document is to hold; None where it
            is to hold none.
    """
    rates = artefact.learning_rates
    parameters: Mapping[str, Any] = _lists(rates.parameters)
    tensors = {} if rates.elements is None else dict(rates.elements.parameters)
    if artefact.learned_update is not None:
        tensors |= artefact.learned_update.tensors
    if artefact.rater is not None:
        tensors |= artefact.rater.tensors
    if table is not None:
        tensors[TABLE] = table
        parameters = {"names": list(rates.parameters), "tensor": TABLE}
    document = _document(artefact, parameters)
    files: dict[str, bytes | str] = {}
    if (start := artefact.initialisation) is not None:
        files[INITIALISATION] = written = initialisation.content(start)
        document["initialisation"] = initialisation.document(start, written)
        if bad := list(initialisation.of_weights(start, document["initialisation"]["shapes"])):
            raise ArtefactError(source, bad)
    if tensors:
        content = save_tensors({name: np.ascontiguousarray(held) for name, held in tensors.items()})
        document["tensors"] = {"file": TENSORS, "sha256": sha256(content)}
        files[TENSORS] = content
    listed = None if beside is None else hashes({**beside, **files})
    return {**files, TUNED: _sealed(document, source, tensors, listed)}


def integrity(document: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of the canonical JSON of a document.

    That is without its `integrity`, of which only the hashes of the files beside it stay, where it
    has any. Canonical: keys sorted, no white space, UTF-8 without escapes, floats in their shortest
    form.
    """
    rest = {key: value for key, value in document.items() if key != "integrity"}
    if "files" in (stated := document.get("integrity", {})):
        rest["integrity"] = {"files": stated["files"]}
    text = json.dumps(
        rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return sha256(text.encode())


def _sealed(
    document: dict[str, Any],
    source: str,
    tensors: Mapping[str, np.ndarray],
    files: Mapping[str, str] | None = None,
) -> str:
    """The text of a document after all checks, with its hash.

    Args:
        document: without its `integrity`.
        source: what errors call it.
        tensors: what stands outside the document.
        files: hashes of the files beside it; None where it stands alone.
    """
    checker = Checker(CURE)
    checker.document(document | {"integrity": {"sha256": ""}})
    if not checker.faults:
        checker.tensors(document, tensors)
    if checker.faults:
        raise ArtefactError(source, checker.faults)
    beside = {} if files is None else {"files": files}
    sealed = integrity(document | {"integrity": beside})
    return rendered(document | {"integrity": {"sha256": sealed, **beside}}) + "\n"


def _document(artefact: Artefact, parameters: Mapping[str, Any]) -> dict[str, Any]:
    rates = artefact.learning_rates
    multipliers = None
    if rates.multipliers is not None:
        multipliers = {
            "unit": MULTIPLIER_UNIT,
            "interpolation": rates.multipliers.interpolation,
            "knots": rates.multipliers.knots,
            "groups": rates.multipliers.groups,
            "members": rates.multipliers.members,
        }
    document = {
        "format": FORMAT,
        "version": VERSION,
        "horizon": {"steps": artefact.horizon_steps, "tokens": artefact.horizon_tokens},
        "learning_rates": {
            "unit": RATE_UNIT,
            "interpolation": rates.interpolation,
            "knots": rates.knots,
            "parameters": parameters,
            "multipliers": multipliers,
            **({"elements": _element_document(rates.elements)} if rates.elements else {}),
        },
        "mixture": _domain_document(artefact.mixture, MIXTURE_UNIT),
        "loss_weights": _loss_weight_document(artefact.loss_weights),
        "optimizer": _optimizer_document(artefact.optimizer),
        **({"rater": _rater_document(artefact.rater)} if artefact.rater else {}),
        "provenance": artefact.provenance,
        "result": artefact.result,
    }
    if (terms := artefact.loss_terms) is not None:
        document["loss_terms"] = {
            "unit": LOSS_TERM_UNIT,
            "interpolation": terms.interpolation,
            "knots": terms.knots,
            "values": _lists(terms.values),
            "tuned": terms.tuned,
        }
    if artefact.learned_update is not None:
        document["learned_update"] = artefact.learned_update.document()
    return _with_lists(document)


def _optimizer_document(optimizer: Optimizer) -> dict[str, Any]:
    document = {**optimizer.settings, "decayed": optimizer.decayed}
    if (schedules := optimizer.schedules) is None:
        return document
    decay = schedules.weight_decay
    tuned = {
        "interpolation": schedules.interpolation,
        "knots": schedules.knots,
        "values": _lists(schedules.values),
        "weight_decay": None if decay is None else _lists(decay),
    }
    return {**document, "schedules": tuned}


def _rater_document(rater: Rater) -> dict[str, Any]:
    shapes = {name: held.shape for name, held in rater.tensors.items()}
    return {"unit": RATER_UNIT, **rater.settings, "shapes": shapes}


def _element_document(elements: ElementFactors) -> dict[str, Any]:
    return {
        "unit": ELEMENT_UNIT,
        "interpolation": elements.interpolation,
        "knots": elements.knots,
        "shapes": {name: found.shape[1:] for name, found in elements.parameters.items()},
    }


def _domain_document(schedule: Mixture | LossWeights | None, unit: str) -> dict[str, Any] | None:
    if schedule is None:
        return None
    return {
        "unit": unit,
        "interpolation": schedule.interpolation,
        "knots": schedule.knots,
        "domains": schedule.domains,
        "weights": schedule.weights.tolist(),
    }


def _loss_weight_document(schedule: LossWeights | ClassWeights | None) -> dict[str, Any] | None:
    if not isinstance(schedule, ClassWeights):
        return _domain_document(schedule, LOSS_WEIGHT_UNIT)
    of: dict[str, Any] = {}
    if isinstance(schedule.of, Positions):
        length, starts = schedule.of.sequence_length, schedule.of.starts
        of = {"positions": {"sequence_length": length, "starts": starts}}
    elif isinstance(schedule.of, Labels):
        of = {"labels": True}
    elif schedule.of is not None:
        of = {"vocabulary": schedule.of.classes.tolist()}
    return {
        **of,
        "unit": CLASS_WEIGHT_UNIT,
        "interpolation": schedule.interpolation,
        "knots": schedule.knots,
        "classes": schedule.classes,
        "shares": schedule.shares.tolist(),
        "weights": schedule.weights.tolist(),
    }


def _lists(curves: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: curve.tolist() for name, curve in curves.items()}


def _table(rates: LearningRates, source: str) -> np.ndarray:
    """The rates of all parameters, float64 [parameters, knots]."""
    count = len(rates.knots)
    problem = f"must be [{count}], for [knots]"
    faults = [
        Fault(f"learning_rates.parameters.{name}, shape", list(curve.shape), problem, CURE)
        for name, curve in rates.parameters.items()
        if curve.shape != (count,)
    ]
    if faults:
        raise ArtefactError(source, faults)
    return np.stack(list(rates.parameters.values())).astype(np.float64)


def _with_lists(value: Any) -> Any:
    """`value` with plain dicts and lists for mappings and tuples, as JSON gives them back."""
    if isinstance(value, Mapping):
        return {key: _with_lists(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_with_lists(entry) for entry in value]
    return value


def rendered(value: Any, indent: str = "") -> str:
    """JSON with a line for each curve: lists of numbers stay on one line, however long."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, list):
        numbers = all(isinstance(entry, int | float) for entry in value)
        if numbers or len(indent) + len(flat) <= LINE_LENGTH and not _nested(value):
            return flat
        inner = [rendered(entry, indent + "  ") for entry in value]
        brackets = "[]"
    elif isinstance(value, dict) and value:
        inner = [
            f"{json.dumps(key, ensure_ascii=False)}: {rendered(entry, indent + '  ')}"
            for key, entry in value.items()
        ]
        brackets = "{}"
    else:
        return flat
    lines = ",\n".join(f"{indent}  {entry}" for entry in inner)
    return f"{brackets[0]}\n{lines}\n{indent}{brackets[1]}"


def _nested(value: list[Any]) -> bool:
    return any(isinstance(entry, list | dict) for entry in value)
