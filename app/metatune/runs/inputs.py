"""What a run was begun with: hashes, so that it doesn't go on with other data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from metatune.runs.faults import OUT, Given, RunFolderError, differing, of_given, then_and_now
from metatune.runs.files import replace

INPUTS: Final = ".metatune.inputs.json"


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted path, a level deep, as JSON has them; what is None is left out."""
    found: dict[str, Any] = {}
    for key, value in json.loads(json.dumps(tree)).items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{name}": entry for name, entry in value.items()}
        elif value is not None:
            found[key] = value
    return found


def refuse_changed(folder: Path, now: Mapping[str, Any], given: Given = OUT) -> None:
    """Compares what a run goes on with.

    Args:
        folder: of the run.
        now: hashes of what it would go on with.
        given: what the command was given it as, for errors.

    Raises:
        RunFolderError: something was changed since it began.
    """
    then = _read(folder)
    if then is None:  # of an older metatune
        return
    here = flat(now)
    changed = differing(then, here)
    if changed:
        anew = "in another folder, or here with --overwrite" if given == OUT else "by metatune fit"
        raise of_given(
            given,
            folder,
            "was begun with other inputs, which were changed since; put them back, or begin anew "
            f"{anew}\n{then_and_now(changed, then, here)}",
        )


def keep(folder: Path, now: Mapping[str, Any]) -> None:
    """Writes down what a run is begun with; arguments as of `refuse_changed`."""
    replace(folder / INPUTS, json.dumps(flat(now), indent=1) + "\n")


def _read(folder: Path) -> dict[str, Any] | None:
    file = folder / INPUTS
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunFolderError(
            f"{file}: is damaged ({error}), so that it can't be told whether the data are those "
            "that the run was begun with; delete it if you know that they are"
        ) from None
