"""`none`: everything stays as it was tuned."""

from metatune.transfer.factors import Factor, Factors
from metatune.transfer.rules.rule import Rule
from metatune.transfer.sizes import Side
from metatune.transfer.stepping import Kinds


def factors(kinds: Kinds, proxy: Side, target: Side) -> Factors:
    """All one: what is tuned small is used as it is, which is what the other rules mend."""
    return Factors(dict.fromkeys(target.parameters, Factor()))


NONE = Rule("none", "no rule", factors, optimizers=None)
