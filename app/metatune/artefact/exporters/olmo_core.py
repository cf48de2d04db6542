"""Exports to OLMo-core: rates of every parameter at every update, and a source mixture."""

import json

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import Exporter, Production, config_files, place
from metatune.artefact.exporters.named_rates import names, rate_files
from metatune.artefact.exporters.stages import averaged
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
        lost += [f"{name}: left out, its share is 0" for name, s in shares.items() if not s > 0]
        sources = [
            {"source_name": name, "target_ratio": share / whole, "paths": [place(name)]}
            for name, share in shares.items()
            if share > 0
        ]
        files["sources.json"] = json.dumps(sources, indent=2, ensure_ascii=False) + "\n"
        usage += SOURCES
        at_end = "`max_repetition_ratio` says how often it may be repeated"
        lost += supply(production, shares, at_end)
    return config_files(production, "OLMo-core 3.0.0", usage, files, lost)


OLMO_CORE = Exporter(
    "olmo-core",
    "the optimizer with a curve for each parameter, and a source mixture",
    able(rates="exact", curves="exact", mixture="exact"),
    _files,
    "3.0.0",
    ("adamw",),
    {"target_ratio": "share of the tokens, the mean over training"},
)
