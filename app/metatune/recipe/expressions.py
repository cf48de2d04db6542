"""Regular expressions that a recipe names parameters by."""

import re
from collections.abc import Iterator, Mapping

from metatune.recipe.faults import Fault


def no_expressions(expressions: Mapping[str, str]) -> Iterator[Fault]:
    """A fault for each that isn't a regular expression, by its dotted path."""
    for where, expression in expressions.items():
        try:
            re.compile(expression)
        except (re.error, OverflowError, RecursionError) as error:
            cure = "write one as Python's `re` reads it, e.g. self_attn"
            yield Fault(where, expression, f"not a regular expression: {error}", cure)
