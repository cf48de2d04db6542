"""Exports to Axolotl: a plugin that trains by its trainer with every parameter on its curve."""

from typing import Any

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import (
    MODULE,
    SCHEDULES_OF_TORCH,
    Exporter,
    Production,
    as_yaml,
    config_files,
    muon_of_torch,
    place,
    template,
)
from metatune.artefact.exporters.stages import averaged
from metatune.artefact.exporters.supply import DOCUMENTS, documents, supply
from metatune.artefact.exporters.torch import SIDE_BY_SIDE, muon_faults
from metatune.artefact.sections.mixture import Mixture

USAGE = """
Put this folder on the Python path, and merge `tuned.yaml` into your configuration. The plugin makes
the optimizer and its schedule: each parameter has its own curve, its decay, the tuned betas and
eps, embeddings, norms and adapters as well, which `lr_groups` of Axolotl don't reach. A parameter
without a curve, and a curve without a parameter, are refused when the training starts.
`learning_rate`, `lr_scheduler`, `optimizer`, `weight_decay`, `warmup_steps` and `embedding_lr` have
no effect; Axolotl asks for the first ones. An update has {tokens} tokens in the tuned schedules:
`micro_batch_size`, `gradient_accumulation_steps` and processes make it up.

"""

MIXED = """
`weight` of each of the `datasets` keeps that part of its rows, before it is tokenized: put in your
paths and types. The weights are right for data sets of as many rows as the tuned ones had{rows};
for others they are rows wanted / rows, with rows wanted in the proportions {wanted}.
All that is kept is shuffled together, and is read again until `max_steps`.
"""


def _weights(production: Production, mixture: Mixture) -> tuple[list[Any], str, list[str]]:
    """The entries of `datasets`, what a README says of them, and what is lost."""
    means = averaged(mixture, production.steps)
    rows, how = documents(production, means)
    held = production.artefact.provenance.get("domains") or {}
    have = {name: held.get(name, {}).get(DOCUMENTS) for name in rows}
    known = all(have.values())
    kept = {name: share / (have[name] if known else 1) for name, share in rows.items() if share > 0}
    largest = max(kept.values())
    entries = [{"path": place(name), "weight": part / largest} for name, part in kept.items()]
    shown = ", ".join(f"{name} {count:,}" for name, count in have.items()) if known else ""
    said = MIXED.format(
        rows=f" ({shown})" if known else ", all as many",
        wanted=", ".join(f"{name} {share:.4g}" for name, share in rows.items()),
    )
    total = sum(part * (have[name] if known else 1) for name, part in kept.items()) / largest
    lost = [
        how,
        *(f"{name}: left out, its share is 0" for name in rows if name not in kept),
        "rows that are left out of a data set are never read"
        + (f": of the tuned data {total:,.0f} stay" if known else ""),
        *supply(production, means, "what was kept is read again"),
    ]
    return entries, said, lost


def _files(production: Production) -> dict[str, bytes | str]:
    optimizer, mixture = production.artefact.optimizer, production.artefact.mixture
    document: dict[str, object] = {
        "plugins": ["metatune_axolotl.TunedPlugin"],
        "max_steps": production.steps,
        # Left out it would be 1, the Trainer's own.
        "max_grad_norm": optimizer.settings["clip_norm"] or 0.0,
        "optimizer": "adamw_torch_fused" if "adamw" in optimizer.kinds else "sgd",
        "lr_scheduler": "constant",
        "learning_rate": 0.0,
    }
    usage = USAGE.format(tokens=f"{production.tokens_per_step:,}")
    lost = [
        "`eps_root`, which PyTorch's AdamW doesn't have",
        *muon_of_torch(production.artefact),
    ]
    if mixture is not None:
        document["datasets"], said, more = _weights(production, mixture)
        usage, lost = usage + said, lost + more
    files = {
        "tuned.yaml": as_yaml(document),
        "metatune_axolotl.py": template("axolotl.py"),
        "metatune_trainer.py": template("hf_trainer.py"),
        MODULE: template(SCHEDULES_OF_TORCH),
    }
    return config_files(production, "Axolotl 0.21.0", usage, files, lost)


AXOLOTL = Exporter(
    "axolotl",
    "a plugin that gives Axolotl's trainer its optimizer, and parts of data sets",
    able(rates="exact", curves="exact", mixture="fitted", optimizer="exact", clip_norm="exact"),
    _files,
    "0.21.0",
    side_by_side=SIDE_BY_SIDE,
    faults=muon_faults,
    numbers={
        "max_steps": "updates of the training",
        "max_grad_norm": "largest global norm of the gradient of an update; 0 for no clipping",
        "learning_rate": "asked for, without effect",
        "weight": "part of the rows of the data set that is kept; the mean over training",
    },
    stacks_experts="all",
)
