"""Exports to OLMo-core: group overrides, a piecewise linear schedule for all, a source mixture."""

import json

from metatune.artefact.capabilities import able
from metatune.artefact.curves import value_at
from metatune.artefact.exporters.base import Exporter, Production, config_files, place
from metatune.artefact.exporters.named_rates import NAMES, flattened, rate_files
from metatune.artefact.exporters.stages import averaged
from metatune.artefact.exporters.static_rates import static_rates

CURVE = "shared_schedule.json"

ON_A_LINE = 1e-12
"""Of the peak: updates this near to a line are on it."""

RATES = """
The rates of the parameters, and the schedule that all of them follow:

```python
import json

from metatune_rates import groups
from olmo_core.optim import AdamWConfig, OptimGroupOverride
from olmo_core.optim.scheduler import ComposableScheduler, ComposableSchedulerStage

overrides = [
    OptimGroupOverride(
        params=group.names, opts={{"lr": group.rate, "weight_decay": group.weight_decay}}
    )
    for group in groups(NAMES)
]
optim = AdamWConfig(lr={peak!r}, group_overrides=overrides)
with open("shared_schedule.json") as file:
    stages = [ComposableSchedulerStage(**stage) for stage in json.load(file)]
scheduler = ComposableScheduler(stages=stages, units="steps")
```
"""

SOURCES = """
`sources.json` holds the fields of `SourceMixtureConfig` of each domain: put in your paths.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    artefact = production.artefact
    peak, curve = _shared_curve(production)
    files = rate_files(production, shared=True)
    files[CURVE] = json.dumps(_scheduler_stages([rate / peak for rate in curve]), indent=1) + "\n"
    usage = NAMES + RATES.format(peak=peak)
    lost = flattened(production, shared=True)
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
    return config_files(production, "OLMo-core 3.0.0", usage, files, lost)


def _shared_curve(production: Production) -> tuple[float, list[float]]:
    """The curve that all rates share: its peak, and its value at each update."""
    rates = production.artefact.learning_rates
    shared = static_rates(production.artefact, shared=True)
    return shared.peak, [
        float(value_at(rates.knots, shared.curve, rates.interpolation, step, production.steps))
        for step in range(production.steps)
    ]


def _scheduler_stages(fractions: list[float]) -> list[dict[str, object]]:
    """Stages of a ComposableScheduler that gives the n-th update, from 1, the n-th fraction.

    OLMo-core counts an update before it is made, so that its first one is at 1. Updates on one
    line share a stage.
    """
    points, corners = [fractions[0], *fractions], [0]
    for at in range(1, len(points) - 1):
        start = corners[-1]
        slope = (points[at] - points[start]) / (at - start)
        ahead = points[start] + slope * (at + 1 - start)
        if abs(ahead - points[at + 1]) > ON_A_LINE:
            corners.append(at)
    corners.append(len(points) - 1)
    return [
        {
            "duration": after - before,
            "shape": "linear",
            "start_lr_fraction": points[before],
            "end_lr_fraction": points[after],
        }
        for before, after in zip(corners, corners[1:], strict=False)
    ]


OLMO_CORE = Exporter(
    "olmo-core",
    "a module of group overrides, one schedule in stages, and a source mixture",
    able(rates="exact", curves="fitted", mixture="exact"),
    _files,
    "3.0.0",
)
