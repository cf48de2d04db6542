"""What was measured as files: JSON and a picture."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from metatune.bench.grid import SOURCE, BenchRow
from metatune.bench.picture import cost_svg
from metatune.recipe.faults import Fault, RecipeError

UNIT = "gradient and optimizer update of the same model, block remat, compiled by itself"
"""What a plain step is."""


def document(rows: Sequence[BenchRow]) -> dict[str, Any]:
    """All rows, what they are measured in, and the machine they were measured on."""
    return {
        "plain_step": UNIT,
        "machine": {
            "device": jax.local_devices()[0].device_kind,
            "backend": jax.default_backend(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "jax": jax.__version__,
            "jaxlib": version("jaxlib"),
        },
        "rows": [_fields(row) for row in rows],
    }


def _fields(row: BenchRow) -> dict[str, Any]:
    memory = {f"{name}_bytes": value for name, value in row.memory._asdict().items()}
    return {
        "size": row.case.size,
        "parameter_count": row.case.shape.parameters,
        **row.case.shape._asdict(),
        "variant": row.variant.name,
        "temp_bytes": row.memory.temp,
        **memory,
        "plain_temp_bytes": row.plain_temp_bytes,
        "compile_seconds": row.compile_seconds,
        "seconds": row.seconds,
        "plain_step_seconds": row.plain_seconds,
        "plain_steps_per_step": row.plain_steps,
        "untimed": row.untimed,
        "device_peak_bytes": row.device_peak_bytes,
    }


def write(rows: Sequence[BenchRow], numbers: Path | None, picture: Path | None) -> None:
    """Writes the files that were asked for."""
    if numbers is not None:
        numbers.write_text(json.dumps(document(rows), indent=1) + "\n", encoding="utf-8")
    if picture is not None:
        picture.write_text(cost_svg(rows), encoding="utf-8")


def writable(numbers: Path | None, picture: Path | None) -> None:
    """Checks, before anything is measured, that the results can be written.

    Raises:
        RecipeError: with a fault for each that can't be.
    """
    faults = []
    for option, path in (("--json", numbers), ("--picture", picture)):
        if path is None:
            continue
        folder = path.parent
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            problem = "no file can be written there"
            faults.append(Fault(option, str(path), problem, "name a file in a folder that exists"))
        if option == "--picture" and path.suffix != ".svg":
            faults.append(Fault(option, str(path), "must end in .svg", "it is drawn as SVG"))
    if faults:
        raise RecipeError(SOURCE, faults)
