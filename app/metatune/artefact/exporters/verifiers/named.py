"""Of metatune_rates.py: every group's curve, under the trainer's own names."""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from metatune.artefact.exporters.verifiers.expected import Expected, agree, differs


def made(expected: Expected) -> tuple[Any, list[Any], dict[str, list[str]]]:
    """The module, its groups, and the trainer's names of the parameters."""
    exported = import_module("metatune_rates")
    names = exported._read(exported.RATES)["names"]
    if names is None:
        differs("the trainer's names of this model aren't known: they must be given by hand")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what fused parameters lose, the README says
        return exported, exported.groups(fused="mean"), names


def verify(expected: Expected, folder: Path) -> list[str]:
    """Rates at the updates of `expected`, and weight decay, of what isn't fused."""
    exported, groups, names = made(expected)
    alone = {own: parts[0] for own, parts in names.items() if len(parts) == 1}
    for group in groups:
        for own in group.names:
            if own not in alone:
                continue
            agree(f"weight decay of {own}", group.weight_decay, expected.decay(alone[own]))
            for step in expected.at:
                rate = exported.rate_at(group, step, expected.total)
                expected.agree_on_rate(alone[own], step, rate)
    return [
        f"rates of {len(alone)} parameters under the trainer's names at {len(expected.at)} updates"
    ]
