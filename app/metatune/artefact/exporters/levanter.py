"""Exports to Levanter: weights of the training data that change at given steps."""

import math

from metatune.artefact.capabilities import able
from metatune.artefact.errors import ArtefactError
from metatune.artefact.exporters.base import Exporter, Production, as_yaml, config_files
from metatune.artefact.exporters.one_rate import one_rate
from metatune.artefact.exporters.stages import Stage, staged
from metatune.recipe.faults import ABSENT, Fault

BLOCKS = (2048, 1024, 512, 256)
"""Sequences; the first that keeps the stages apart is taken. 2048 is Levanter's own choice."""

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
        block, stages, shift = _aligned(cut.stages, production.sequences_per_step)
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
        ]
    title = "Levanter (marin-levanter 0.2.0)"
    return config_files(production, title, usage, files, lost)


def _rounding(shares: dict[str, float], block: int) -> float:
    """How far whole sequences of a block are from `shares`: the largest takes what is left over."""
    counts = {domain: int(share * block) for domain, share in shares.items()}
    counts[max(shares, key=lambda domain: shares[domain])] += block - sum(counts.values())
    return max(abs(counts[domain] / block - share) for domain, share in shares.items())


def _aligned(
    stages: tuple[Stage, ...], sequences: int | None
) -> tuple[int, tuple[Stage, ...], int]:
    """A block size, the stages at its multiples, and how far the farthest was moved in updates."""
    if len(stages) == 1:
        return BLOCKS[0], stages, 0
    if sequences is None:
        problem = "Levanter changes shares at whole blocks of sequences: their number must be known"
        cure = "give the sequences of an update (--sequences-per-step)"
        raise ArtefactError("export", [Fault("--sequences-per-step", ABSENT, problem, cure)])
    for block in BLOCKS:
        unit = block // math.gcd(block, sequences)
        starts = [unit * round(stage.start / unit) for stage in stages]
        if len(set(starts)) == len(starts):
            moved = tuple(
                Stage(start, stage.values) for start, stage in zip(starts, stages, strict=True)
            )
            shift = max(abs(a.start - b.start) for a, b in zip(moved, stages, strict=True))
            return block, moved, shift
    problem = (
        f"the {len(stages)} stages are shorter than a block of {BLOCKS[-1]} sequences, "
        "at which Levanter changes shares"
    )
    cure = "make the training longer (--steps), or the updates larger"
    raise ArtefactError("export", [Fault("--sequences-per-step", sequences, problem, cure)])


LEVANTER = Exporter(
    "levanter",
    "YAML of data weights that change at given steps",
    able(mixture="quantised", moving_mixture="quantised"),
    _files,
    "marin-levanter 0.2.0",
)
