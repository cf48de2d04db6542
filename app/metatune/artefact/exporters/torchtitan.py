"""Exports to torchtitan: parameter groups and weighted sources, for its Python configuration."""

import json

from metatune.artefact.capabilities import able
from metatune.artefact.errors import ArtefactError
from metatune.artefact.exporters.base import Exporter, Production, config_files, place
from metatune.artefact.exporters.named_rates import NAMES, flattened, rate_files
from metatune.artefact.exporters.stages import averaged
from metatune.recipe.faults import Fault

RATES = """
In your `config_registry`, for the optimizer:

```python
from metatune_rates import groups
from torchtitan.components.optimizer import OptimizersContainer, ParamGroupConfig

optimizer = OptimizersContainer.Config(
    param_groups=[
        ParamGroupConfig(
            pattern=group.pattern,
            optimizer_name="AdamW",
            optimizer_kwargs={{"lr": group.rate, "weight_decay": group.weight_decay, {moments}}},
        )
        for group in groups(NAMES)
    ]
)
```
"""

SOURCES = """
For the data, with your paths in `sources.json`:

```python
import json

sources = [HFDataSource(**source) for source in json.load(open("sources.json"))]
dataloader = InterleavedHuggingFaceTextDataLoader.Config(sources=sources)
```
"""


def _files(production: Production) -> dict[str, bytes | str]:
    artefact, settings = production.artefact, production.artefact.optimizer.settings
    if settings["kind"] != "adamw":
        problem = "torchtitan's groups are exported for adamw alone"
        cure = "export to torch, and build the optimizer with that"
        raise ArtefactError("export", [Fault("optimizer.kind", settings["kind"], problem, cure)])
    moments = f'"betas": ({settings["b1"]}, {settings["b2"]}), "eps": {settings["eps"]}'
    files, usage = rate_files(production), NAMES + RATES.format(moments=moments)
    lost = [*flattened(production), "the base schedule: choose yours (LRSchedulersContainer)"]
    lost.append("`eps_root`, which PyTorch's AdamW doesn't have")
    if artefact.mixture is not None:
        shares = averaged(artefact.mixture, production.steps)
        sources = [
            {"dataset": name, "dataset_path": place(name), "weight": share}
            for name, share in shares.items()
        ]
        files["sources.json"] = json.dumps(sources, indent=2, ensure_ascii=False) + "\n"
        usage += SOURCES
        lost.append("weights count packed sequences, that is tokens, as the tuned training did")
    return config_files(production, "torchtitan 0.3.0", usage, files, lost)


TORCHTITAN = Exporter(
    "torchtitan",
    "a module of parameter groups, and weighted sources",
    able(rates="exact", mixture="exact"),
    _files,
    "0.3.0",
)
