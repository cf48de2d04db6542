"""What an export says where the trainer has one learning rate for all parameters."""

from metatune.artefact.exporters.base import Production
from metatune.artefact.exporters.static_rates import static_rates


def one_rate(production: Production) -> str:
    """The peak of the learning rate in words: of the one tuned rate, or of the base schedule."""
    rates = static_rates(production.artefact)
    found = set(rates.parameters.values())
    rate, whose = (found.pop(), "") if len(found) == 1 else (rates.peak, " of the base schedule")
    return f"\nThe peak learning rate{whose} is {rate!r}; its schedule is yours to choose.\n"
