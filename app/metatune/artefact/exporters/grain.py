"""Exports to Grain: a source that mixes domains by shares that move, with the module for Optax."""

from metatune.artefact.capabilities import DOMAINS
from metatune.artefact.exporters.base import MODULE, Exporter, Production, config_files, template
from metatune.artefact.exporters.supply import supply_of_mixture

USAGE = """
Rates come from `metatune_schedules.py`, as in the export to optax (`optimizer`). The data, from a
source of examples (dicts) with random access for each domain:

```python
import grain
from metatune_mixture import Mixed

mixed = Mixed(sources, total_steps={steps}, batch_size=batch_size)
dataset = grain.MapDataset.source(mixed).batch(batch_size)
```

Don't shuffle it: its order is the schedule. Shuffle the sources before. An index gives the same
example always, so that Grain's checkpoints resume exactly. Where loss weights were tuned, each
example holds its `loss_weight`: multiply the loss of the sequence by it.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    modules = {MODULE: "optax_schedules.py", "metatune_mixture.py": "grain_mixture.py"}
    files = {name: template(source) for name, source in modules.items()}
    usage = USAGE.format(steps=production.steps)
    lost = supply_of_mixture(production, "`Mixed` begins it anew")
    return config_files(production, "Grain 0.2.18 and Optax", usage, files, lost)


GRAIN = Exporter(
    "grain",
    "a source that mixes domains by shares that move, with the module for Optax",
    DOMAINS,
    _files,
    "0.2.18",
)
