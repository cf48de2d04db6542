"""Exports to MosaicML Streaming: shares of streams as they move, with the module for PyTorch."""

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import (
    Exporter,
    Production,
    as_yaml,
    config_files,
    place,
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
from metatune_mixture import Mixed
from streaming import StreamingDataset
from torch.utils.data import DataLoader

sources = {{
    name: StreamingDataset(local=folder, batch_size=1, shuffle=False)
    for name, folder in folders.items()
}}
batch_size = 8  # sequences of an update, over all processes and accumulated gradients
mixed = Mixed(sources, {steps}, batch_size)
loader = DataLoader(mixed, batch_size=batch_size)
```

Domains begin anew past their end. Shuffle the data when you write them: `Mixed` reads them in their
order.

`streams.yaml` holds the mean shares over training, for Streaming's own loader. Only
`batching_method="stratified"` makes them hold in each batch; by default whole stretches of the
training are of one domain. `EPOCH_SIZE` is the sequences of the training, `BATCH_SIZE` those of a
batch of one device:

```python
import yaml
from streaming import Stream, StreamingDataset

with open("streams.yaml") as file:
    streams = [Stream(**stream) for stream in yaml.safe_load(file)["streams"].values()]
dataset = StreamingDataset(
    streams=streams,
    epoch_size=EPOCH_SIZE,
    batch_size=BATCH_SIZE,
    batching_method="stratified",
    shuffle=True,
)
```
"""


def streams(shares: dict[str, float]) -> dict[str, dict[str, object]]:
    """Streams by domain, with all proportions or none, as Streaming asks."""
    return {
        name: {"local": place(name), "proportion": share}
        for name, share in shares.items()
        if share > 0  # none of which `stratified` would refuse
    }


def _files(production: Production) -> dict[str, bytes | str]:
    files, lost, usage = torch_modules(production), [], USAGE
    if production.artefact.mixture is not None:
        shares = averaged(production.artefact.mixture, production.steps)
        files["streams.yaml"] = as_yaml({"streams": streams(shares)})
        usage += MIXED.format(steps=production.steps)
        lost.append(
            "of `streams.yaml`: shares are whole sequences of each batch of all devices, and one "
            "below half a sequence is refused"
        )
        lost += supply(production, shares, "`Mixed` begins it anew, Streaming's epoch repeats it")
    lost.append("`eps_root`, which PyTorch's AdamW doesn't have")
    return config_files(production, "MosaicML Streaming 0.13.0", usage, files, lost)


MOSAIC_STREAMING = Exporter(
    "mosaic-streaming",
    "shares of streams as they move, with the module for PyTorch",
    able(rates="exact", curves="exact", mixture="exact", moving_mixture="exact"),
    _files,
    "0.13.0",
    numbers={"proportion": "share of the sequences of an epoch, the mean over training"},
)
