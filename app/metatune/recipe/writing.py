"""Recipes to YAML: complete, so that nothing depends on the defaults of a later version."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Final

import yaml

from metatune.recipe.document import SCALARS
from metatune.recipe.paths import joined
from metatune.recipe.rules import said_fields
from metatune.recipe.schema import Recipe

WIDTH: Final = 100  # characters


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper, quoting text that a loader of YAML 1.1 *or* 1.2 takes for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always: a list used twice is written out twice."""
        return True


for _tag, _pattern, _ in SCALARS:
    _Dumper.add_implicit_resolver(_tag, _pattern, None)


def to_yaml(recipe: Recipe) -> str:
    """`recipe` as YAML that reads back as an equal recipe.

    Every default is spelled out, and the same recipe always gives the same text: its hash
    identifies it. Floats are written so that they come back bit for bit.
    """
    return yaml.dump(
        to_tree(recipe),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=WIDTH,
    )


def to_tree(recipe: Recipe) -> dict[str, Any]:
    """`recipe` as dicts, lists and plain values, in the order of the schema, `kind` first.

    What is null by default and null in `recipe` is left out.
    """
    return plain(recipe)


def plain(value: Any) -> Any:
    """A value of a recipe as dicts, lists and plain values."""
    if is_dataclass(value):
        # `sorted` is stable: `kind` moves to the front, the others keep their order.
        ordered = sorted(said_fields(value), key=lambda field: field.name != "kind")
        said = {field.name: (field, getattr(value, field.name)) for field in ordered}
        return {
            name: plain(item)
            for name, (field, item) in said.items()
            if not (item is None and field.default is None)
        }
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """The values of a tree of mappings, and of lists of them, by dotted path."""
    if isinstance(tree, Mapping):
        branches = {joined(path, key): tree[key] for key in tree}
    elif isinstance(tree, list) and tree and all(isinstance(item, Mapping) for item in tree):
        branches = {f"{path}[{index}]": item for index, item in enumerate(tree)}
    else:
        return {path: tree}
    flattened = [flat(branch, here) for here, branch in branches.items()]
    return {key: value for values in flattened for key, value in values.items()}
