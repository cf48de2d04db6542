"""Exports to NeMo AutoModel: overrides by parameter, and domains with sampling and loss weights."""

from metatune.artefact.capabilities import able
from metatune.artefact.errors import ArtefactError
from metatune.artefact.exporters.base import (
    Exporter,
    Production,
    as_yaml,
    config_files,
    place,
    template,
)
from metatune.artefact.exporters.base_schedule import base_schedule
from metatune.artefact.exporters.named_rates import flattened
from metatune.artefact.exporters.stages import averaged
from metatune.artefact.exporters.static_rates import groups, pattern, static_rates
from metatune.artefact.exporters.supply import supply
from metatune.artefact.sections.loss_weights import LossWeights
from metatune.recipe.faults import Fault

USAGE = """
Merge `tuned.yaml` into your recipe, put in the paths of your data, put this folder on the Python
path, and set `NEMO_ENABLE_USER_MODULES=1`, without which NeMo AutoModel imports nothing of others.
`lr_mult` multiplies the learning rate of the optimizer and `wd_mult` its weight decay, both through
`lr_scheduler`: without that section they do nothing. `TunedAdamW` is PyTorch's AdamW, and refuses
to begin with a parameter that no pattern matches, or where not all `groups` have parameters, of
which NeMo AutoModel itself but warns. With a pipeline each stage has a part of them: take `groups`
out then, and look for "matched no parameters" in the log.
"""

EXCLUDES = (
    "`domain_mixture`, which weighs the loss of domains, excludes packed sequences, pipeline and "
    "context parallelism, blends by JSON, implicit weights, and losses that aren't sums"
)


def _files(production: Production) -> dict[str, bytes | str]:
    artefact, peak = production.artefact, static_rates(production.artefact).peak
    settings, base = artefact.optimizer.settings, base_schedule(production)
    lost = flattened(production)
    if base.deviation > 1e-6:
        lost.append(f"the base schedule is fitted: {base.words(production.steps)}")
    lost.append("`eps_root`, which PyTorch's AdamW doesn't have")
    overrides = [
        {
            "pattern": pattern(names),
            "lr_mult": rate / peak if peak else 0.0,
            "wd_mult": float(decays),
        }
        for rate, decays, names in groups(artefact)
    ]
    document: dict[str, object] = {
        "step_scheduler": {"max_steps": production.steps},
        "optimizer": {
            "_target_": "metatune_nemo_automodel.TunedAdamW",
            "groups": len(overrides),
            "lr": peak,
            "betas": [settings["b1"], settings["b2"]],
            "eps": settings["eps"],
            "weight_decay": settings["weight_decay"],
            "param_group_overrides": overrides,
        },
        "lr_scheduler": {
            "lr_decay_style": base.kind,
            "lr_warmup_steps": base.warmup,
            "lr_decay_steps": production.steps,
            "init_lr": peak / (base.warmup + 1),
            "min_lr": peak * base.last,
        },
    }
    if settings["clip_norm"] is not None:
        document["max_grad_norm"] = settings["clip_norm"]
    if artefact.mixture is not None or isinstance(artefact.loss_weights, LossWeights):
        domains, more = _domains(production)
        if isinstance(artefact.loss_weights, LossWeights):
            document["domain_mixture"] = {"domains": domains}
            lost.append(EXCLUDES)
        # Weights and prefixes in turn, in the order of the domains.
        blend = [str(word) for each in domains for word in (each["sampling_weight"], each["path"])]
        document["dataset"] = {"paths": {"train": blend}}
        shares = {str(each["name"]): float(str(each["sampling_weight"])) for each in domains}
        lost += [*more, *supply(production, shares, "a blend repeats it in epochs of its own")]
    files = {
        "tuned.yaml": as_yaml(document),
        "metatune_nemo_automodel.py": template("nemo_automodel.py"),
    }
    return config_files(production, "NeMo AutoModel 0.7.0", USAGE, files, lost)


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
    optimizers=("adamw",),
    numbers={
        "groups": "of parameters that there must be",
        "lr": "rate at the peak of the base schedule, absolute, per update",
        "lr_mult": "times the rate of the schedule, at each update",
        "weight_decay": "multiplied by the rate of the group and by its wd_mult, at each update",
        "wd_mult": "times weight_decay",
        "betas": "decays of the two moments, per update",
        "eps": "added to the root of the second moment",
        "max_steps": "updates of the training",
        "lr_warmup_steps": "updates before the peak",
        "lr_decay_steps": "updates of the training",
        "init_lr": "rate that the warmup begins at, absolute",
        "min_lr": "rate at the end of training, absolute, of a parameter with lr_mult 1",
        "max_grad_norm": "largest global norm of the gradient of an update",
        "sampling_weight": "share of the sequences, that is of the tokens, the mean over training",
        "objective_weight": "share of the loss: objective / sampling is the weight of a token",
        "train": "share of the sequences, the mean over training, then the prefix of the domain",
    },
    refused=dict.fromkeys(
        ("muon", "normuon"),
        "its MuonConfig ignores param_group_overrides, so that all matrices have one rate, and "
        "scales by the package dion's rules, none of which is sqrt(max(1, outputs / inputs))",
    ),
)
