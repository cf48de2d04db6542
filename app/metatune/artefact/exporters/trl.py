"""Exports to TRL's SFTTrainer: the modules of transformers' Trainer, and a mixture of datasets."""

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
Put `metatune_schedules.py` and `tuned.json` side by side on the Python path:

```python
from metatune_schedules import trainer_arguments
from trl import SFTConfig, SFTTrainer

trainer = SFTTrainer(
    model=model,
    args=SFTConfig(output_dir="out", max_steps={steps}, max_grad_norm={norm}),
    train_dataset=dataset,
    **trainer_arguments(model, {steps}),
)
```

Where a mixture was tuned, `mixture.yaml` holds the fields of `DatasetMixtureConfig`: put in your
paths.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    artefact = production.artefact
    files, lost = torch_modules(production), []
    if artefact.mixture is not None:
        shares = averaged(artefact.mixture, production.steps)
        datasets = [{"path": place(name), "fraction": share} for name, share in shares.items()]
        files["mixture.yaml"] = as_yaml({"datasets": datasets, "streaming": False})
        lost.append(
            "`fraction` keeps the first round(share x total) rows of each dataset, total being the "
            "least of rows / share: shares are off by up to half a row in the total"
        )
    norm = artefact.optimizer.settings["clip_norm"] or 0.0
    usage = USAGE.format(steps=production.steps, norm=norm)
    lost.append("`eps_root`, which PyTorch's AdamW doesn't have")
    return config_files(production, "TRL 1.16.0", usage, files, lost)


TRL = Exporter(
    "trl",
    "a module that gives TRL's SFTTrainer its optimizer, and a dataset mixture",
    able(rates="exact", curves="exact", mixture="quantised"),
    _files,
    "1.16.0",
)
