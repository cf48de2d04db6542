"""What an artefact can be trained again from, in the files beside its tuned.json.

recipe.yaml is the resolved recipe, meta_parameters.safetensors what was tuned in its own
coordinates, exactly, and replay.json some numbers of trainings at these, with the machine that
they were done on.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from metatune.artefact.errors import ArtefactError
from metatune.artefact.files import META_PARAMETERS, RECIPE, REPLAY, REPLAY_FORMAT, REPLAY_VERSION
from metatune.artefact.format import Origin
from metatune.recipe.bounds import read_json
from metatune.recipe.faults import ABSENT, Fault

CURE = "take the artefact anew from the run that wrote it"
FILES = (RECIPE, META_PARAMETERS, REPLAY)


def files(origin: Origin) -> dict[str, bytes | str]:
    """The files of an origin by name."""
    # C order: safetensors writes the bytes as they lie, whatever the strides.
    held = {name: np.array(value, order="C") for name, value in origin.meta_parameters.items()}
    written: dict[str, bytes | str] = {RECIPE: origin.recipe, META_PARAMETERS: save_tensors(held)}
    if origin.record is not None:
        document = {"format": REPLAY_FORMAT, "version": REPLAY_VERSION, **origin.record}
        written[REPLAY] = json.dumps(document, indent=1, allow_nan=False) + "\n"
    return written


def read(folder: Path) -> Origin | None:
    """The origin in an artefact folder; None where there is none.

    Raises:
        ArtefactError: a file can't be read, or is of an unknown version.
    """
    recipe, held = folder / RECIPE, folder / META_PARAMETERS
    if not (recipe.is_file() and held.is_file()):
        return None
    try:
        return Origin(
            recipe.read_bytes().decode(), load_tensors(held.read_bytes()), _record(folder / REPLAY)
        )
    except UnicodeDecodeError as error:
        raise ArtefactError(str(recipe), [f"not UTF-8 text ({error.reason}); {CURE}"]) from error
    except (SafetensorError, KeyError) as error:  # of dtypes that NumPy hasn't
        raise ArtefactError(str(held), [f"not safetensors ({error}); {CURE}"]) from error


def _record(file: Path) -> Mapping[str, Any] | None:
    if not file.is_file():
        return None
    try:
        document = read_json(file)
    except ValueError as error:
        raise ArtefactError(str(file), [f"not JSON ({error}); {CURE}"]) from error
    stated = document if isinstance(document, dict) else {}
    for key, known in (("format", REPLAY_FORMAT), ("version", REPLAY_VERSION)):
        if stated.pop(key, None) != known:
            fault = Fault(key, document, f"must hold {known!r}", CURE)
            raise ArtefactError(str(file), [fault])
    if missing := [key for key in ("machine", "training") if key not in stated]:
        raise ArtefactError(str(file), [Fault(missing[0], ABSENT, "is missing", CURE)])
    return stated
