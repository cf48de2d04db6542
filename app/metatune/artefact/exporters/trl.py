"""Exports to TRL's SFTTrainer: its optimizer, and a mixture of data sets."""

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import (
    Exporter,
    Production,
    as_yaml,
    config_files,
    max_grad_norm,
    muon_of_torch,
    place,
    template,
    torch_modules,
)
from metatune.artefact.exporters.stages import averaged
from metatune.artefact.exporters.supply import documents, supply
from metatune.artefact.exporters.torch import SIDE_BY_SIDE, muon_faults

USAGE = """
Put this folder on the Python path, or copy its Python files and `tuned.json` side by side into your
project:

```python
from metatune_trainer import Tuned
from trl import SFTConfig, SFTTrainer


class TunedSFTTrainer(Tuned, SFTTrainer):
    pass


arguments = SFTConfig(
    output_dir="out",
    max_steps={steps},
    per_device_train_batch_size=8,
    gradient_accumulation_steps=1,
    max_grad_norm={norm}
)
trainer = TunedSFTTrainer(model=model, args=arguments, train_dataset=dataset)
trainer.train()
```

The optimizer is made when the model is ready, after `peft_config=` has added its adapters, and its
schedule is over the updates that the trainer makes. Other rates and decays of the arguments have no
effect. The `optimizer` and `scheduler` blocks of a DeepSpeed configuration, which would overwrite
all rates, are refused.
"""

MIXED = """
Shares that hold in every update, as they move, with a source of rows for each domain:

```python
from datasets import IterableDataset
from metatune_mixture import Mixed

mixed = Mixed(sources, {steps}, batch_size, ranks=1)  # batch_size: sequences of an update
dataset = IterableDataset.from_generator(lambda: iter(mixed))
```

Give `mixed=mixed` to `TunedSFTTrainer` too: it refuses a batch or a number of updates that isn't
`Mixed`'s. Rows are documents: leave `packing` off, or give `Mixed` packed sequences.

`mixture.yaml` holds the fields of `DatasetMixtureConfig` for `trl sft --config`: the mean shares
over training, of documents. Put in your paths.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    artefact = production.artefact
    files = torch_modules(production)
    files["metatune_trainer.py"] = template("hf_trainer.py")
    lost: list[str] = []
    usage = USAGE.format(steps=production.steps, norm=max_grad_norm(artefact))
    if artefact.mixture is not None:
        shares = averaged(artefact.mixture, production.steps)
        rows, how = documents(production, shares)
        datasets = [{"path": place(name), "fraction": share} for name, share in rows.items()]
        files["mixture.yaml"] = as_yaml({"datasets": datasets, "streaming": False})
        usage += MIXED.format(steps=production.steps)
        lost += [
            f"of `mixture.yaml`: {how}",
            "of `mixture.yaml`: `fraction` keeps the first round(share x total) rows of each data "
            "set, total being the least of rows / share: the mixture is as small as the domain "
            "that ends first allows",
            *supply(production, shares, "`Mixed` begins a source with a length anew"),
        ]
    lost += ["`eps_root`, which PyTorch's AdamW doesn't have", *muon_of_torch(artefact)]
    return config_files(production, "TRL 1.16.0", usage, files, lost)


TRL = Exporter(
    "trl",
    "a trainer like TRL's SFTTrainer with its optimizer, and a mixture of data sets",
    able(
        rates="exact",
        curves="exact",
        mixture="exact",
        moving_mixture="exact",
        optimizer="exact",
        clip_norm="exact",
    ),
    _files,
    "1.16.0",
    side_by_side=SIDE_BY_SIDE,
    faults=muon_faults,
    numbers={"fraction": "share of the rows of the mixture, that is of the documents"},
    stacks_experts="all",
)
