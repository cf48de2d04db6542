"""Of the tables of the export to CSV."""

import csv
from pathlib import Path

from metatune.artefact.exporters.verifiers.expected import Expected, agree


def verify(expected: Expected, folder: Path) -> list[str]:
    """Rates and shares at the updates of `expected`."""
    lines = []
    for table, columns in (("learning_rates", expected.rates), ("mixture", expected.shares)):
        if columns is None:
            continue
        with open(folder / f"{table}.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        agree(f"rows of {table}.csv", len(rows), expected.total)
        for place, step in enumerate(expected.at):
            for name, values in columns.items():
                agree(f"{table}.csv, row {step}, {name}", float(rows[step][name]), values[place])
        lines.append(f"{table}.csv: {len(rows)} rows of {len(columns)} columns")
    return lines
