"""Exports to llm-foundry: parameter groups, and a curriculum of stream mixtures."""

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import Exporter, Production, as_yaml, config_files
from metatune.artefact.exporters.mosaic_streaming import FLOORED, streams
from metatune.artefact.exporters.named_rates import flattened
from metatune.artefact.exporters.stages import staged
from metatune.artefact.exporters.static_rates import groups, pattern

USAGE = """
Merge `tuned.yaml` into your configuration and put in the folders of your data. `max_duration` must
be `{tokens}tok`: durations of the curriculum are tokens too, {tokens_per_step:,} for each update.
The first mixture is that of `train_loader`.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    artefact, per_step = production.artefact, production.tokens_per_step
    decay = artefact.optimizer.settings["weight_decay"]
    lost = [*flattened(production), "the base schedule: choose yours, with the warmup"]
    document: dict[str, object] = {
        "optimizer": {
            "param_groups": [
                # Models of Hugging Face are wrapped here: their names have a prefix.
                {
                    "param_str_match": pattern(names, r"(?:^|\.)"),
                    "lr": rate,
                    "weight_decay": decay * decays,
                }
                for rate, decays, names in groups(artefact)
            ]
        }
    }
    if artefact.mixture is not None:
        cut = staged(artefact.mixture, production.steps)
        ends = [*(stage.start for stage in cut.stages[1:]), production.steps]
        loaders = [{"dataset": {"streams": streams(stage.values)}} for stage in cut.stages]
        lengths = [end - stage.start for stage, end in zip(cut.stages, ends, strict=True)]
        document["train_loader"] = loaders[0]
        if len(loaders) > 1:
            document["callbacks"] = {
                "curriculum_learning": {
                    "duration": f"{lengths[0] * per_step}tok",
                    "schedule": [
                        {"duration": f"{length * per_step}tok", **loader}
                        for length, loader in zip(lengths[1:], loaders[1:], strict=True)
                    ],
                }
            }
        lost += [FLOORED, *cut.lost()]
    usage = USAGE.format(tokens=production.steps * per_step, tokens_per_step=per_step)
    files = {"tuned.yaml": as_yaml(document)}
    return config_files(production, "llm-foundry (2025-07-21)", usage, files, lost)


LLM_FOUNDRY = Exporter(
    "llm-foundry",
    "YAML of parameter groups and of a curriculum of mixtures",
    able(rates="exact", mixture="quantised", moving_mixture="quantised"),
    _files,
    "2025-07-21",
)
