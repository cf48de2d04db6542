"""Exports to torchtitan: rates of every parameter at every update, and weighted sources."""

import json
from typing import NamedTuple

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import (
    MIXTURE_MODULE,
    Exporter,
    Production,
    config_files,
    place,
    template,
)
from metatune.artefact.exporters.named_rates import fused, names, rate_files
from metatune.artefact.exporters.stages import averaged, moves
from metatune.artefact.exporters.supply import supply
from metatune.artefact.exporters.whole_weights import truncation

RATES = """
Put this folder on the Python path. In your `config_registry`, for the optimizer and its schedule:

```python
from metatune_torchtitan import TunedOptimizers, TunedSchedules

optimizer = TunedOptimizers.Config()
lr_scheduler = TunedSchedules.Config()
```

Every parameter has its own curve, whatever `warmup_steps` and the like say; parameters of equal
curves share a group. torchtitan's own sizes fuse queries, keys and values, which have one curve
then; with `fuse_qkv=False` each has its own. Set `training.steps` to {steps}, and
`training.max_norm` to {clip}.
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
{loader}
```
"""

STATIC = """\
dataloader = InterleavedHuggingFaceTextDataLoader.Config(
    sources=[HFDataSource(**source) for source in sources]
)"""

MOVING = """\
dataloader = TunedDataLoader.Config(
    sources=[HFDataSource(**source) for source in sources],
    total_steps={steps},
    sequences_per_step=global_batch_size,
)"""

MOVES = """
The shares of each sequence are those of its update: `global_batch_size` are the sequences of an
update over all processes and accumulated gradients, that of `training` (of each process its
`local_batch_size` where it has none). Leave `num_workers` at 0 or 1. A checkpoint of the loader
knows the update. The order in `sources.json` is that of the domains; weights have no effect.
"""

GRAIN = """
For the data, with your paths in `sources.json`, and JSON lines with a field `text`:

```python
import json

from torchtitan.components.data import (
    ConcatThenSplitPackingConfig,
    DatasetMixConfig,
    GrainDataLoader,
    IndexedJsonlSource,
    SingleDatasetConfig,
    WeightedDataset,
)
from torchtitan.hf_datasets.text_datasets import TextProcessor


def is_text(sample):
    return sample is not None


def packed(path):
    documents = SingleDatasetConfig(
        source=IndexedJsonlSource.Config(patterns=(path,)),
        processor=TextProcessor.Config(),
        post_filters=(is_text,),
    )
    return ConcatThenSplitPackingConfig(dataset=documents)


with open("sources.json") as file:
    sources = json.load(file)
dataloader = GrainDataLoader.Config(
    dataset=DatasetMixConfig(
        datasets=tuple(
            WeightedDataset(dataset=packed(source["path"]), weight=source["weight"])
            for source in sources
        )
    )
)
```

Each domain is packed before it is mixed, so that weights count tokens. Don't reorder the domains of
a training that is resumed: each is shuffled by its place.
"""


class _Data(NamedTuple):
    """What an export has of the data: files, words and losses."""

    files: dict[str, str]
    usage: str
    lost: list[str]


def _interleaved(production: Production) -> _Data:
    """Of 0.3.0: its own loader for shares that stay, one of the export for those that move."""
    mixture = production.artefact.mixture
    if mixture is None:
        return _Data({}, "", [])
    shares = averaged(mixture, production.steps)
    sources = [
        # Names are made lower case there before they are looked up.
        {"dataset": f"tuned_{i}_{name}".lower(), "dataset_path": place(name), "weight": share}
        for i, (name, share) in enumerate(shares.items())
    ]
    files = {"sources.json": json.dumps(sources, indent=2, ensure_ascii=False) + "\n"}
    lost = ["weights count packed sequences, that is tokens, as the tuned training did"]
    if moves(mixture, production.steps):
        files[MIXTURE_MODULE] = template("torchtitan_mixture.py")
        files["metatune_schedule.py"] = template("schedule.py")
        usage = SOURCES.replace("    InterleavedHuggingFaceTextDataLoader,\n", "").replace(
            "import json\n\nfrom datasets import load_dataset\n",
            "import json\n\nfrom datasets import load_dataset\n"
            "from metatune_mixture import TunedDataLoader\n",
        )
        usage = usage.format(loader=MOVING.format(steps=production.steps)) + MOVES
    else:
        usage = SOURCES.format(loader=STATIC)
        lost.append(
            "all processes draw the same domains at the same places: shares of an update scatter "
            "as those of one process's sequences do"
        )
    lost += supply(
        production, shares, "it is read anew, in the same order where it is streamed, by default"
    )
    return _Data(files, usage, lost)


def _grain(production: Production) -> _Data:
    """Of the main branch: its loader by Grain, whose weights stay."""
    mixture = production.artefact.mixture
    if mixture is None:
        return _Data({}, "", [])
    shares = averaged(mixture, production.steps)
    kept = {name: share for name, share in shares.items() if share > 0}
    sources = [{"path": place(name), "weight": share} for name, share in kept.items()]
    return _Data(
        {"sources.json": json.dumps(sources, indent=2, ensure_ascii=False) + "\n"},
        GRAIN,
        [
            *(f"{name}: left out, its share is 0" for name in shares if name not in kept),
            f"Grain makes whole numbers of the shares: off by up to {truncation(kept):.3g}",
            *supply(production, shares, "it is read anew, in another order"),
        ],
    )


def _files(production: Production, title: str, data: _Data) -> dict[str, bytes | str]:
    settings = production.artefact.optimizer.settings
    files = rate_files(production, "torchtitan", "torchtitan") | data.files
    usage = RATES.format(steps=production.steps, clip=settings["clip_norm"] or 1e9)
    usage += names(production, "torchtitan", "torchtitan") + data.usage
    eps = "`eps_root`, which PyTorch's AdamW doesn't have"
    lost = [*fused(production, "torchtitan"), eps, *data.lost]
    return config_files(production, f"torchtitan {title}", usage, files, lost)


REFUSED = {
    "muon": "its DistMuon takes one group of parameters, and so one rate for all matrices, and its "
    "llama3 makes one matrix of queries, keys and values, which Muon makes orthogonal as a whole"
}

MAIN = Exporter(
    "torchtitan",
    "the optimizer with a curve for each parameter, and weighted sources by Grain",
    able(rates="fitted", curves="fitted", mixture="quantised"),
    lambda production: _files(production, "main of 2026-08-21", _grain(production)),
    "main-2026-08-21",
    ("adamw",),
    {"weight": "share of the packed sequences, that is of the tokens, the mean over training"},
    side_by_side=("adamw",),
    refused=REFUSED,
)
TORCHTITAN = Exporter(
    "torchtitan",
    "the optimizer with a curve for each parameter, and sources by shares as they move",
    able(rates="fitted", curves="fitted", mixture="exact", moving_mixture="exact"),
    lambda production: _files(production, "0.3.0", _interleaved(production)),
    "0.3.0",
    ("adamw",),
    {
        "weight": "share of the packed sequences, that is of the tokens, the mean over training; "
        "without effect where shares move"
    },
    side_by_side=("adamw",),
    refused=REFUSED,
    others=(MAIN,),
)
