"""What a carried artefact says of itself: what was done, and what is left for the trainer."""

from collections.abc import Iterator, Mapping

from metatune.artefact import Optimizer
from metatune.artefact.demands import Demands
from metatune.transfer.factors import Factors
from metatune.transfer.rules import Rule
from metatune.transfer.sizes import Side

SHOWN = 2
"""Names of parameters that a line gives."""


def done(rule: Rule, proxy: Side, target: Side, factors: Factors) -> Iterator[str]:
    """What was done to the schedules, a line each."""
    counts: dict[float, int] = {}
    for factor in factors.parameters.values():
        counts[factor.learning_rate] = counts.get(factor.learning_rate, 0) + 1
    scaled = ", ".join(f"x{f:.4g} for {n} parameters" for f, n in sorted(counts.items()))
    yield (
        f"**fitted**, not tuned: the rates were carried from {proxy.source} to {target.source} "
        f"({growth(proxy, target)}) by {rule.words}: {scaled}"
    )
    for what in factors.unknown:
        yield f"not known: {what}; what follows from it is left as it is"


def growth(proxy: Side, target: Side) -> str:
    """How much larger the target is, in words."""
    said = []
    for what, field in (
        ("width", "hidden"),
        ("depth", "depth"),
        ("updates", "steps"),
        ("batch", "batch_size"),
        ("sequences", "sequence_length"),
        ("head size", "head_dim"),
    ):
        ours, theirs = getattr(proxy, field), getattr(target, field)
        if ours is not None and theirs is not None and ours != theirs:
            said.append(f"{what} {ours:,} to {theirs:,}")
    return ", ".join(said) or "of the same width, depth and length"


def left(demands: Demands, target: Side) -> Iterator[str]:
    """What the trainer must do beyond rates, and can with the model that its config says."""
    for factor, names in _alike(demands.initial_scale).items():
        stds = sorted({own for n in names if (own := target.parameters[n].std) is not None})
        made = ", ".join(f"{factor * std:.4g} instead of {std:.4g}" for std in stds)
        what = f"a standard deviation of {made}" if stds else f"{factor:.4g} instead of 1"
        yield f"fresh numbers of {_some(names)}: x{factor:.4g} ({what})"
    for name, value in demands.settings.items():
        yield f"the optimizer's {name}: {value:.6g}"
    for factor, names in _alike(demands.eps).items():
        if factor != 1:
            yield f"Adam's eps of {_some(names)}: x{factor:.4g}"


def decays(factors: Factors, after: Optimizer) -> Iterator[str]:
    """How weight decay that differs between parameters changed, a line each."""
    if after.schedules is None or after.schedules.weight_decay is None:
        return
    found = {name: factors.parameters[name].weight_decay for name in after.decayed}
    for factor, names in _alike(found).items():
        if factor != 1:
            yield f"weight decay of {_some(names)}: x{factor:.4g}"


def undone(demands: Demands) -> Iterator[str]:
    """What needs a change of the model's forward pass, a line each."""
    for what, factor in (
        ("what each branch of a block adds to the residual stream", demands.residual),
        ("the logits", demands.logits),
        ("the attention scores", demands.attention),
    ):
        if factor != 1:
            yield f"multiply {what} by {factor:.4g}: the model's config can't say so"


def _alike(values: Mapping[str, float]) -> dict[float, list[str]]:
    found: dict[float, list[str]] = {}
    for name, value in values.items():
        found.setdefault(value, []).append(name)
    return dict(sorted(found.items()))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    more = len(names) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
