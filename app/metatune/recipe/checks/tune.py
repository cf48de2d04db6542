"""Rules on what is tuned, all in all."""

from collections.abc import Iterable
from dataclasses import fields

from metatune.recipe.faults import Fault
from metatune.recipe.schema import TuneSpec


def something_is_tuned(tune: TuneSpec) -> Iterable[Fault]:
    """At least one entry."""
    if all(getattr(tune, field.name) is None for field in fields(tune)):
        names = ", ".join(field.name for field in fields(tune))
        cure = f"write one of {names}, e.g. `learning_rates: {{}}` for its defaults"
        yield Fault("tune", {}, "nothing is tuned", cure)
