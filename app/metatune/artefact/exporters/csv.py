"""Exports tables of every value at every update, for spreadsheets and trainers that read them."""

import csv
import io

import numpy as np

from metatune.artefact.capabilities import WHOLE_PARAMETERS, able
from metatune.artefact.document import held
from metatune.artefact.exporters.base import Exporter, Production, config_files
from metatune.artefact.exporters.supply import supply_of_mixture
from metatune.artefact.sections.optimizer import OF_GROUP, SETTINGS
from metatune.artefact.sections.section import Columns

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
    artefact, steps = production.artefact, range(production.steps)
    files = {
        f"{name}.csv": _table(columns)
        for section, value in held(artefact)
        for name, columns in section.tables(value, steps, production.steps).items()
    }
    lost = supply_of_mixture(production, "your loader decides what comes then")
    return config_files(production, "any trainer: CSV tables", USAGE, files, lost)


def _table(columns: Columns) -> str:
    """A table with a column `step`; numbers have all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *columns])
    rows = np.stack(list(columns.values()), axis=1)
    writer.writerows([step, *map(repr, row.tolist())] for step, row in enumerate(rows))
    return text.getvalue()


CSV = Exporter(
    "csv",
    "tables of every value at every update",
    able(WHOLE_PARAMETERS, auxiliary_head="exact", router_balance="exact"),
    _files,
    optimizers=tuple(SETTINGS),
    side_by_side=tuple(OF_GROUP),
)
