"""Exporters: folders that carry tuned schedules into a trainer, without metatune."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from metatune.artefact.capabilities import asked, dropped
from metatune.artefact.demands import destination
from metatune.artefact.document import held
from metatune.artefact.errors import ArtefactError
from metatune.artefact.exporters.axolotl import AXOLOTL
from metatune.artefact.exporters.base import Exporter, Production
from metatune.artefact.exporters.csv import CSV
from metatune.artefact.exporters.grain import GRAIN
from metatune.artefact.exporters.hf_trainer import HF_TRAINER
from metatune.artefact.exporters.json import JSON
from metatune.artefact.exporters.levanter import LEVANTER
from metatune.artefact.exporters.litdata import LITDATA
from metatune.artefact.exporters.llama_factory import LLAMA_FACTORY
from metatune.artefact.exporters.llm_foundry import LLM_FOUNDRY
from metatune.artefact.exporters.maxtext import MAXTEXT
from metatune.artefact.exporters.megatron import MEGATRON
from metatune.artefact.exporters.mosaic_streaming import MOSAIC_STREAMING
from metatune.artefact.exporters.names_in_memory import as_one, differing
from metatune.artefact.exporters.names_in_memory import faults as faults_of_experts
from metatune.artefact.exporters.nanotron import NANOTRON
from metatune.artefact.exporters.nemo_automodel import NEMO_AUTOMODEL
from metatune.artefact.exporters.olmo_core import OLMO_CORE
from metatune.artefact.exporters.optax import OPTAX
from metatune.artefact.exporters.torch import TORCH
from metatune.artefact.exporters.torchtitan import TORCHTITAN
from metatune.artefact.exporters.trainer_names import TABLES
from metatune.artefact.exporters.trl import TRL
from metatune.artefact.exporters.verifying import refuse_unverifiable, verify
from metatune.artefact.folders import replace_folder
from metatune.artefact.format import Artefact
from metatune.artefact.horizon import carried, distance
from metatune.artefact.merging import merged
from metatune.artefact.sections import SECTIONS
from metatune.artefact.sections.optimizer import GROUPS
from metatune.recipe.faults import ABSENT, Fault, unknown

__all__ = [
    "EXPORTERS",
    "Exported",
    "Exporter",
    "export",
    "replaceable",
    "suited",
    "weighs_parameters",
]

EXPORTERS = {
    exporter.name: exporter
    for exporter in (
        JSON,
        CSV,
        OPTAX,
        TORCH,
        HF_TRAINER,
        TRL,
        MEGATRON,
        NEMO_AUTOMODEL,
        MOSAIC_STREAMING,
        LLM_FOUNDRY,
        TORCHTITAN,
        OLMO_CORE,
        LEVANTER,
        MAXTEXT,
        AXOLOTL,
        LLAMA_FACTORY,
        NANOTRON,
        LITDATA,
        GRAIN,
    )
}
"""A new target is one file, and one name here."""

SUGGESTED = ("hf-trainer", "torch", "optax", "json")

MOST_STEPS = 10_000_000
"""Updates of a training to come: schedules are described update by update."""

WRITTEN = re.compile(
    r"README\.md|__pycache__|tuned\.(json|yaml|safetensors)|initialisation\.safetensors"
    rf"|metatune_(schedules?|trainer|rates|axolotl|levanter|llm_foundry|megatron|nemo_automodel|olmo_core|torchtitan|{'|'.join(SECTIONS)})\.py"
    rf"|({'|'.join(SECTIONS)}|weight_decay)\.csv"
    r"|(mixture|streams)\.yaml|launch\.sh"
    r"|phase_\d+\.(txt|json)|(sources|weights|static_rates)\.json"
)
"""Names that exports give their files; `overwrite` replaces these and no others."""


class Exported(NamedTuple):
    """What an export wrote.

    Attributes:
        paths: of the files.
        dropped: what was tuned and the target can't express, a line each.
        warning: that the tuned training was far from the one to come; None if it wasn't.
        merged: what merging groups of parameters did to their rates; None where none was asked.
        verified: what was compared of it by the target's own code, a line each.
    """

    paths: list[Path]
    dropped: tuple[str, ...]
    warning: str | None
    merged: str | None = None
    verified: tuple[str, ...] = ()


def export(
    artefact: Artefact,
    target: str,
    folder: str | Path,
    *,
    overwrite: bool = False,
    lossy: bool = False,
    steps: int | None = None,
    tokens_per_step: int | None = None,
    sequences_per_step: int | None = None,
    warmup: str = "fraction",
    sizes: Mapping[str, int] | None = None,
    groups: int | None = None,
    verified: bool = False,
    target_version: str | None = None,
) -> Exported:
    """Writes `artefact` for `target` into `folder`, all files or none.

    Args:
        artefact: what to export.
        target: a name of `EXPORTERS`.
        folder: absent or empty, unless `overwrite`.
        overwrite: replace an older export; other files are never replaced.
        lossy: go on where the target can't express all that was tuned.
        steps: updates of the training to come; by default those of the one that the artefact was
            carried to, or of the tuned one.
        tokens_per_step: its tokens per update; those of the tuned one by default.
        sequences_per_step: its sequences per update, for targets that count in these.
        warmup: whether the warmup is kept in `steps` or in its `fraction` of training.
        sizes: elements of each parameter, by checkpoint name: weights of means over parameters;
            all alike where they aren't given.
        groups: at most so many groups of parameters, the nearest curves merged; None for all.
        verified: have the target's own code read what was written, and compare it with `artefact`.
        target_version: that the export must be written for; None for the first that is known.

    Raises:
        ArtefactError: an unknown target, a folder that isn't empty, a folder with other files,
            something tuned that the target can't express, a number that isn't above 0.
    """
    if target not in EXPORTERS:
        raise ArtefactError(
            "export", [unknown("target", target, "target", target, list(EXPORTERS))]
        )
    exporter, folder = EXPORTERS[target], Path(folder)
    if target_version is not None and target_version not in exporter.versions:
        written = " and ".join(filter(None, exporter.versions)) or "no version in particular"
        problem = f"the export to {target} is written for {written}"
        cure = "leave it out, and try what is written with yours (`verified`)"
        raise ArtefactError("export", [Fault("target_version", target_version, problem, cure)])
    exporter = exporter.versions.get(target_version or "", exporter)
    numbers = {
        "steps": steps,
        "tokens_per_step": tokens_per_step,
        "sequences_per_step": sequences_per_step,
        "groups": groups,
    }
    faults = [
        Fault(
            name,
            number,
            "must be a whole number of 1 or above",
            "give another",
        )
        for name, number in numbers.items()
        if number is not None and not (type(number) is int and number >= 1)
    ]
    if isinstance(steps, int) and steps > MOST_STEPS:
        problem = f"must be at most {MOST_STEPS:,}"
        faults.append(Fault("steps", steps, problem, "count updates, not tokens"))
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        cure = "name another, or replace it (`overwrite`)"
        faults.append(Fault("folder", str(folder), "is not empty", cure))
    if not _takes_its_rates(artefact, exporter):
        kind = artefact.optimizer.settings["kind"]
        problem = f"{target} takes the rates of {', '.join(exporter.optimizers)} alone"
        if kind == GROUPS and exporter.side_by_side:
            taken, found = exporter.side_by_side, dict.fromkeys(artefact.optimizer.kinds)
            problem = (
                f"{target} takes groups of {', '.join(taken)} alone, not {' and '.join(found)}"
            )
        elif kind == GROUPS:
            problem += ", not several optimizers side by side"
        why = [
            exporter.refused[own]
            for own in dict.fromkeys(artefact.optimizer.kinds)
            if own in exporter.refused
        ]
        problem += "".join(f": {sentence}" for sentence in why)
        others = [
            name
            for name, other in EXPORTERS.items()
            if _takes_its_rates(artefact, other) and other.capabilities["rates"] != "no"
        ]
        cure = f"choose another target: {', '.join(others)}"
        faults.append(Fault("optimizer.kind", kind, problem, cure))
    faults += exporter.faults(artefact)
    apart, stacks = {}, exporter.stacks_experts
    if stacks == "all" or (stacks == "some" and lossy):
        faults += faults_of_experts(artefact)
        apart = differing(artefact)
    without = dropped(artefact, exporter.capabilities)
    if sequences_per_step is None and required(artefact, exporter):
        problem = f"{target} changes shares by sequences: their number must be known"
        cure = "give the sequences of an update"
        faults.append(Fault("sequences_per_step", ABSENT, problem, cure))
    if not lossy:
        cure = "go on without it (`lossy`), or choose another target (`EXPORTERS`)"
        faults += [
            Fault(what, target, f"{target} can't express it: {line}", cure)
            for what, line in without.items()
        ]
        problem = f"{target} holds experts in one tensor, and rates within one differ"
        cure = "go on with their geometric mean (`lossy`), or choose optax or json"
        faults += [Fault("learning_rates", tensor, problem, cure) for tensor in list(apart)[:1]]
    if faults:
        raise ArtefactError("export", faults)
    left = {
        section.key: section.lossy(value, without, artefact.horizon_steps)
        for section, value in held(artefact)
    }
    artefact, fitted = replace(artefact, **left), []
    if apart:
        artefact, said = as_one(artefact)
        fitted.append(said)
    if groups is not None:
        artefact, said = merged(artefact, groups, sizes)
        fitted.append(said)
    merged_as = "; ".join(fitted) or None
    to = destination(artefact)
    steps = steps or (to and to.steps) or artefact.horizon_steps
    tokens = tokens_per_step or max(1, round(artefact.horizon_tokens / artefact.horizon_steps))
    production = Production(
        artefact=carried(artefact, steps, warmup),
        steps=steps,
        tokens_per_step=tokens,
        sequences_per_step=sequences_per_step,
        warmup=warmup,
        dropped=tuple(without.values()),
        warning=distance(artefact, steps, tokens),
        sizes=sizes,
        averaged="moving_mixture" in without,
        numbers=exporter.numbers,
        merged=merged_as,
    )
    if verified:
        refuse_unverifiable(production.artefact, target)
    paths = replace_folder(folder, exporter.files(production), replaceable)
    compared = verify(production, target, folder) if verified else ()
    return Exported(paths, production.dropped, production.warning, merged_as, tuple(compared))


def _takes_its_rates(artefact: Artefact, exporter: Exporter) -> bool:
    """Whether a target takes rates of the artefact's optimizer, if it takes rates at all."""
    kind, own = artefact.optimizer.settings["kind"], exporter.optimizers
    if kind == GROUPS:
        own = (GROUPS,) if set(artefact.optimizer.kinds) <= set(exporter.side_by_side) else ()
    return exporter.capabilities["rates"] == "no" or kind in own


def whole(artefact: Artefact) -> dict[str, Exporter]:
    """The targets that take all of `artefact`, by name."""
    return {
        name: exporter
        for name, exporter in EXPORTERS.items()
        if _takes_its_rates(artefact, exporter)
        and not dropped(artefact, exporter.capabilities)
        and not [*exporter.faults(artefact)]
    }


def required(artefact: Artefact, exporter: Exporter) -> tuple[str, ...]:
    """The numbers of the training to come without which `export` refuses, as it names them."""
    counts = exporter.counts_sequences and "moving_mixture" in asked(artefact)
    return ("sequences_per_step",) if counts else ()


def weighs_parameters(target: str) -> bool:
    """Whether an export to a target of `EXPORTERS` has means over parameters, weighted by size."""
    return target in TABLES or EXPORTERS[target].capabilities["rates"] == "no"


def suited(artefact: Artefact) -> str | None:
    """A target that takes all of `artefact`, the most widely used first; None if there is none."""
    able = whole(artefact)
    return next((name for name in SUGGESTED if name in able), None)


def replaceable(name: str) -> bool:
    """Whether a file of this name may be from an older export."""
    return WRITTEN.fullmatch(name) is not None
