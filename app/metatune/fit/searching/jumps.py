"""Jumps of a hypergradient's norm: when one counts as such, and what became of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from metatune.fit.searching.points import Line, taken
from metatune.recipe import schema
from metatune.recipe.phases import Phase
from metatune.recipe.schema.tune import keyed

JUMP: Final = 8.0
"""Times the median of the norms before it, above which a norm has jumped.

A norm that doubles with each outer step doesn't: from the middle of five to the next it is this.
"""

BEFORE: Final = 5
"""Norms that a norm is compared with, at most."""

ENOUGH: Final = 3
"""Norms that it is compared with, at least."""


def jumps(
    before: Sequence[Line],
    line: Line,
    outer: schema.OuterSpec,
    phase: Phase,
    factors: tuple[float, float] | None,
) -> dict[str, dict[str, Any]]:
    """The tunables whose hypergradient has jumped for the first time in a search.

    Norms are compared within a phase, and of trainings of one length. Those of a life-long training
    follow its age, and aren't compared.

    Args:
        before: the metrics so far.
        line: of the outer step.
        outer: of the recipe.
        phase: that the search is in.
        factors: least and largest multiplier of the rates, None if rates aren't tuned.

    Returns:
        By tunable `norm`, the median `before` it, the largest `rate_factor` (null for none), and
        the `response` to it, in words.
    """
    if isinstance(phase.unroll, schema.OnlineSpec):
        return {}
    steps = taken(before)
    told = {key for each in steps for key in each.get("jumps", {})}
    alike = [
        each["hypergradient_norm"]
        for each in steps
        if all(each[name] == line[name] for name in ("phase", "inner_steps"))
    ][-BEFORE:]
    norms, found = line["hypergradient_norm"], {}
    for key in norms.keys() - told:
        if len(alike) < ENOUGH:
            break
        median = float(np.median([each[key] for each in alike]))
        if median > 0 and norms[key] > JUMP * median:
            found[key] = {
                "norm": norms[key],
                "before": median,
                "inner_steps": line["inner_steps"],
                "rate_factor": factors and factors[1],
                "response": f"{_clipping(outer, norms, key)}; {_followed(phase.optimizer)}",
            }
    return dict(sorted(found.items()))


def clipped(outer: schema.OuterSpec, norms: Mapping[str, float], key: str) -> float:
    """What clipping multiplies the hypergradient of a tunable by, of these norms of all."""

    def own(name: str) -> float:
        most = keyed(outer.clip).get(name) if isinstance(outer.clip, Mapping) else outer.clip
        return 1.0 if most is None or norms[name] <= most else most / norms[name]

    together = math.hypot(*(own(name) * norm for name, norm in norms.items()))
    most = outer.clip_norm
    return own(key) * (1.0 if most is None or together <= most else most / together)


def _clipping(outer: schema.OuterSpec, norms: Mapping[str, float], key: str) -> str:
    limits = [name for name in ("clip_norm", "clip") if getattr(outer, name) is not None]
    if not limits:
        return "nothing clips it (outer.clip_norm and outer.clip are null)"
    said = " and ".join(f"outer.{name}" for name in limits)
    if outer.population and outer.population.adam == "own":
        return f"{said} clipped each member's by itself"
    factor = clipped(outer, norms, key)
    return f"{said} let it pass" if factor == 1 else f"{said} scaled it by {factor:.2g}"


def _followed(optimizer: schema.OptimizerSpec) -> str:
    """What an outer optimizer makes of a norm that has jumped.

    Source: Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015, section 2.1.
    """
    match optimizer:
        case schema.AdamSpec(b1=b1, b2=b2):
            most = max(1.0, (1 - b1) / math.sqrt(1 - b2))
            return (
                f"Adam's steps stay within {most:.1f} times its rate whatever the norm, and are "
                "smaller until it has forgotten this one"
            )
        case schema.SignSpec():
            return "the sign of a hypergradient knows no norm"
        case _:
            return "descent moves as far as the norm says"
