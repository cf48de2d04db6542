"""The rotary embedding of a config, in the spelling of transformers 4 or 5."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metatune.models import fields
from metatune.models.fields import FULL, SLIDING
from metatune.models.rope import SCALINGS, Rope
from metatune.recipe.faults import Fault, unknown
from metatune.recipe.rules import ValueRule

SECTIONS = ("rope_parameters", "rope_scaling")
"""The section's name in transformers 5, and in 4."""
THETA = "rope_theta"
"""Stands within the section in transformers 5, beside it in 4."""
SHARE = "partial_rotary_factor"
CONTEXT = "original_max_position_embeddings"
BETA = "llama_4_scaling_beta"
RULES: Mapping[str, ValueRule] = {
    THETA: fields.POSITIVE,
    SHARE: fields.SHARE,
    "factor": fields.STRETCH,
    "low_freq_factor": fields.POSITIVE,
    "high_freq_factor": fields.POSITIVE,
    CONTEXT: fields.SIZE,
    "attention_factor": fields.POSITIVE,
    "beta_fast": fields.POSITIVE,
    "beta_slow": fields.POSITIVE,
    "mscale": fields.NOT_NEGATIVE,
    "mscale_all_dim": fields.NOT_NEGATIVE,
    "truncate": fields.FLAG,
    "short_factor": fields.POSITIVES,
    "long_factor": fields.POSITIVES,
    BETA: fields.NOT_NEGATIVE,
}
ORDERED = (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast"))
"""Fields the second of which must be above the first."""
BESIDE: Mapping[str, tuple[str, ...]] = {THETA: (THETA,)}
"""What stands beside the section in transformers 4: its names there, by the name within."""


@dataclass(frozen=True)
class RopeFields:
    """What a family's rotary embedding may say.

    Attributes:
        defaults: the fields that every one of the family has, with their defaults.
        beside: names, beside the section, of some fields.
        kinds: of `SCALINGS`, those that the family has.
        required: further fields that must be given.
        without_effect: names within the section that transformers passes over.
        rules: of fields that the family takes otherwise than others do.
    """

    defaults: Mapping[str, Any]
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: BESIDE)
    kinds: tuple[str, ...] = tuple(SCALINGS)
    required: tuple[str, ...] = ()
    without_effect: tuple[str, ...] = ()
    rules: Mapping[str, ValueRule] = field(default_factory=dict)


def read_rope(
    path: str, given: Mapping[str, Any], context: int, reads: RopeFields
) -> Rope | tuple[Fault, ...]:
    """Reads the rotary embedding of a model that has one.

    Args:
        path: dotted path of the config.
        given: the config's fields, without those that are null.
        context: `max_position_embeddings`, the default of the section's field on it.
        reads: what the family reads.

    Returns:
        The rotary embedding, or all its faults.
    """
    found = [name for name in SECTIONS if name in given]
    if len(found) > 1:
        return (_both(path, given, given[found[0]], reads),)
    here = f"{path}.{found[0] if found else SECTIONS[0]}"
    section = given[found[0]] if found else {}
    return read_section(here, section, context, path, given, reads)


def read_section(
    here: str, section: Any, context: int, path: str, given: Mapping[str, Any], reads: RopeFields
) -> Rope | tuple[Fault, ...]:
    """Reads one section of `rope_parameters`' shape, and what stands beside it.

    Args:
        here: the section's dotted path.
        section: what stands there.
        context: as in `read_rope`.
        path: dotted path of the config.
        given: the config's fields.
        reads: as in `read_rope`.
    """
    if not isinstance(section, Mapping):
        problem = "must be a mapping with rope_type"
        return (Fault(here, section, problem, "leave it out for the default"),)
    values = {name: value for name, value in section.items() if value is not None}
    older = values.pop("type", "default")
    kind = values.pop("rope_type", older)
    if kind not in list(reads.kinds):  # a list, because what was received may not be hashable
        return (unknown(f"{here}.rope_type", kind, "rotary embedding", kind, list(reads.kinds)),)

    needed = (*SCALINGS[kind].fields, *reads.required)
    known = dict.fromkeys((*reads.defaults, *needed, *SCALINGS[kind].optional))
    if BETA in known:
        known[CONTEXT] = None  # by which positions are counted
    if CONTEXT in known:
        values.setdefault(
            CONTEXT, given.get(CONTEXT, context) if CONTEXT in reads.beside else context
        )
    rules = {name: reads.rules.get(name, RULES[name]) for name in known}
    faults = fields.faults(here, values, rules, needed, reads.without_effect)
    for name, spellings in reads.beside.items():
        for spelling in spellings:
            if spelling not in given:
                continue
            value = given[spelling]
            if wrong := fields.faults(path, {spelling: value}, {spelling: RULES[name]}, ()):
                faults += wrong
                continue
            if name in known and values.setdefault(name, value) != value:
                problem = f"contradicts {here}.{name}, {values[name]!r}"
                faults.append(
                    Fault(f"{path}.{spelling}", value, problem, "leave out one of the two")
                )
    values = {**reads.defaults, **{name: values[name] for name in known if name in values}}
    if not faults:
        values = _completed(kind, values, context)
        faults += _relations(here, Rope(rope_type=kind, **values))
    return tuple(faults) or Rope(rope_type=kind, **values)


def _completed(kind: str, values: Mapping[str, Any], context: int) -> dict[str, Any]:
    """The values of a section's fields with those that follow from the longest sequence."""
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    if kind == "dynamic":
        given[CONTEXT] = context
    if kind == "longrope" and "factor" not in given:
        given["factor"] = context / given[CONTEXT]
    return given


def _relations(here: str, rope: Rope) -> list[Fault]:
    """What is wrong between the fields of a section, each sound by itself."""
    found = []
    for less, more in ORDERED:
        low, high = getattr(rope, less), getattr(rope, more)
        if low >= high:
            problem = f"must be above {less}, {low}"
            found.append(Fault(f"{here}.{more}", high, problem, "change one of the two"))
    for kind, name in (("yarn", THETA), ("longrope", CONTEXT)):
        if rope.rope_type == kind and getattr(rope, name) <= 1:
            problem = f"must be above 1, whose logarithm {kind} divides by"
            found.append(Fault(f"{here}.{name}", getattr(rope, name), problem, "raise it"))
    return found


def _both(path: str, given: Mapping[str, Any], newer: Any, reads: RopeFields) -> Fault:
    """The fault of a config with both sections: transformers takes the older one."""

    def theta(section: Any) -> Any:
        inside = section.get(THETA) if isinstance(section, Mapping) else None
        return given.get(THETA, reads.defaults[THETA]) if inside is None else inside

    older = given[SECTIONS[1]]
    problem = (
        f"stands beside {SECTIONS[0]}, which is its newer name: {THETA} would be {theta(older)!r} "
        f"by it and {theta(newer)!r} by {SECTIONS[0]}"
    )
    return Fault(f"{path}.{SECTIONS[1]}", older, problem, "leave out one of the two")


def read_by_layer(
    path: str, given: Mapping[str, Any], context: int, reads: Mapping[str, RopeFields]
) -> Mapping[str, Rope | None] | tuple[Fault, ...]:
    """Reads the rotary embeddings of a model that has one for each type of layer.

    Transformers 5 nests the sections; the older section, and what stands beside it, is of the full
    layers.

    Args:
        path: dotted path of the config.
        given: the config's fields, without those that are null.
        context: `max_position_embeddings`.
        reads: by type of layer, what the family reads.

    Returns:
        By type of layer, or all faults.
    """
    newer, older = SECTIONS
    nested = given.get(newer, {})
    here = f"{path}.{newer}"
    if not isinstance(nested, Mapping):
        problem = f"must be a mapping with {FULL} and {SLIDING}"
        return (Fault(here, nested, problem, "leave it out for the default"),)
    strangers = [name for name in nested if name not in reads]
    if strangers:
        return tuple(
            unknown(f"{here}.{name}", nested[name], "type of layer", name, list(reads))
            for name in strangers
        )
    read: dict[str, Rope | tuple[Fault, ...]] = {}
    for kind, own in reads.items():
        section = nested.get(kind)
        if kind == FULL and older in given and section is None:
            read[kind] = read_section(f"{path}.{older}", given[older], context, path, given, own)
        else:
            read[kind] = read_section(f"{here}.{kind}", section or {}, context, path, given, own)
    faults = [fault for rope in read.values() if isinstance(rope, tuple) for fault in rope]
    if older in given and nested.get(FULL) is not None:
        faults.append(_both(path, given, nested[FULL], reads[FULL]))
    return tuple(faults) or {kind: rope for kind, rope in read.items() if isinstance(rope, Rope)}


WHOLE_PAIRS = {"truncate": fields.only(True)}
"""Of sections by type of layer, where transformers reads no `truncate`, and takes true."""
