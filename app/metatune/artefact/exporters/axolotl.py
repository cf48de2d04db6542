"""Exports to Axolotl: groups of modules with a learning rate, and that of the embeddings."""

import math
import re
from collections.abc import Collection

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import Exporter, Production, as_yaml, config_files
from metatune.artefact.exporters.named_rates import flattened
from metatune.artefact.exporters.static_rates import static_rates

EMBEDDINGS = re.compile(r"embed_tokens|lm_head")
UNREACHED = re.compile(r"bias|norm|ln_")
"""Parameters of biases and normalisations, which no group of Axolotl reaches."""

USAGE = """
Merge `tuned.yaml` into your configuration. Choose `lr_scheduler` and warmup yourself: the rates are
peaks.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    rates = static_rates(production.artefact).parameters
    embeddings = [rate for name, rate in rates.items() if EMBEDDINGS.search(name)]
    rest = {name: rate for name, rate in rates.items() if not EMBEDDINGS.search(name)}
    unreached = [rate for name, rate in rest.items() if UNREACHED.search(name)]
    groups: dict[float, list[str]] = {}
    for name, rate in rest.items():
        if not UNREACHED.search(name):
            groups.setdefault(rate, []).append(name)
    base = _middle(unreached or list(rates.values()))
    document: dict[str, object] = {
        "learning_rate": base,
        "lr_groups": [
            {"name": f"tuned_{number}", "modules": names, "lr": rate}
            for number, (rate, names) in enumerate(groups.items(), 1)
        ],
    }
    lost = flattened(production)
    if embeddings:
        document["embedding_lr"] = _middle(embeddings)
        lost += _spread("embeddings and output layer have one rate", embeddings)
    lost += _spread("biases and normalisations have one rate, `learning_rate`", unreached)
    files = {"tuned.yaml": as_yaml(document)}
    return config_files(production, "Axolotl 0.21.0", USAGE, files, lost)


def _middle(rates: Collection[float]) -> float:
    """The geometric mean; the rate itself where there is but one."""
    if len(set(rates)) == 1:
        return next(iter(rates))
    if min(rates) <= 0:
        return 0.0
    return math.exp(math.fsum(map(math.log, rates)) / len(rates))


def _spread(what: str, rates: Collection[float]) -> list[str]:
    if len(set(rates)) < 2:
        return []
    off = max(abs(_middle(rates) / rate - 1) if rate else math.inf for rate in rates)
    return [f"{what}: off by up to {100 * off:.3g} %"]


AXOLOTL = Exporter(
    "axolotl",
    "YAML of groups of modules with a learning rate each",
    able(rates="fitted"),
    _files,
    "0.21.0",
)
