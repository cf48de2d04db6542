"""`complete_d_p`: width and depth as `completep`, batch and duration by Complete(d)P.

With m_B the growth of the batch and m_D that of the tokens of the whole training, all factors are
of m_S = m_D / m_B, the growth of the number of updates, alone: twice the tokens in batches twice as
large change nothing. On every parameter:

    rate              1 / sqrt m_S
    weight decay      1 / sqrt m_S
    ε                 sqrt m_S
    1 - β1, 1 - β2    1 / m_S

Why: where noise rules, Adam follows a stochastic differential equation whose time is the sum of the
squares of the rates (Malladi et al., 2022, arXiv 2205.10287): with these factors a training of more
updates of the same batch has the time of the shorter one, averages over the same fraction of the
training, shrinks by as much in all (rate times weight decay times updates: Wang & Aitchison, 2024,
arXiv 2405.13698), and sees less noise. That the best rates are indeed those is the paper's
measurement, not a consequence.

The paper's own text could not be read here. Width and depth are those of `mup` and `completep`;
what is on duration was derived as said, and agrees with public notes on the paper's table, and with
public implementations of it but for one that keeps β1 and has, for its matrices, an exponent of 0.3
in place of 1/2, by its own measurements.

Source: Mlodozeniec et al., 2025, Completed Hyperparameter Transfer across Modules, Width, Depth,
Batch and Duration, arXiv 2512.22382, table 1.
"""

import math
from dataclasses import replace

from metatune.transfer.factors import Factor, Factors
from metatune.transfer.rules import completep
from metatune.transfer.rules.rule import Rule
from metatune.transfer.sizes import Side


def factors(kind: str, proxy: Side, target: Side) -> Factors:
    """Those of table 1; the duration is left as it is where one of both isn't known."""
    found = completep.factors(kind, proxy, target)
    if proxy.steps is None or target.steps is None:
        side = proxy if proxy.steps is None else target
        return replace(found, unknown=(f"updates of {side.source}",))
    longer = target.steps / proxy.steps
    root = math.sqrt(longer)
    duration = Factor(1 / root, 1 / root, root)
    return found.times(parameters=dict.fromkeys(found.parameters, duration), memory=1 / longer)


COMPLETE_D_P = Rule(
    "complete_d_p",
    "Complete(d)P (Mlodozeniec et al. 2025, table 1)",
    factors,
    optimizers=("adamw",),
    promises=("width", "depth"),
)
