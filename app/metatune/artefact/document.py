"""The root of a tuned.json: its keys, its checks, and the JSON Schema of the whole.

The schema says the same of the shape to other programs; the checks say what is wrong with a value,
and hold the rules between fields, which a schema can't.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from metatune.artefact import result_checks
from metatune.artefact.files import FORMAT, TENSORS, VERSION
from metatune.artefact.format import Artefact
from metatune.artefact.json_schema import COUNT, DEFINITIONS, by_name, of_fields, ref
from metatune.artefact.sections import AS_WRITTEN, BEFORE_RESULT, SECTIONS
from metatune.artefact.sections.section import Columns, Section
from metatune.artefact.value_checks import ValueChecker
from metatune.recipe.faults import ABSENT, Fault

ROOT = "artefact"


def held(artefact: Artefact, sections: Any = None) -> Iterator[tuple[Section, Any]]:
    """The sections of an artefact and what it holds of each, those that it has.

    Args:
        artefact: the artefact.
        sections: in which order; as they are in the table by default.
    """
    for section in sections or SECTIONS.values():
        if (value := getattr(artefact, section.key)) is not None:
            yield section, value


def curves(artefact: Artefact, steps: Sequence[int]) -> dict[str, Columns]:
    """Values of what moves over training at some updates of the tuned training, by section."""
    found = {
        section.key: section.curves(value, steps, artefact.horizon_steps)
        for section, value in held(artefact)
    }
    return {key: columns for key, columns in found.items() if columns}


def keys() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys of a tuned.json that must be there, and the others."""
    required = [section.key for section in SECTIONS.values() if section.required]
    optional = [section.key for section in SECTIONS.values() if not section.required]
    return (
        ("format", "version", "horizon", *required, "provenance", "result", "integrity"),
        ("tensors", *optional),
    )


def document(artefact: Artefact, written: Mapping[str, Any]) -> dict[str, Any]:
    """A tuned.json without its hashes, from what stands there of each section."""

    def stated(before: bool) -> dict[str, Any]:
        return {
            section.key: written.get(section.key)
            for section in AS_WRITTEN
            if (section.key in BEFORE_RESULT) == before
            and (section.required or section.key in written)
        }

    return _with_lists(
        {
            "format": FORMAT,
            "version": VERSION,
            "horizon": {"steps": artefact.horizon_steps, "tokens": artefact.horizon_tokens},
            **stated(before=True),
            "provenance": artefact.provenance,
            "result": artefact.result,
            **stated(before=False),
        }
    )


def _with_lists(value: Any) -> Any:
    """`value` with plain dicts and lists for mappings and tuples, as JSON gives them back."""
    if isinstance(value, Mapping):
        return {key: _with_lists(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_with_lists(entry) for entry in value]
    return value


def faults(document: Mapping[str, Any], cure: str) -> list[Fault]:
    """What is wrong with all but the format, the version, and what stands in other files.

    `cure` is what to do about any of them.
    """
    checker = ValueChecker(cure)
    if not checker.keys(ROOT, document, *keys()):
        return checker.faults
    if checker.keys("horizon", document["horizon"], ("steps", "tokens")):
        for key, value in document["horizon"].items():
            checker.count(f"horizon.{key}", value)
    for section in AS_WRITTEN:
        if section.key in document:
            section.check(checker, document[section.key], document)
    _check_outside(checker, document)
    for key in ("provenance", "result"):
        if checker.is_a(key, document[key], Mapping, "an object"):
            checker.plain(key, document[key])
    checker.faults += result_checks.faults(document["result"], cure)
    if checker.keys("integrity", document["integrity"], ("sha256",), optional=("files",)):
        checker.is_a("integrity.sha256", document["integrity"]["sha256"], str, "a string")
        _check_files(checker, "integrity.files", document["integrity"].get("files", {}))
    if "tensors" in document and checker.keys("tensors", document["tensors"], ("file", "sha256")):
        checker.equal("tensors.file", document["tensors"]["file"], TENSORS)
        checker.is_a("tensors.sha256", document["tensors"]["sha256"], str, "a string")
    return checker.faults


def _outside(document: Mapping[str, Any]) -> list[str]:
    """The names of the tensors of a document that is sound so far."""
    return [
        name
        for section in SECTIONS.values()
        if document.get(section.key) is not None
        for name in section.outside(document[section.key])
    ]


def _check_outside(checker: ValueChecker, document: Mapping[str, Any]) -> None:
    """There is a file of tensors if it is needed."""
    apart = any(
        section.apart(document[key]) for key, section in SECTIONS.items() if key in document
    )
    if apart != ("tensors" in document):
        problem = "must be there if, and only if, something has numbers outside"
        checker.fault("tensors", "tensors" in document or ABSENT, problem)


def _check_files(checker: ValueChecker, path: str, stated: Any) -> None:
    if checker.is_a(path, stated, Mapping, "an object"):
        for name, hashed in stated.items():
            if not name or "/" in name or "\\" in name:
                checker.fault(path, name, "must be the name of a file in the same folder")
            checker.is_a(f"{path}.{name}", hashed, str, "a string")


def tensor_faults(
    document: Mapping[str, Any], tensors: Mapping[str, np.ndarray], cure: str
) -> list[Fault]:
    """What is wrong with the tensors of a document that is sound itself."""
    checker = ValueChecker(cure)
    missing = [repr(name) for name in _outside(document) if name not in tensors]
    if missing:
        checker.fault("tensors", sorted(tensors), f"must hold {', '.join(missing)}")
        return checker.faults
    for section in AS_WRITTEN:
        if document.get(section.key) is not None:
            section.check_tensors(checker, document[section.key], tensors)
    return checker.faults


def schema() -> dict[str, Any]:
    """The JSON Schema of a tuned.json, from the pieces of its sections."""
    anything = {"type": "object"}
    stated = {section.key: section.schema for section in AS_WRITTEN}
    own = {
        "format": {"const": FORMAT},
        "version": {"const": VERSION},
        "horizon": of_fields(
            {"steps": {"description": "Updates.", **COUNT}, "tokens": COUNT},
            description="The training that was tuned.",
        ),
        **stated,
        "provenance": {"description": "Versions and hashes of what it was made from.", **anything},
        "result": {"description": "What the tuning gained.", **anything},
        "tensors": of_fields(
            {"file": {"const": TENSORS}, "sha256": ref("sha256")},
            description="The file beside that holds the numbers that aren't here.",
        ),
        "integrity": of_fields(
            {"sha256": ref("sha256")},
            {
                "files": by_name(
                    ref("sha256"),
                    description="Of every other file of the artefact's folder; not there where "
                    "tuned.json stands alone, nor in artefacts that were written before.",
                )
            },
            description="sha256 is of the JSON of all other keys and of integrity.files, where "
            "that is there: keys sorted, no white space, UTF-8 without escapes.",
        ),
    }
    required, optional = keys()
    outside = [
        {"required": [section.key], "properties": {section.key: section.outside_if}}
        for section in AS_WRITTEN
        if section.outside_if is not None
    ]
    definitions = {name: d for section in AS_WRITTEN for name, d in section.definitions.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"metatune artefact, version {VERSION}",
        "description": "Tuned schedules of a language-model training, over fractions of training.",
        **of_fields({key: own[key] for key in required}, {key: own[key] for key in optional}),
        "if": {"anyOf": outside},
        "then": {"required": ["tensors"]},
        "else": {"not": {"required": ["tensors"]}},
        "$defs": {**DEFINITIONS, **definitions},
    }
