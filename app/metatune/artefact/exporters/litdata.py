"""Exports to litdata: shares of streaming datasets as they move, with the module for PyTorch."""

import json

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import (
    Exporter,
    Production,
    config_files,
    torch_modules,
)
from metatune.artefact.exporters.stages import averaged
from metatune.artefact.exporters.supply import supply

USAGE = """
Rates come from `metatune_schedules.py`, as in the export to torch (`optimizer`, `Schedule`).
"""

MIXED = """
The data, by the shares as they move, with the folder of each domain:

```python
from litdata import StreamingDataset
from metatune_mixture import Mixed
from torch.utils.data import DataLoader

sources = {{name: StreamingDataset(folder) for name, folder in folders.items()}}
batch_size = 8  # sequences of an update, over all processes and accumulated gradients
mixed = Mixed(sources, {steps}, batch_size)
loader = DataLoader(mixed, batch_size=batch_size)
```

Domains begin anew past their end. Shuffle the data when you write them: `Mixed` reads them in their
order. `weights.json` holds the mean shares over training, for `CombinedStreamingDataset` with
`iterate_over_all=False`; it ends a pass with the domain that ends first.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    files, mixture, usage = torch_modules(production), production.artefact.mixture, USAGE
    lost = ["`eps_root`, which PyTorch's AdamW doesn't have"]
    if mixture is not None:
        shares = averaged(mixture, production.steps)
        files["weights.json"] = json.dumps(shares, indent=2, ensure_ascii=False) + "\n"
        usage += MIXED.format(steps=production.steps)
        lost += supply(
            production,
            shares,
            "`Mixed` begins it anew; `CombinedStreamingDataset` ends the pass, and the next reads "
            "the same items again",
        )
    return config_files(production, "litdata 0.2.76", usage, files, lost)


LITDATA = Exporter(
    "litdata",
    "shares of streaming datasets as they move, with the module for PyTorch",
    able(rates="exact", curves="exact", mixture="exact", moving_mixture="exact"),
    _files,
    "0.2.76",
    numbers={"weights.json": "share of the sequences of each domain, the mean over training"},
)
