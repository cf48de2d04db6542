"""Exports to litdata: weights of combined streaming datasets, with the module for PyTorch."""

import json

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import (
    Exporter,
    Production,
    config_files,
    torch_modules,
)
from metatune.artefact.exporters.stages import averaged

USAGE = """
Rates come from `metatune_schedules.py`, as in the export to torch (`optimizer`, `Schedule`). The
weights of the domains, with a dataset for each name:

```python
import json

from litdata import CombinedStreamingDataset

with open("weights.json") as file:
    weights = json.load(file)
dataset = CombinedStreamingDataset(
    [datasets[name] for name in weights],
    weights=list(weights.values()),
    iterate_over_all=False,
)
```
"""


def _files(production: Production) -> dict[str, bytes | str]:
    files, mixture = torch_modules(production), production.artefact.mixture
    if mixture is not None:
        shares = averaged(mixture, production.steps)
        files["weights.json"] = json.dumps(shares, indent=2, ensure_ascii=False) + "\n"
    lost = ["`eps_root`, which PyTorch's AdamW doesn't have"]
    return config_files(production, "litdata 0.2.76", USAGE, files, lost)


LITDATA = Exporter(
    "litdata",
    "weights of combined streaming datasets, with the module for PyTorch",
    able(rates="exact", curves="exact", mixture="exact"),
    _files,
    "0.2.76",
)
