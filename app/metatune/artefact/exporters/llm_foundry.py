"""Exports to llm-foundry: parameter groups, and a curriculum of stream mixtures."""

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import (
    Exporter,
    Production,
    as_yaml,
    config_files,
    template,
)
from metatune.artefact.exporters.base_schedule import base_schedule
from metatune.artefact.exporters.mosaic_streaming import streams
from metatune.artefact.exporters.named_rates import flattened
from metatune.artefact.exporters.stages import averaged, staged
from metatune.artefact.exporters.static_rates import groups, pattern
from metatune.artefact.exporters.supply import supply

USAGE = """
Merge `tuned.yaml` into your configuration and put in the folders of your data. `max_duration` must
be `{tokens}tok`: durations are tokens there, {tokens_per_step:,} for each update. The first mixture
is that of `train_loader`. `metatune_llm_foundry.py`, which `code_paths` names, stands where you
start the training: it refuses to begin where a pattern of `param_groups` matches no parameter, or a
parameter no pattern.

`decoupled_adamw`, the only AdamW here, doesn't multiply its `weight_decay` by the learning rate,
but by how far the rate is down from its peak: the numbers are the tuned decay times the peak of
the group's rate.
"""

SCHEDULERS = {
    "constant": "constant_with_warmup",
    "linear": "linear_decay_with_warmup",
    "cosine": "cosine_with_warmup",
}


def _files(production: Production) -> dict[str, bytes | str]:
    artefact, per_step = production.artefact, production.tokens_per_step
    settings, base = artefact.optimizer.settings, base_schedule(production)
    lost = flattened(production)
    if base.deviation > 1e-6:
        lost.append(f"the base schedule is fitted: {base.words(production.steps)}")
    if base.warmup:
        lost.append("the warmup begins at 0 there, so that the first update has no effect")
    lost.append("`eps_root`, which PyTorch's AdamW doesn't have")
    ends_at = {} if base.kind == "constant" else {"alpha_f": base.last}
    document: dict[str, object] = {
        "code_paths": ["metatune_llm_foundry.py"],
        "max_duration": f"{production.steps * per_step}tok",
        "optimizer": {
            "name": "decoupled_adamw",
            "lr": base.peak,
            "betas": [settings["b1"], settings["b2"]],
            "eps": settings["eps"],
            "weight_decay": 0.0,
            "param_groups": [
                # Models of Hugging Face are wrapped here: their names have a prefix.
                {
                    "param_str_match": pattern(names, r"(?:^|\.)"),
                    "lr": rate,
                    "weight_decay": rate * settings["weight_decay"] * decays,
                }
                for rate, decays, names in groups(artefact)
            ],
        },
        "scheduler": {
            "name": SCHEDULERS[base.kind],
            "t_warmup": f"{base.warmup * per_step}tok",
            **ends_at,
        },
    }
    if settings["clip_norm"] is not None:
        clipping = {"clipping_type": "norm", "clipping_threshold": settings["clip_norm"]}
        document["algorithms"] = {"gradient_clipping": clipping}
    callbacks: dict[str, object] = {"metatune_check": {}}
    if artefact.mixture is not None:
        cut = staged(artefact.mixture, production.steps)
        ends = [*(stage.start for stage in cut.stages[1:]), production.steps]
        loaders = [{"dataset": _dataset(stage.values)} for stage in cut.stages]
        lengths = [end - stage.start for stage, end in zip(cut.stages, ends, strict=True)]
        document["train_loader"] = loaders[0]
        if len(loaders) > 1:
            callbacks["curriculum_learning"] = {
                "duration": f"{lengths[0] * per_step}tok",
                "schedule": [
                    {"duration": f"{length * per_step}tok", **loader}
                    for length, loader in zip(lengths[1:], loaders[1:], strict=True)
                ],
            }
            lost.append(
                "each stage begins its domains anew: shuffled otherwise, it reads some sequences "
                "again and leaves others out"
            )
        shares = averaged(artefact.mixture, production.steps)
        lost += cut.lost()
        lost.append("shares are whole sequences of each batch of all devices (`stratified`)")
        lost += supply(production, shares, "an epoch ends there, and the next begins anew")
    document["callbacks"] = callbacks
    usage = USAGE.format(tokens=production.steps * per_step, tokens_per_step=per_step)
    files = {
        "tuned.yaml": as_yaml(document),
        "metatune_llm_foundry.py": template("llm_foundry.py"),
    }
    return config_files(production, "llm-foundry 0.22.0", usage, files, lost)


def _dataset(shares: dict[str, float]) -> dict[str, object]:
    return {"shuffle": True, "batching_method": "stratified", "streams": streams(shares)}


LLM_FOUNDRY = Exporter(
    "llm-foundry",
    "YAML of parameter groups and of a curriculum of mixtures",
    able(rates="exact", mixture="quantised", moving_mixture="quantised"),
    _files,
    "0.22.0",
    optimizers=("adamw",),
    numbers={
        "lr": "rate at the peak of the schedule, absolute, per update",
        "weight_decay": "rate at the peak x tuned decay: it isn't multiplied by the rate, but by "
        "the schedule's fraction of the peak, at each update",
        "betas": "decays of the two moments, per update",
        "eps": "added to the root of the second moment",
        "alpha_f": "the rate at the end of training, as a fraction of the peak",
        "clipping_threshold": "largest global norm of the gradient of an update",
        "proportion": "share of the sequences of the stage",
        "max_duration": "tokens of the training",
        "duration": "tokens of the stage",
        "t_warmup": "tokens before the peak",
    },
)
