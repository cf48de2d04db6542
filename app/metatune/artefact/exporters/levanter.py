"""Exports to Levanter: weights of the training data that change at given steps."""

import math

from metatune.artefact.capabilities import able
from metatune.artefact.errors import ArtefactError
from metatune.artefact.exporters.base import Exporter, Production, as_yaml, config_files
from metatune.artefact.exporters.one_rate import one_rate
from metatune.artefact.exporters.stages import Stage, averaged, staged
from metatune.artefact.exporters.supply import supply
from metatune.recipe.faults import Fault

LARGEST, SMALLEST = 2048, 64
"""Sequences of a block: Levanter's own choice, and the least that holds shares to a per cent."""

USAGE = """
Merge `tuned.yaml` into your configuration; the names are those of `data.components`.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    usage = USAGE + one_rate(production)
    lost: list[str] = []
    files: dict[str, str] = {}
    mixture = production.artefact.mixture
    if mixture is not None:
        cut = staged(mixture, production.steps)
        block, stages, shift = _aligned(cut.stages, production.sequences_per_step or 1)
        entries = [[stage.start, stage.values] for stage in stages]
        weights = entries if len(entries) > 1 else entries[0][1]
        data = {"train_weights": weights, "mixture_block_size": block}
        files["tuned.yaml"] = as_yaml({"data": data})
        lost += [
            f"shares are whole sequences of a block of {block}: off by up to "
            f"{max(_rounding(stage.values, block) for stage in stages):.3g}, and a share below "
            f"{1 / block:.3g} is 0",
            f"stages start at whole blocks: up to {shift} updates away from the tuned ones",
            *cut.lost(),
            *supply(
                production,
                averaged(mixture, production.steps),
                "Levanter begins it anew; `max_epochs` of a component says how often it may",
            ),
        ]
    title = "Levanter (marin-levanter 0.2.0)"
    return config_files(production, title, usage, files, lost)


def _rounding(shares: dict[str, float], block: int) -> float:
    """How far whole sequences of a block are from `shares`: the largest takes what is left over."""
    counts = {domain: int(share * block) for domain, share in shares.items()}
    counts[max(shares, key=lambda domain: shares[domain])] += block - sum(counts.values())
    return max(abs(counts[domain] / block - share) for domain, share in shares.items())


def _aligned(stages: tuple[Stage, ...], sequences: int) -> tuple[int, tuple[Stage, ...], int]:
    """A block size, the stages at its multiples, and how far the farthest was moved in updates.

    Blocks may have any size: the largest that moves the stages least is taken.
    """
    if len(stages) == 1:
        return LARGEST, stages, 0
    best: tuple[int, int, tuple[Stage, ...]] | None = None
    for block in range(LARGEST, SMALLEST - 1, -1):
        unit = block // math.gcd(block, sequences)
        starts = [unit * round(stage.start / unit) for stage in stages]
        if len(set(starts)) < len(starts):
            continue
        shift = max(abs(start - s.start) for start, s in zip(starts, stages, strict=True))
        if best is None or shift < best[0]:
            moved = zip(starts, stages, strict=True)
            best = shift, block, tuple(Stage(start, stage.values) for start, stage in moved)
        if not shift:
            break
    if best is not None:
        return best[1], best[2], best[0]
    problem = (
        f"the {len(stages)} stages are shorter than a block of {SMALLEST} sequences, "
        "at which Levanter changes shares"
    )
    cure = "make the training longer (`steps`), or the updates larger"
    raise ArtefactError("export", [Fault("sequences_per_step", sequences, problem, cure)])


LEVANTER = Exporter(
    "levanter",
    "YAML of data weights that change at given steps",
    able(mixture="quantised", moving_mixture="quantised"),
    _files,
    "marin-levanter 0.2.0",
    counts_sequences=True,
    numbers={
        "train_weights": "the first update of the stage, from 0, then shares of its sequences",
        "mixture_block_size": "sequences, each block of which has the shares, rounded",
    },
)
