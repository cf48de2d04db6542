"""`completep`: width as `mup`, and depth by CompleteP, α = 1.

With m_L the growth of the number of blocks: each branch adds 1 / m_L^α of what it did to the
residual stream, and rates within blocks are m_L^(α - 1) times theirs; α = 1 alone lets every block
learn beyond its linearisation, and leaves the rates as they are. The gradients within branches
shrink by the multiplier, and ε with them (Dey et al., equation 1 and table 1, α = 1):

    branches          1 / m_L
    rates in blocks   1
    ε in blocks       1 / m_L

None of this is Adam's own: where the size of a step isn't that of the gradient, each of m_L blocks
moves the stream by 1 / m_L of what it did, all in one direction, whatever the steps are made of.
So Muon's and a hyperball's rates in blocks stay, too (derived; a spectral derivation in public,
Zheng et al., 2026, arXiv 2603.00541, says of branches of several matrices that it comes to the same
for a broad class of optimizers, Muon among them: its abstract is what could be read).

The table was read here as others quote it, the authors' code (nanoGPT-mup, branch completep) as it
is: that multiplies the ε of all parameters so; here those outside of the blocks have that of `mup`,
as the table is said to have it, and as follows from their gradients.

Source: Dey et al., 2025, Don't be lazy: CompleteP enables compute-efficient deep transformers,
arXiv 2505.01618, table 1.
"""

from metatune.transfer.factors import Factor, Factors
from metatune.transfer.rules import mup
from metatune.transfer.rules.rule import Rule
from metatune.transfer.sizes import Side
from metatune.transfer.stepping import SAID, Kinds


def factors(kinds: Kinds, proxy: Side, target: Side) -> Factors:
    """Those of table 1."""
    deeper = target.depth / proxy.depth
    depth = {
        name: Factor(eps=1.0 if parameter.layer is None else 1 / deeper)
        for name, parameter in target.parameters.items()
    }
    return mup.factors(kinds, proxy, target).times(parameters=depth, residual=1 / deeper)


COMPLETEP = Rule(
    "completep",
    "CompleteP (Dey et al. 2025, table 1, alpha 1)",
    factors,
    optimizers=SAID,
    promises=("width", "depth"),
)
