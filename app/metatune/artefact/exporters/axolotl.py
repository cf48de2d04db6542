"""Exports to Axolotl: a plugin that trains by its trainer with every parameter on its curve."""

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import (
    MODULE,
    SCHEDULES_OF_TORCH,
    Exporter,
    Production,
    as_yaml,
    config_files,
    template,
)

USAGE = """
Put this folder on the Python path, and merge `tuned.yaml` into your configuration. The plugin makes
the optimizer and its schedule: each parameter has its own curve, its decay, the tuned betas and
eps, embeddings, norms and adapters as well, which `lr_groups` of Axolotl don't reach. A parameter
without a curve, and a curve without a parameter, are refused when the training starts.
`learning_rate`, `lr_scheduler`, `optimizer`, `weight_decay`, `warmup_steps` and `embedding_lr` have
no effect; Axolotl asks for the first ones. An update has {tokens} tokens in the tuned schedules:
`micro_batch_size`, `gradient_accumulation_steps` and processes make it up.

Axolotl's `datasets[].weight` keeps a part of the rows of each dataset, so that the shares of the
training depend on their sizes: shares aren't exported.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    settings = production.artefact.optimizer.settings
    document = {
        "plugins": ["metatune_axolotl.TunedPlugin"],
        "max_steps": production.steps,
        # Left out it would be 1, the Trainer's own.
        "max_grad_norm": settings["clip_norm"] or 0.0,
        "optimizer": "adamw_torch" if settings["kind"] == "adamw" else "sgd",
        "lr_scheduler": "constant",
        "learning_rate": 0.0,
    }
    files = {
        "tuned.yaml": as_yaml(document),
        "metatune_axolotl.py": template("axolotl.py"),
        "metatune_trainer.py": template("hf_trainer.py"),
        MODULE: template(SCHEDULES_OF_TORCH),
    }
    lost = ["`eps_root`, which PyTorch's AdamW doesn't have"]
    usage = USAGE.format(tokens=f"{production.tokens_per_step:,}")
    return config_files(production, "Axolotl 0.21.0", usage, files, lost)


AXOLOTL = Exporter(
    "axolotl",
    "a plugin that gives Axolotl's trainer its optimizer",
    able(rates="exact", curves="exact", optimizer="exact", clip_norm="exact"),
    _files,
    "0.21.0",
    numbers={
        "max_steps": "updates of the training",
        "max_grad_norm": "largest global norm of the gradient of an update; 0 for no clipping",
        "learning_rate": "asked for, without effect",
    },
)
