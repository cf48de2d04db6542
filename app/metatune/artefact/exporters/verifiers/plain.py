"""Of metatune_schedule.py, which needs no package."""

from importlib import import_module
from pathlib import Path

from metatune.artefact.exporters.verifiers.expected import Expected


def verify(expected: Expected, folder: Path) -> list[str]:
    """Rates and shares at the updates of `expected`."""
    exported = import_module("metatune_schedule")
    for step in expected.at:
        for name in expected.rates:
            expected.agree_on_rate(name, step, exported.rate(name, step, expected.total))
    return [expected.compared("rates"), *expected.agree_on_shares(exported.shares)]
