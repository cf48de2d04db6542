"""Exports to MosaicML Streaming: streams with proportions, with the module for PyTorch."""

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

USAGE = """
Rates come from `metatune_schedules.py`, as in the export to torch (`optimizer`, `Schedule`). For
the data put your folders into `streams.yaml`, and choose `epoch_size`, the sequences of an epoch:

```python
import yaml
from streaming import Stream, StreamingDataset

with open("streams.yaml") as file:
    streams = [Stream(**stream) for stream in yaml.safe_load(file)["streams"].values()]
dataset = StreamingDataset(streams=streams, epoch_size=EPOCH_SIZE, batch_size=BATCH_SIZE)
```
"""

FLOORED = "shares are floored to whole sequences of an epoch, the rest is spread at random"


def streams(shares: dict[str, float]) -> dict[str, dict[str, object]]:
    """Streams by domain, with all proportions or none, as Streaming asks."""
    return {name: {"local": place(name), "proportion": share} for name, share in shares.items()}


def _files(production: Production) -> dict[str, bytes | str]:
    files, lost = torch_modules(production), []
    if production.artefact.mixture is not None:
        shares = averaged(production.artefact.mixture, production.steps)
        files["streams.yaml"] = as_yaml({"streams": streams(shares)})
        lost.append(FLOORED)
    lost.append("`eps_root`, which PyTorch's AdamW doesn't have")
    return config_files(production, "MosaicML Streaming 0.13.0", USAGE, files, lost)


MOSAIC_STREAMING = Exporter(
    "mosaic-streaming",
    "YAML of streams with proportions, with the module for PyTorch",
    able(rates="exact", curves="exact", mixture="quantised"),
    _files,
    "0.13.0",
)
