"""Rules between the fields of a recipe, a file for each part of it.

A rule is a public function of a module here: it yields the faults that it finds, and its arguments
name what it looks at, a section of the recipe (`data`) or one within it, after an underscore
(`tune_mixture` is `tune.mixture`). It is left out where one of them is missing, null, or can't be
read. To add a rule, write the function; nothing else knows its name.

A rule on a single value stands beside its field in `schema` instead.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from inspect import isfunction, signature
from types import ModuleType
from typing import Any, Final, get_type_hints

from metatune.recipe.checks import (
    data,
    devices,
    divisions,
    entries,
    initialisation,
    inner,
    learned_update,
    loss_terms,
    loss_weights,
    mixture,
    model,
    objective,
    optimizer,
    outer,
    outer_and_tune,
    population,
    rater,
    robust,
    sharing,
    trainer,
    tune,
)
from metatune.recipe.faults import Fault
from metatune.recipe.schema import Recipe

Check = Callable[..., Iterable[Fault]]

MODULES: Final[tuple[ModuleType, ...]] = (
    *(model, data, inner, outer, trainer, objective, population, robust, outer_and_tune),
    *(tune, optimizer, loss_terms, learned_update, entries, rater, divisions, sharing),
    *(mixture, loss_weights, initialisation, devices),
)
"""In the order in which their faults are told."""


def check(sections: Mapping[str, Any], *, sound: bool = True) -> Iterator[Fault]:
    """The faults between fields of a recipe.

    Args:
        sections: those sections of a recipe that can be read, by name.
        sound: whether every value in them is allowed by itself. A rule takes that for granted:
            where one isn't, which is told already, a rule that comes to nothing by it is left out.
    """
    for rule, names in RULES:
        looked_at = [_section(sections, name) for name in names]
        if all(section is not None for section in looked_at):
            try:
                yield from rule(*looked_at)
            except Exception:
                if sound:
                    raise


def rules_of(module: ModuleType) -> Iterator[tuple[Check, tuple[str, ...]]]:
    """The rules of a module in their order, each with the names of its arguments.

    Raises:
        TypeError: an argument names no section of a recipe.
    """
    for name, function in vars(module).items():
        if not isfunction(function) or function.__module__ != module.__name__ or name[0] == "_":
            continue
        arguments = tuple(signature(function).parameters)
        for argument in arguments:
            if argument not in SECTIONS:
                raise TypeError(
                    f"rule {name} of {module.__name__}: the argument {argument} is no section of "
                    f"a recipe; those are {', '.join(sorted(SECTIONS))}"
                )
        yield function, arguments


def _sections() -> dict[str, Any]:
    """Types of the sections of a recipe, and of their fields, by the names that rules call them."""
    found = dict(get_type_hints(Recipe))
    for name, kind in get_type_hints(Recipe).items():
        if is_dataclass(kind):
            hints = get_type_hints(kind)
            found |= {f"{name}_{field.name}": hints[field.name] for field in fields(kind)}
    return found


def _section(sections: Mapping[str, Any], name: str) -> Any:
    """What a rule's argument stands for; None where it isn't there."""
    above, _, below = name.partition("_")
    section = sections.get(above)
    return getattr(section, below) if below and section is not None else section


SECTIONS: Final[Mapping[str, Any]] = _sections()
RULES: Final = tuple(rule for module in MODULES for rule in rules_of(module))
