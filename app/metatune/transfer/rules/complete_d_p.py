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

Of steps whose direction is normalised after gradients were averaged, as Muon's and a hyperball's,
the noise of an update has size one and lasts for 1 / (1 - β) of them: the sum of the squares of the
rates is to stay with β as it is (were β to follow, rates would be 1 / m_S). So there

    rate                        1 / sqrt m_S
    weight decay                1 / sqrt m_S of Muon's; of a hyperball's there is none
    ε of an orthogonal step     1, as it is beside the norm of a momentum that averages as much
    momentum, and β1, β2 of adamh and muonh stay

Derived, not published. Ren et al., 2026, arXiv 2603.28743, of whom the abstract could be read,
measured rates of Muon on a hyperball, and of AdamW, that fall with the tokens to the power of 0.32.

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
from metatune.transfer.stepping import SAID, TURNING, Kinds, Step, kind_of, step


def factors(kinds: Kinds, proxy: Side, target: Side) -> Factors:
    """Those of table 1; the duration is left as it is where one of both isn't known."""
    found = completep.factors(kinds, proxy, target)
    if proxy.steps is None or target.steps is None:
        side = proxy if proxy.steps is None else target
        return replace(found, unknown=(f"updates of {side.source}",))
    longer = target.steps / proxy.steps
    root = math.sqrt(longer)
    duration = {
        name: _duration(step(kind_of(kinds, name), parameter), root)
        for name, parameter in target.parameters.items()
    }
    return found.times(parameters=duration, memory=1 / longer)


def _duration(how: Step, root: float) -> Factor:
    decay = 1.0 if how in TURNING else 1 / root
    eps = root if how in ("adam", "turned") else 1.0
    return Factor(1 / root, decay, eps)


COMPLETE_D_P = Rule(
    "complete_d_p",
    "Complete(d)P (Mlodozeniec et al. 2025, table 1)",
    factors,
    optimizers=SAID,
    promises=("width", "depth"),
)
