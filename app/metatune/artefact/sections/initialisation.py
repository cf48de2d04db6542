"""The tuned start: weights in a file of their own, and where they came from.

initialisation.safetensors holds what the tuned training begins with, float32 by checkpoint name, of
every parameter that is trained; tuned.json its shapes and its hash.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from metatune.artefact.curves import counted
from metatune.artefact.errors import ArtefactError
from metatune.artefact.files import INITIALISATION as FILE
from metatune.artefact.json_schema import NUMBER, SHAPES, by_name, of_fields, or_null, ref
from metatune.artefact.manifest import sha256
from metatune.artefact.sections.learning_rates import parameter_names
from metatune.artefact.sections.section import Grid, Held, Section, Written
from metatune.artefact.value_checks import ValueChecker
from metatune.recipe.faults import ABSENT, Fault

PATH: Final = "initialisation"
KINDS: Final = ("point", "interpolation")
KEYS: Final = ("kind", "file", "sha256", "shapes", "interpolated")
CURE: Final = "take the artefact anew from the run that wrote it"


@dataclass(frozen=True, eq=False)
class Interpolated:
    """Where a start lies between checkpoints: `θ_0 = θ + Σ_i α_i (θ_i - θ)`.

    Attributes:
        coefficients: α_i of each group of parameters, by checkpoint.
        members: checkpoint names of the parameters of each group; the others stay as they were.
    """

    coefficients: Mapping[str, Mapping[str, float]]
    members: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Initialisation:
    """What the tuned training starts from.

    Attributes:
        kind: what was tuned of it.
        parameters: float32 weights by checkpoint name, of all that is trained.
        interpolated: where between checkpoints it lies; None of a point.
    """

    kind: Literal["point", "interpolation"]
    parameters: Mapping[str, np.ndarray]
    interpolated: Interpolated | None = None


def _written(start: Initialisation, apart: bool) -> Written:
    # C order: safetensors writes the bytes as they lie, whatever the strides.
    held = {name: np.array(value, order="C") for name, value in start.parameters.items()}
    # As transformers and torch read it too.
    content = save_tensors(held, metadata={"format": "pt"})
    between = start.interpolated
    document = {
        "kind": start.kind,
        "file": FILE,
        "sha256": sha256(content),
        "shapes": {name: list(value.shape) for name, value in start.parameters.items()},
        "interpolated": between
        and {"coefficients": between.coefficients, "members": between.members},
    }
    if bad := list(_of_weights(start, document["shapes"])):
        raise ArtefactError("artefact", bad)
    return Written(document, files={FILE: content})


def _read(stated: Mapping[str, Any], held: Held) -> Initialisation:
    file = held.folder / FILE
    if not file.is_file():
        problem = f"not found at {file}, where the weights of the start must be"
        fault = Fault(f"{PATH}.file", FILE, problem, "copy it together with tuned.json")
        raise ArtefactError(str(held.folder), [fault])
    content = file.read_bytes()
    if (found := sha256(content)) != stated["sha256"]:
        problem = f"the hash of {file} is {found}: it isn't the one that was written"
        fault = Fault(f"{PATH}.sha256", stated["sha256"], problem, CURE)
        raise ArtefactError(str(held.folder), [fault])
    try:
        parameters = load_tensors(content)
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
    if faults := list(_of_weights(start, stated["shapes"])):
        raise ArtefactError(str(file), faults)
    return start


def _of_weights(start: Initialisation, shapes: Mapping[str, list[int]]) -> Iterator[Fault]:
    """A fault for each tensor that isn't there, isn't float32 of its shape, or isn't finite."""
    for name, shape in shapes.items():
        found = start.parameters.get(name)
        if found is None or (list(found.shape), found.dtype) != (list(shape), np.float32):
            said = ABSENT if found is None else f"{found.dtype} {list(found.shape)}"
            yield Fault(f"{PATH}.{name}", said, f"must be float32 {list(shape)}", CURE)
        elif not np.isfinite(found).all():
            yield Fault(f"{PATH}.{name}", "not finite", "weights must be finite numbers", CURE)


def _faults(stated: Any, names: Iterable[str] | None, cure: str) -> Iterator[Fault]:
    if not isinstance(stated, Mapping) or set(stated) != set(KEYS):
        said = sorted(stated) if isinstance(stated, Mapping) else stated
        yield Fault(PATH, said, f"must be an object with the keys {', '.join(KEYS)}", cure)
        return
    for key, allowed in (("kind", KINDS), ("file", (FILE,))):
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


def _check(checker: ValueChecker, stated: Any, document: Mapping[str, Any]) -> None:
    checker.faults += _faults(stated, parameter_names(document), checker.cure)


def _words(start: Initialisation) -> list[str]:
    how = "moved weight by weight"
    if (between := start.interpolated) is not None:
        how = f"interpolated towards {counted(len(between.coefficients), 'checkpoint')}"
    count = counted(len(start.parameters), "parameter")
    return [f"start: the weights of {count}, {how}, in {FILE}"]


def _facts(start: Initialisation) -> list[str]:
    return [
        f"**training starts from tuned weights**, of {len(start.parameters):,} parameters, in "
        f"{FILE}: load them before the first update, e.g. `model.load_state_dict("
        f"safetensors.torch.load_file('{FILE}'), strict=False)`; names are those of Hugging Face "
        "checkpoints"
    ]


def _needs(start: Initialisation, horizon: int) -> dict[str, str]:
    count = sum(weights.size for weights in start.parameters.values())
    return {"initialisation": f"a start of {count:,} weights"}


def _views(start: Initialisation, horizon: int) -> list[Grid]:
    if (between := start.interpolated) is None:
        return []
    title = "start: how far each group is moved towards a checkpoint"
    return [Grid(title, between.coefficients, tuple(between.members))]


def _lossy(start: Initialisation, lost: Collection[str], horizon: int) -> Initialisation | None:
    return None if "initialisation" in lost else start


INITIALISATION: Final = Section(
    PATH,
    capabilities={"initialisation": "start"},
    written=_written,
    check=_check,
    read=_read,
    schema=of_fields(
        {
            "kind": {"enum": list(KINDS)},
            "file": {"const": FILE},
            "sha256": ref("sha256"),
            "shapes": {**SHAPES, "minProperties": 1},
            "interpolated": or_null(
                of_fields(
                    {
                        "coefficients": by_name(
                            by_name(NUMBER), description="By checkpoint, then by group."
                        ),
                        "members": by_name(ref("names")),
                    }
                )
            ),
        },
        description="What the training starts from, where that was tuned: the weights are float32 "
        "tensors in the file beside, of every trained parameter. Interpolated between checkpoints, "
        "a parameter of a group is the recipe's plus the sum over checkpoints of coefficient * "
        "(the checkpoint's - the recipe's).",
    ),
    needs=_needs,
    words=_words,
    facts=_facts,
    lossy=_lossy,
    views=_views,
    alone=("initialisation", "the weights of a start don't stand in a tuned.json"),
)
