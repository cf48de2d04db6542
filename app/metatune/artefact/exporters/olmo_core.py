"""Exports to OLMo-core: rates of every parameter at every update, and a source mixture."""

import json

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import (
    MIXTURE_MODULE,
    Exporter,
    Production,
    config_files,
    place,
    template,
)
from metatune.artefact.exporters.named_rates import names, rate_files
from metatune.artefact.exporters.stages import averaged, moves
from metatune.artefact.exporters.supply import supply

RATES = """
Put this folder on the Python path. The optimizer and its schedule:

```python
from metatune_olmo_core import TunedAdamWConfig, TunedScheduler

optim = TunedAdamWConfig()
scheduler = TunedScheduler()
```

Every parameter has its own curve, its betas and eps; the first update is update 1 of the trainer,
whose `max_duration` must be {steps} updates. Set `max_grad_norm={clip}` of the train module.
"""

SOURCES = """
`sources.json` holds the fields of `SourceMixtureConfig` of each domain: put in your paths.
"""

MOVING = """
The data, by the shares as they move, with the paths of each domain and your `tokenizer`:

```python
from metatune_mixture import TunedMixtureConfig
from olmo_core.data.composable import ComposableDataLoaderConfig, ConcatAndChunkInstanceSourceConfig

sources = {{
    name: ConcatAndChunkInstanceSourceConfig.from_npy(
        *paths, tokenizer=tokenizer, sequence_length=sequence_length
    )
    for name, paths in paths_of_domains.items()
}}
mixture = TunedMixtureConfig(
    sources=sources,
    total_steps={steps},
    sequences_per_step=global_batch_size // sequence_length,  # sequences of an update
)
loader = ComposableDataLoaderConfig(
    tokenizer=tokenizer, global_batch_size=global_batch_size, shuffle=False
).build(mixture.build(work_dir), work_dir=work_dir)
```

It holds the sequences of the whole training in their order: leave `shuffle` at False. After each
update the sequences of a domain are those that its shares add up to, within one. Each domain is
shuffled, and anew where it is read again. `sources.json` holds the mean shares over training, as
fields of `SourceMixtureConfig`, which know no time.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    artefact, settings = production.artefact, production.artefact.optimizer.settings
    files = rate_files(production, "olmo-core", "olmo_core")
    usage = RATES.format(steps=production.steps, clip=settings["clip_norm"])
    usage += names(production, "olmo-core", "OLMo-core")
    lost = ["`eps_root`, which PyTorch's AdamW doesn't have"]
    if artefact.mixture is not None:
        shares = averaged(artefact.mixture, production.steps)
        # Its ratios must sum to 1 and be above 0.
        whole = sum(shares.values())
        lost += [
            f"of `sources.json`: {name} is left out, its share is 0"
            for name, share in shares.items()
            if not share > 0
        ]
        sources = [
            {"source_name": name, "target_ratio": share / whole, "paths": [place(name)]}
            for name, share in shares.items()
            if share > 0
        ]
        files["sources.json"] = json.dumps(sources, indent=2, ensure_ascii=False) + "\n"
        at_end = "`max_repetition_ratio` says how often it may be repeated"
        if moves(artefact.mixture, production.steps):
            files[MIXTURE_MODULE] = template("olmo_core_mixture.py")
            files["metatune_schedule.py"] = template("schedule.py")
            usage += MOVING.format(steps=production.steps)
            at_end = "`TunedMixture` begins it anew"
        else:
            usage += SOURCES
        lost += supply(production, shares, at_end)
    return config_files(production, "OLMo-core 3.0.0", usage, files, lost)


OLMO_CORE = Exporter(
    "olmo-core",
    "the optimizer with a curve for each parameter, and a mixture as it moves",
    able(rates="exact", curves="exact", mixture="exact", moving_mixture="exact"),
    _files,
    "3.0.0",
    ("adamw",),
    {"target_ratio": "share of the tokens, the mean over training"},
    side_by_side=("adamw",),
    refused=dict.fromkeys(
        ("muon", "normuon"),
        "its MuonConfig takes no group_overrides, so that all matrices have one rate, and scales "
        "by the package dion's rules, none of which is sqrt(max(1, outputs / inputs))",
    ),
)
