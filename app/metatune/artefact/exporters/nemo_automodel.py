"""Exports to NeMo AutoModel: overrides by parameter, and domains with sampling and loss weights."""

from metatune.artefact.capabilities import able
from metatune.artefact.errors import ArtefactError
from metatune.artefact.exporters.base import Exporter, Production, as_yaml, config_files, place
from metatune.artefact.exporters.named_rates import flattened
from metatune.artefact.exporters.stages import averaged
from metatune.artefact.exporters.static_rates import groups, pattern, static_rates
from metatune.artefact.sections.loss_weights import LossWeights
from metatune.recipe.faults import Fault

USAGE = """
Merge `tuned.yaml` into your recipe and put in the paths of your data. `lr_mult` multiplies the
learning rate of the optimizer, which must be {peak!r} at its peak. `domain_mixture` needs an
explicit weighted `paths` list of the dataset with the same domains in the same order, and neither
pipeline nor context parallelism.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    artefact, peak = production.artefact, static_rates(production.artefact).peak
    lost = [*flattened(production), "the base schedule: choose yours, with the warmup"]
    overrides = [
        {"pattern": pattern(names), "lr_mult": rate / peak, "wd_mult": float(decays)}
        for rate, decays, names in groups(artefact)
    ]
    document: dict[str, object] = {"optimizer": {"param_group_overrides": overrides}}
    if artefact.mixture is not None or isinstance(artefact.loss_weights, LossWeights):
        domains, more = _domains(production)
        document["domain_mixture"] = {"domains": domains}
        lost += more
    usage = USAGE.format(peak=peak)
    files = {"tuned.yaml": as_yaml(document)}
    return config_files(production, "NeMo AutoModel 0.7.0", usage, files, lost)


def _domains(production: Production) -> tuple[list[dict[str, object]], list[str]]:
    """The domains of `domain_mixture`, and what is lost by them."""
    mixture, weights = production.artefact.mixture, production.artefact.loss_weights
    if mixture is not None:
        shares = averaged(mixture, production.steps)
    else:
        names = weights.domains if isinstance(weights, LossWeights) else ()
        shares = dict.fromkeys(names, 1 / max(1, len(names)))
    lost = [f"{name}: left out, its share is 0" for name, share in shares.items() if not share > 0]
    shares = {name: share for name, share in shares.items() if share > 0}
    if len(shares) < 2:
        problem = "NeMo AutoModel mixes two domains or more, with shares above 0"
        raise ArtefactError("export", [Fault("mixture", shares, problem, "export to another")])
    factors = dict.fromkeys(shares, 1.0)
    if isinstance(weights, LossWeights):
        factors = {n: w for n, w in averaged(weights, production.steps).items() if n in shares}
        scale = sum(shares[name] * factors[name] for name in shares)
        lost.append(
            "the weight of a token is objective / sampling weight, both made to sum to 1: it is "
            f"1 / {scale:.6g} times the tuned loss weight, for every domain alike"
        )
        if mixture is None:
            lost.append("no mixture was tuned: every domain has the same sampling weight")
    return [
        {
            "name": name,
            "sampling_weight": share,
            "objective_weight": share * factors[name],
            "path": place(name),
        }
        for name, share in shares.items()
    ], lost


NEMO_AUTOMODEL = Exporter(
    "nemo-automodel",
    "YAML of overrides by parameter and of domains with sampling and loss weights",
    able(rates="exact", mixture="exact", loss_weights="fitted"),
    _files,
    "0.7.0",
)
