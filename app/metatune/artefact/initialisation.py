"""The tuned start of an artefact: weights in a file of their own, and where they came from.

initialisation.safetensors holds what the tuned training begins with, float32 by checkpoint name, of
every parameter that is trained; tuned.json its shapes and its hash.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from metatune.artefact.format import INITIALISATION, ArtefactError, Initialisation, Interpolated
from metatune.artefact.manifest import sha256
from metatune.recipe.faults import ABSENT, Fault

PATH = "initialisation"
KINDS = ("point", "interpolation")
KEYS = ("kind", "file", "sha256", "shapes", "interpolated")
CURE = "take the artefact anew from the run that wrote it"


def content(start: Initialisation) -> bytes:
    """The file of a start, as transformers and torch read it too."""
    # C order: safetensors writes the bytes as they lie, whatever the strides.
    held = {name: np.array(value, order="C") for name, value in start.parameters.items()}
    return save_tensors(held, metadata={"format": "pt"})


def document(start: Initialisation, written: bytes) -> dict[str, Any]:
    """What tuned.json says of a start whose file is `written`."""
    between = start.interpolated
    return {
        "kind": start.kind,
        "file": INITIALISATION,
        "sha256": sha256(written),
        "shapes": {name: list(value.shape) for name, value in start.parameters.items()},
        "interpolated": between
        and {
            "coefficients": {name: dict(row) for name, row in between.coefficients.items()},
            "members": {group: list(names) for group, names in between.members.items()},
        },
    }


def read(folder: Path, stated: Mapping[str, Any] | None) -> Initialisation | None:
    """The start of the artefact in a folder; None of an artefact without.

    Args:
        folder: that tuned.json is in.
        stated: what it says of the start, sound by itself.

    Raises:
        ArtefactError: the file isn't there, isn't the one that was written, or can't be read.
    """
    if stated is None:
        return None
    file = folder / INITIALISATION
    if not file.is_file():
        problem = f"not found at {file}, where the weights of the start must be"
        fault = Fault(f"{PATH}.file", INITIALISATION, problem, "copy it together with tuned.json")
        raise ArtefactError(str(folder), [fault])
    held = file.read_bytes()
    if sha256(held) != stated["sha256"]:
        problem = f"the hash of {file} is {sha256(held)}: it isn't the one that was written"
        raise ArtefactError(str(folder), [Fault(f"{PATH}.sha256", stated["sha256"], problem, CURE)])
    try:
        parameters = load_tensors(held)
    except SafetensorError as error:
        raise ArtefactError(str(file), [f"not safetensors ({error}); {CURE}"]) from error
    between = stated["interpolated"]
    start = Initialisation(
        stated["kind"],
        {name: parameters[name] for name in stated["shapes"] if name in parameters},
        between
        and Interpolated(
            between["coefficients"],
            {group: tuple(names) for group, names in between["members"].items()},
        ),
    )
    if faults := list(of_weights(start, stated["shapes"])):
        raise ArtefactError(str(file), faults)
    return start


def of_weights(start: Initialisation, shapes: Mapping[str, list[int]]) -> Iterator[Fault]:
    """A fault for each tensor that isn't there, isn't float32 of its shape, or isn't finite."""
    for name, shape in shapes.items():
        found = start.parameters.get(name)
        if found is None or (list(found.shape), found.dtype) != (list(shape), np.float32):
            said = ABSENT if found is None else f"{found.dtype} {list(found.shape)}"
            yield Fault(f"{PATH}.{name}", said, f"must be float32 {list(shape)}", CURE)
        elif not np.isfinite(found).all():
            yield Fault(f"{PATH}.{name}", "not finite", "weights must be finite numbers", CURE)


def faults(stated: Any, names: Iterable[str] | None, cure: str) -> Iterator[Fault]:
    """What is wrong with the section of tuned.json.

    Args:
        stated: the section.
        names: of all trained parameters; None where they aren't known.
        cure: what to do about it.
    """
    if not isinstance(stated, Mapping) or set(stated) != set(KEYS):
        said = sorted(stated) if isinstance(stated, Mapping) else stated
        yield Fault(PATH, said, f"must be an object with the keys {', '.join(KEYS)}", cure)
        return
    for key, allowed in (("kind", KINDS), ("file", (INITIALISATION,))):
        if stated[key] not in allowed:
            yield Fault(f"{PATH}.{key}", stated[key], f"must be {' or '.join(allowed)}", cure)
    if not isinstance(stated["sha256"], str):
        yield Fault(f"{PATH}.sha256", stated["sha256"], "must be a string", cure)
    shapes = stated["shapes"]
    if not isinstance(shapes, Mapping) or not all(map(_is_shape, shapes.values())):
        yield Fault(f"{PATH}.shapes", shapes, "must be lists of sizes by checkpoint name", cure)
    elif names is not None and set(shapes) != set(names):
        problem = "must have every parameter of learning_rates.parameters and no other"
        yield Fault(f"{PATH}.shapes", list(shapes), problem, cure)
    yield from _of_interpolated(stated, cure)


def _of_interpolated(stated: Mapping[str, Any], cure: str) -> Iterator[Fault]:
    where, between = f"{PATH}.interpolated", stated["interpolated"]
    if (between is not None) != (stated["kind"] == "interpolation"):
        yield Fault(where, between, "must be there if, and only if, kind is interpolation", cure)
    if between is None:
        return
    keys = {"coefficients", "members"}
    if not isinstance(between, Mapping) or set(between) != keys:
        yield Fault(where, between, "must be an object with coefficients and members", cure)
        return
    rows, members = between["coefficients"], between["members"]
    if not isinstance(members, Mapping) or not all(map(_is_names, members.values())):
        yield Fault(f"{where}.members", members, "must be lists of names by group", cure)
    elif not isinstance(rows, Mapping) or not all(_is_row(row, members) for row in rows.values()):
        problem = "must be a finite number for each group, by checkpoint"
        yield Fault(f"{where}.coefficients", rows, problem, cure)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 1 for size in value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_row(row: Any, groups: Mapping[str, Any]) -> bool:
    return (
        isinstance(row, Mapping)
        and set(row) == set(groups)
        and all(type(a) in (int, float) and math.isfinite(a) for a in row.values())
    )
