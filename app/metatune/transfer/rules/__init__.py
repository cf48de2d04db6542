"""The rules by which a training follows its sizes: a file each, and a row here."""

from collections.abc import Mapping
from typing import Final

from metatune.transfer.rules.complete_d_p import COMPLETE_D_P
from metatune.transfer.rules.completep import COMPLETEP
from metatune.transfer.rules.mup import MUP
from metatune.transfer.rules.none import NONE
from metatune.transfer.rules.rule import Rule

__all__ = ["DEFAULT", "RULES", "Rule"]

RULES: Final[Mapping[str, Rule]] = {
    rule.name: rule for rule in (NONE, MUP, COMPLETEP, COMPLETE_D_P)
}
DEFAULT: Final = COMPLETE_D_P.name
"""Where the sizes of two trainings differ and no rule was named."""
