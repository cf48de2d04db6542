"""Exports tables of every value at every update, for spreadsheets and trainers that read them."""

import csv
import io
from collections.abc import Iterable, Sequence

from metatune.artefact.capabilities import WHOLE_PARAMETERS
from metatune.artefact.exporters.base import Exporter, Production, config_files
from metatune.artefact.format import SETTINGS

USAGE = """
A row for each update, 0 for the first, and a column for each parameter or domain:
`learning_rates.csv`, and where they were tuned `mixture.csv`, `loss_weights.csv`,
`weight_decay.csv` (of the parameters that decay) and `optimizer.csv` (its other numbers). Columns
of parameters are the names of the Hugging Face checkpoint; rates are absolute, per update.
`loss_terms.csv` has what the loss has beside the next token's term, where there is anything.

```python
import csv

with open("learning_rates.csv", newline="") as file:
    rates = [{name: float(rate) for name, rate in row.items()} for row in csv.DictReader(file)]
```
"""


def _files(production: Production) -> dict[str, bytes | str]:
    artefact, total = production.artefact, production.steps
    names = list(artefact.learning_rates.parameters)
    rates = (artefact.rates_at(step, total).tolist() for step in range(total))
    files = {"learning_rates.csv": _table(names, rates)}
    for name, schedule, at in (
        ("mixture", artefact.mixture, artefact.mixture_at),
        ("loss_weights", artefact.loss_weights, artefact.loss_weights_at),
    ):
        if schedule is not None:
            rows = (at(step, total).values() for step in range(total))
            files[f"{name}.csv"] = _table(schedule.columns, rows)
    if (tuned := artefact.optimizer.schedules) is not None:
        numbers = [artefact.optimizer_at(step, total) for step in range(total)]
        if tuned.values:
            rows = ([row[name] for name in tuned.values] for row in numbers)
            files["optimizer.csv"] = _table(list(tuned.values), rows)
        if tuned.weight_decay is not None:
            rows = (row["weight_decay"].values() for row in numbers)
            files["weight_decay.csv"] = _table(list(tuned.weight_decay), rows)
    if artefact.loss_terms is not None:
        rows = (artefact.loss_terms_at(step, total).values() for step in range(total))
        files["loss_terms.csv"] = _table(list(artefact.loss_terms.values), rows)
    return config_files(production, "any trainer: CSV tables", USAGE, files)


def _table(names: Sequence[str], rows: Iterable[Iterable[float]]) -> str:
    """A table with a column `step`; numbers have all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *names])
    writer.writerows([step, *map(repr, row)] for step, row in enumerate(rows))
    return text.getvalue()


CSV = Exporter(
    "csv",
    "tables of every value at every update",
    WHOLE_PARAMETERS._replace(auxiliary_head="exact"),
    _files,
    optimizers=tuple(SETTINGS),
)
