#!/usr/bin/env python3
"""How often `metatune check` raises a false alarm: its verdicts over recipes, steps and seeds.

Each cell is `metatune check RECIPE seed=SEED --steps STEPS --seeds K --directions D` of a shipped
recipe that needs no download, and its line in the record has all that was measured. Verdicts are
judged anew from these numbers whenever the table is printed, so that a changed rule needs no new
measurement, unless it asks for other numbers. Cheap cells come first, those that are in the record
are passed over, and an interrupted run goes on.

Each is measured by a process of its own: the machine code of many checks together is more than
Linux lets one process map.

The last cells are of a quickstart that is chaotic, at a learning rate of 0.3, which must be red.

usage: measure_check.py --out RECORD.jsonl [--seeds K] [--directions D] [--steps 25 50 all]
                        [--judge] [RECIPE ...]
       (2, 2, all of them; --judge prints the table of the record, and measures nothing)
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from metatune import check as checks
from metatune import plan as plans
from metatune.fit.process.compilation import keep_compiled
from metatune.inner import prepare_file
from metatune.recipe import reading, shipped

SCRIPTS = Path(__file__).resolve().parent
WRITERS = {"functions.jsonl": "write_functions.py", "dialogues.jsonl": "write_dialogues.py"}
"""What writes the files that recipes name."""

SEEDS = (0, 1, 2)
CHAOTIC = "inner.optimizer.learning_rate=0.3"
CHAOTIC_STEPS = (25, 40)


class Cell(NamedTuple):
    """A check.

    Attributes:
        recipe: its name.
        overrides: of the recipe.
        steps: of the check; None for the recipe's.
        seeds: hypergradients, K.
        directions: D.
    """

    recipe: str
    overrides: tuple[str, ...]
    steps: int | None
    seeds: int
    directions: int


def cells(recipes: list[str], steps: list[str], seeds: int, directions: int) -> Iterator[Cell]:
    """The cheap ones first."""
    for horizon in steps:
        count = None if horizon == "all" else int(horizon)
        for seed in SEEDS:
            for name in recipes:
                yield Cell(name, (f"seed={seed}",), count, seeds, directions)
        if horizon == steps[0]:
            for chaotic in CHAOTIC_STEPS:
                yield Cell("quickstart", (CHAOTIC,), chaotic, seeds, directions)


def available(name: str, folder: Path) -> bool:
    """Whether a recipe needs no download; writes the files that it reads."""
    recipe = reading.read(shipped.find(name))
    if recipe.model.pretrained is not None:
        return False
    for source in recipe.data.domains.values():
        if isinstance(source.jsonl, str) and not (folder / source.jsonl).exists():
            writer = SCRIPTS / WRITERS[source.jsonl]
            subprocess.run([sys.executable, writer, source.jsonl], cwd=folder, check=True)
    return True


def measure(cell: Cell, console: Console) -> dict[str, Any]:
    """The line of a cell."""
    began = time.process_time()
    training = prepare_file(shipped.find(cell.recipe), cell.overrides)
    with tempfile.TemporaryDirectory() as scratch:
        training, _ = plans.decided(training, folder=Path(scratch))
        numbers = checks.measured(
            training,
            checks.Settings(cell.seeds, cell.directions),
            steps=cell.steps,
            scratch=Path(scratch),
            console=console,
        )
    seconds = time.process_time() - began
    return {
        "cell": cell._asdict(),
        "processor_seconds": round(seconds),
        "numbers": checks.as_record(numbers),
    }


def read(file: Path) -> dict[Cell, dict[str, Any]]:
    """The lines of a record, by cell."""
    if not file.exists():
        return {}
    lines = map(json.loads, file.read_text().splitlines())
    return {_cell(line["cell"]): line for line in lines}


def _cell(fields: dict[str, Any]) -> Cell:
    return Cell(**{**fields, "overrides": tuple(fields["overrides"])})


def table(record: dict[Cell, dict[str, Any]]) -> Table:
    """Verdicts, overall and by check."""
    shown = Table("recipe", "steps", "overrides", "K, D", "verdict", box=None, pad_edge=False)
    rows = []
    for cell, line in record.items():
        certificate = checks.judge(checks.from_record(line["numbers"]))
        levels = {
            name: "-" if its is None else "(amber)" if its.finding.hidden else its.finding.level
            for name, its in certificate.checks.items()
        }
        steps = f"{certificate.steps}" + ("" if cell.steps else " (all)")
        about = (cell.recipe, steps, " ".join(cell.overrides), f"{cell.seeds}, {cell.directions}")
        rows.append((*about, certificate.verdict, *levels.values()))
        if len(rows) == 1:
            for name in levels:
                shown.add_column(name)
    for row in sorted(rows):
        shown.add_row(*row)
    shown.caption = "(amber): not resolved within the noise; -: not made"
    return shown


def main() -> None:
    """Measures what isn't in the record, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--directions", type=int, default=2)
    parser.add_argument("--steps", nargs="+", default=["25", "50", "all"])
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("recipes", nargs="*")
    given = parser.parse_args()
    out = given.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    if given.cell is not None:
        keep_compiled()
        line = measure(_cell(given.cell), console)
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return
    if not given.judge:
        os.chdir(out.parent)
        names = [name for name in given.recipes or shipped.names() if available(name, out.parent)]
        for cell in cells(names, given.steps, given.seeds, given.directions):
            if cell in read(out):
                continue
            console.print(f"{time.strftime('%H:%M:%S')} {cell}", highlight=False, soft_wrap=True)
            command = [sys.executable, Path(__file__).resolve(), "--out", out]
            subprocess.run([*command, "--cell", json.dumps(cell._asdict())], check=True)
    Console(width=200).print(table(read(out)))


if __name__ == "__main__":
    main()
