"""Exports to torchtitan: rates of every parameter at every update, and weighted sources."""

import json

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import Exporter, Production, config_files, place
from metatune.artefact.exporters.named_rates import names, rate_files
from metatune.artefact.exporters.stages import averaged
from metatune.artefact.exporters.supply import supply

RATES = """
Put this folder on the Python path. In your `config_registry`, for the optimizer and its schedule:

```python
from metatune_torchtitan import TunedOptimizers, TunedSchedules

optimizer = TunedOptimizers.Config()
lr_scheduler = TunedSchedules.Config()
```

Every parameter has its own curve, whatever `warmup_steps` and the like say; parameters of equal
curves share a group. Set `training.steps` to {steps}, and `training.max_norm` to {clip}.
"""

SOURCES = """
For the data, with your paths in `sources.json`, and JSON lines with a field `text`:

```python
import json

from datasets import load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import (
    DATASETS,
    HFDataSource,
    InterleavedHuggingFaceTextDataLoader,
)


def json_lines(path):
    return load_dataset("json", data_files=path, split="train", streaming=True)


def text(sample):
    return sample["text"]


with open("sources.json") as file:
    sources = json.load(file)
for source in sources:
    DATASETS[source["dataset"]] = DatasetConfig(
        path=source["dataset_path"], loader=json_lines, sample_processor=text
    )
dataloader = InterleavedHuggingFaceTextDataLoader.Config(
    sources=[HFDataSource(**source) for source in sources]
)
```
"""


def _files(production: Production) -> dict[str, bytes | str]:
    artefact, settings = production.artefact, production.artefact.optimizer.settings
    files = rate_files(production, "torchtitan", "torchtitan")
    clip = settings["clip_norm"] or 1e9
    usage = RATES.format(steps=production.steps, clip=clip)
    usage += names(production, "torchtitan", "torchtitan")
    lost = ["`eps_root`, which PyTorch's AdamW doesn't have"]
    if artefact.mixture is not None:
        shares = averaged(artefact.mixture, production.steps)
        sources = [
            # Names are made lower case there before they are looked up.
            {"dataset": f"tuned_{i}_{name}".lower(), "dataset_path": place(name), "weight": share}
            for i, (name, share) in enumerate(shares.items())
        ]
        files["sources.json"] = json.dumps(sources, indent=2, ensure_ascii=False) + "\n"
        usage += SOURCES
        lost.append("weights count packed sequences, that is tokens, as the tuned training did")
        lost += supply(production, shares, "the training ends where the first domain does")
    return config_files(production, "torchtitan 0.3.0", usage, files, lost)


TORCHTITAN = Exporter(
    "torchtitan",
    "the optimizer with a curve for each parameter, and weighted sources",
    able(rates="exact", curves="exact", mixture="exact"),
    _files,
    "0.3.0",
    ("adamw",),
    {"weight": "share of the packed sequences, that is of the tokens, the mean over training"},
)
