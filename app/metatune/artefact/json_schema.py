"""The words of JSON Schema that the pieces of an artefact's schema share."""

from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]


def ref(name: str, **more: Any) -> Schema:
    """What stands in `$defs` under a name."""
    return {"$ref": f"#/$defs/{name}", **more}


def of_fields(required: Schema, optional: Schema | None = None, **more: Any) -> Schema:
    """An object with exactly these keys."""
    return {
        **more,
        "type": "object",
        "required": list(required),
        "additionalProperties": False,
        "properties": {**required, **(optional or {})},
    }


def by_name(values: Schema, **more: Any) -> Schema:
    """An object of values under any names."""
    return {**more, "type": "object", "additionalProperties": values}


def scheduled(unit: str | None, required: Schema, optional: Schema | None = None, **more: Any):
    """An object with a unit, knots and an interpolation besides these keys."""
    own = {} if unit is None else {"unit": {"const": unit}}
    own |= {"interpolation": ref("interpolation"), "knots": ref("knots")}
    return of_fields({**own, **required}, optional, **more)


def list_of(items: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": items, **more}


def or_null(other: Schema, **more: Any) -> Schema:
    """Null, or something."""
    return {**more, "oneOf": [{"type": "null"}, other]}


NUMBER: Final[Schema] = {"type": "number"}
NOT_NEGATIVE: Final[Schema] = {"type": "number", "minimum": 0}
POSITIVE: Final[Schema] = {"type": "number", "exclusiveMinimum": 0}
FRACTION: Final[Schema] = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
COUNT: Final[Schema] = {"type": "integer", "minimum": 1}
BOOLEAN: Final[Schema] = {"type": "boolean"}
SHAPES: Final[Schema] = by_name(list_of(COUNT))

DEFINITIONS: Final[Schema] = {
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "interpolation": {"enum": ["constant", "linear"]},
    "names": list_of({"type": "string"}, uniqueItems=True),
    "curve": list_of(NOT_NEGATIVE, minItems=1),
    "knots": {
        "description": "Fractions of training: the first is 0, they increase.",
        "type": "array",
        "prefixItems": [{"const": 0}],
        "items": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        "minItems": 1,
        "uniqueItems": True,
    },
    "domains": scheduled(
        None,
        {
            "unit": {"type": "string"},
            "domains": ref("names", minItems=1),
            "weights": list_of(ref("curve"), minItems=1),
        },
        description="A row for each knot, a column for each domain.",
    ),
}
"""What several sections are made of."""
