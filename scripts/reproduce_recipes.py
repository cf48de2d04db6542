#!/usr/bin/env python3
"""Every shipped recipe tuned as its header says: what came out, and what it took.

Each is run by `metatune fit`, one after the other, with no compiled programs at hand; its result is
that of the run, the tuned schedule against the recipe's own defaults, in pairs, on seeds and text
that the search never saw. Files of prompts and completions are written first. A recipe whose
pretrained weights aren't there is passed over.

What is finished stays: called again, only the recipes without a result are run.

usage: reproduce_recipes.py [--out FOLDER] [RECIPE ...]    (runs/recipes; all that are shipped)
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from metatune import artefact
from metatune.recipe import reading, shipped
from metatune.recipe.schema import Recipe

SCRIPTS = Path(__file__).resolve().parent
WRITERS = {"functions.jsonl": "write_functions.py", "dialogues.jsonl": "write_dialogues.py"}
"""What writes the files that recipes name."""

COMMAND = (sys.executable, "-c", "from metatune.cli.commands import app; app()")


def missing(recipe: Recipe, folder: Path) -> str | None:
    """Why a recipe can't be run here, if it can't; writes the files that it reads."""
    weights = recipe.model.pretrained
    if weights is not None and not (folder / weights).exists():
        return f"there is no {folder / weights}"
    for source in recipe.data.domains.values():
        if isinstance(source.jsonl, str) and not (folder / source.jsonl).exists():
            writer = SCRIPTS / WRITERS[source.jsonl]
            subprocess.run([sys.executable, writer, source.jsonl], cwd=folder, check=True)
    return None


def run(name: str, folder: Path) -> dict[str, float]:
    """Tunes a recipe into a folder of its name.

    Returns:
        Seconds: of the processor, in all threads, and by the clock.
    """
    began, before = time.monotonic(), os.times()
    with tempfile.TemporaryDirectory() as empty:
        subprocess.run(
            [*COMMAND, "fit", name, "--out", name, "--overwrite"],
            cwd=folder,
            check=True,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": empty},
        )
    after = os.times()
    return {
        "processor_seconds": after.children_user
        + after.children_system
        - before.children_user
        - before.children_system,
        "wall_seconds": time.monotonic() - began,
    }


def tuned(recipe: Recipe) -> str:
    """What a recipe tunes, in a few words: `learning_rates per kind x 4, mixture`."""
    parts = []
    for key, _, settings in recipe.tune.entries():
        per = getattr(settings, "per", None)
        part = f"{key} per {per}" if isinstance(per, str) and per != "global" else key
        windows = getattr(settings, "windows", 1)
        parts.append(f"{part} x {windows}" if windows > 1 else part)
    return ", ".join(parts)


def row(name: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    result, minutes = found["result"], found["processor_seconds"] / 60
    # A single pair has no standard error.
    error = result["standard_error"]
    difference = f"{result['difference']:+.3f}" + ("" if error is None else f" ± {error:.3f}")
    return (
        f"| `{name}` | {found['tuned']} | {result['objective_before']:.3f} | "
        f"{result['objective_after']:.3f} | {difference.replace('-', '−')} | "
        f"{len(result['before'])} | {minutes:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=", ".join(shipped.names()))
    given = parser.parse_args()
    if unknown := set(given.recipes) - set(shipped.names()):
        parser.error(f"{', '.join(unknown)}: not shipped; {', '.join(shipped.names())} are")
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in given.recipes or shipped.names():
        recipe = reading.read(shipped.find(name))
        written = given.out / f"{name}.json"
        if not written.exists():
            if why := missing(recipe, given.out):
                print(f"{name} is passed over: {why}", file=sys.stderr)
                continue
            took = run(name, given.out)
            result = artefact.load(given.out / name).result
            found = {"tuned": tuned(recipe), **took, "result": dict(result)}
            written.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        rows.append(row(name, json.loads(written.read_text(encoding="utf-8"))))
    print("| recipe | tuned | before | after | difference | pairs | processor minutes |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
