"""The rotary embedding of a config, in the spelling of transformers 4 or 5."""

from collections.abc import Mapping
from typing import Any

from metatune.models import fields
from metatune.models.rope import SCALINGS, Rope
from metatune.recipe.faults import Fault, unknown

SECTIONS = ("rope_parameters", "rope_scaling")
"""The section's name in transformers 5, and in 4."""
THETA = "rope_theta"
"""Stands within the section in transformers 5, beside it in 4."""
CONTEXT = "original_max_position_embeddings"
RULES = {
    THETA: fields.POSITIVE,
    "partial_rotary_factor": fields.SHARE,
    "factor": fields.STRETCH,
    "low_freq_factor": fields.POSITIVE,
    "high_freq_factor": fields.POSITIVE,
    CONTEXT: fields.SIZE,
}
BESIDE: Mapping[str, tuple[str, ...]] = {THETA: (THETA,)}
"""What stands beside the section in transformers 4: its names there, by the name within."""


def read_rope(
    path: str,
    given: Mapping[str, Any],
    context: int,
    defaults: Mapping[str, Any],
    beside: Mapping[str, tuple[str, ...]] = BESIDE,
) -> Rope | tuple[Fault, ...]:
    """Reads the rotary embedding of a model that has one.

    Args:
        path: dotted path of the config.
        given: the config's fields, without those that are null.
        context: `max_position_embeddings`, the default of the section's field on it.
        defaults: the fields that every rotary embedding of the family has, with their defaults.
        beside: names, beside the section, of some of them.

    Returns:
        The rotary embedding, or all its faults.
    """
    found = [name for name in SECTIONS if name in given]
    if len(found) > 1:
        problem = f"stands beside {found[0]}, which is its newer name"
        return (Fault(f"{path}.{found[1]}", given[found[1]], problem, "leave out one of the two"),)
    here = f"{path}.{found[0] if found else SECTIONS[0]}"
    section = given[found[0]] if found else {}
    return read_section(here, section, context, defaults, path, given, beside)


def read_section(
    here: str,
    section: Any,
    context: int,
    defaults: Mapping[str, Any],
    path: str,
    given: Mapping[str, Any],
    beside: Mapping[str, tuple[str, ...]],
) -> Rope | tuple[Fault, ...]:
    """Reads one section of `rope_parameters`' shape, and what stands beside it.

    Args:
        here: the section's dotted path.
        section: what stands there.
        context: as in `read_rope`.
        defaults: as in `read_rope`.
        path: dotted path of the config.
        given: the config's fields.
        beside: as in `read_rope`.
    """
    if not isinstance(section, Mapping):
        problem = "must be a mapping with rope_type"
        return (Fault(here, section, problem, "leave it out for the default"),)
    values = {name: value for name, value in section.items() if value is not None}
    older = values.pop("type", "default")
    kind = values.pop("rope_type", older)
    if kind not in list(SCALINGS):  # a list, because what was received may not be hashable
        return (unknown(f"{here}.rope_type", kind, "rotary embedding", kind, list(SCALINGS)),)

    needed = SCALINGS[kind].fields
    if CONTEXT in needed:
        values.setdefault(CONTEXT, context)
    faults = fields.faults(
        here, values, {name: RULES[name] for name in (*defaults, *needed)}, needed
    )
    for name, spellings in beside.items():
        for spelling in spellings:
            if spelling not in given:
                continue
            value = given[spelling]
            faults += fields.faults(path, {spelling: value}, {spelling: RULES[name]}, ())
            if values.setdefault(name, value) != value:
                problem = f"contradicts {here}.{name}, {values[name]!r}"
                faults.append(
                    Fault(f"{path}.{spelling}", value, problem, "leave out one of the two")
                )
    if not faults and "high_freq_factor" in needed:
        low, high = values["low_freq_factor"], values["high_freq_factor"]
        if low >= high:
            problem = f"must be above low_freq_factor, {low}"
            faults.append(Fault(f"{here}.high_freq_factor", high, problem, "change one of the two"))
    return tuple(faults) or Rope(rope_type=kind, **{**defaults, **values})
