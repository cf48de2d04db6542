"""Exports to Levanter: its optimizer, and weights of the data that change at given steps."""

import math

import yaml

from metatune.artefact.capabilities import able
from metatune.artefact.errors import ArtefactError
from metatune.artefact.exporters.base import (
    Exporter,
    Production,
    as_yaml,
    config_files,
    template,
)
from metatune.artefact.exporters.stages import Stage, averaged, staged
from metatune.artefact.exporters.supply import supply
from metatune.recipe.faults import Fault

LARGEST, SMALLEST = 2048, 64
"""Sequences of a block: Levanter's own choice, and the least that holds shares to a per cent."""

USAGE = """
Put this folder on the Python path, merge `tuned.yaml` into your configuration, and train by

```sh
python metatune_levanter.py --config_path config.yaml
```

which is `levanter.main.train_lm` with the optimizer `tuned` (`import metatune_levanter` in a
training of your own). Each parameter has its own curve, its decay and the tuned moments, under the
names that Levanter gives checkpoints of Hugging Face: of layers that are stacked into one array
each has its own too. Muon's momentum is made orthogonal over all axes of a linear layer, in Optax's
code (0.2.6 or above). A parameter without a curve, and a curve without a parameter, are refused
when the training starts. The rate, `warmup`, `lr_schedule`, `weight_decay` and `max_grad_norm` of
your configuration have no effect.
"""

MIXED = """
Names in `train_weights` are those of `data.components`.
"""

SHORTER = """
The shares were tuned for a training of {target:,} tokens, in which no domain is read more than
{epochs:g} times; yours has {experiment:,}. By `experiment_budget` and `target_budget` Levanter
shows as much less of each domain, so that each is read as often as there: take both out if that
isn't what you try.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    usage, lost, mixture = USAGE, [], production.artefact.mixture
    document: dict[str, object] = {
        "optimizer": {"type": "tuned"},
        "trainer": {"num_train_steps": production.steps},
    }
    if mixture is not None:
        cut = staged(mixture, production.steps)
        block, stages, shift = _aligned(cut.stages, production.sequences_per_step or 1)
        entries = [[stage.start, stage.values] for stage in stages]
        weights = entries if len(entries) > 1 else entries[0][1]
        budgets, said = _budgets(production)
        document["data"] = {"train_weights": weights, "mixture_block_size": block, **budgets}
        usage += MIXED + said
        lost += [
            f"shares are whole sequences of a block of {block}: off by up to "
            f"{max(_rounding(stage.values, block) for stage in stages):.3g}, and a share below "
            f"{1 / block:.3g} is 0",
            f"stages start at whole blocks: up to {shift} updates away from the tuned ones",
            *cut.lost(),
            *supply(
                production,
                averaged(mixture, production.steps),
                "Levanter begins it anew (`stop_strategy: restart`)",
            ),
        ]
    files = {"tuned.yaml": as_yaml(document), "metatune_levanter.py": template("levanter.py")}
    title = "Levanter (marin-levanter 0.2.0)"
    return config_files(production, title, usage, files, lost)


def _budgets(production: Production) -> tuple[dict[str, int], str]:
    """Tokens of this training and of the one that epochs were limited for, where that is longer."""
    origin = production.artefact.origin
    recipe = {} if origin is None else yaml.safe_load(origin.recipe) or {}
    mixture = (recipe.get("tune") or {}).get("mixture") or {}
    epochs, target = mixture.get("max_epochs"), mixture.get("production_tokens")
    experiment = production.steps * production.tokens_per_step
    if epochs is None or target is None or target <= experiment:
        return {}, ""
    said = SHORTER.format(target=target, epochs=epochs, experiment=experiment)
    return {"experiment_budget": experiment, "target_budget": target}, said


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
    "the optimizer with a curve for each parameter, and data weights that change at given steps",
    able(rates="exact", curves="exact", mixture="quantised", moving_mixture="quantised"),
    _files,
    "marin-levanter 0.2.0",
    ("adamw", "sgd", "adamh", "muon", "muonh"),
    counts_sequences=True,
    side_by_side=("adamw", "sgd", "adamh", "muon", "muonh"),
    numbers={
        "num_train_steps": "updates of the training",
        "train_weights": "the first update of the stage, from 0, then shares of its sequences",
        "mixture_block_size": "sequences, each block of which has the shares, rounded",
        "experiment_budget": "tokens of this training, where epochs are those of a longer one",
        "target_budget": "tokens of that one, which shares were tuned for",
    },
)
