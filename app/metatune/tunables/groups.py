"""Which parameters share a learning rate."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metatune.artefact.kinds import KINDS, kind_of
from metatune.hypergrad.shapes import Params
from metatune.models import ParameterNames
from metatune.recipe.faults import Fault, RecipeError
from metatune.tunables.shapes import Index, Names

BASE = -1
"""The index of a parameter that is in no group and keeps the base rate."""


class Groups(NamedTuple):
    """A partition of the parameters.

    Attributes:
        labels: names of the groups.
        index: pytree like the parameters; each leaf holds group numbers, [layers] where the
            parameter is stacked, [] otherwise.
        members: checkpoint names by group.
    """

    labels: tuple[str, ...]
    index: Index
    members: Mapping[str, tuple[str, ...]]

    @property
    def size(self) -> int:
        """How many groups there are."""
        return len(self.labels)

    def spread(self, values: Float[Array, "{self.size}"], outside: float = 1.0) -> Params:
        """The value of each parameter's group.

        Args:
            values: of each group.
            outside: of a parameter of no group.

        Returns:
            A tree like the parameters, [layers] where they are stacked, [] otherwise.
        """
        # Parameters of no group have index -1: the last entry.
        values = jnp.append(values, outside)
        return jax.tree.map(lambda index: values[index], self.index)


def group(names: Names, per: str | tuple[str, ...] | Mapping[str, str], path: str) -> Groups:
    """Groups parameters.

    Args:
        names: `ParameterNames` at the leaves of a tree like the parameters.
        per: a key of `LABELS`, or regular expressions, searched for in the checkpoint names; the
            first that is found in a name takes it.
        path: the recipe's field, for faults.

    Raises:
        RecipeError: an expression matches no parameter, or only such as an earlier one took; or a
            parameter is of no known kind.
    """
    if per in ("kind", "layer_kind"):
        _refuse_unknown_kinds(names, per, path)
    label_of = LABELS[per] if isinstance(per, str) else _by_expression(per)
    leaves, treedef = jax.tree.flatten(names)
    members: dict[str, list[str]] = {} if isinstance(per, str) else {key: [] for key in _named(per)}
    for leaf in leaves:
        for name in leaf.names:
            if (label := label_of(name)) is not None:
                members.setdefault(label, []).append(name)
    _refuse_empty(members, per, path, [name for leaf in leaves for name in leaf.names])
    number = {label: i for i, label in enumerate(members)}

    def numbers(leaf: ParameterNames) -> Int[np.ndarray | np.generic, "..."]:
        found = [label_of(name) for name in leaf.names]
        indices = np.array([BASE if label is None else number[label] for label in found], np.int32)
        return indices if leaf.stacked else indices[0]

    index = jax.tree.unflatten(treedef, [numbers(leaf) for leaf in leaves])
    return Groups(tuple(members), index, {label: tuple(m) for label, m in members.items()})


def _layer(name: str) -> str:
    """`model.layers.0.mlp.up_proj.weight` → `model.layers.0`; elsewhere the module's name."""
    found = re.match(r".*?\.\d+(?=\.)", name)
    return found[0] if found else name.rpartition(".")[0]


def _layer_kind(name: str) -> str | None:
    """`model.layers.0.attention`; outside the layers the kind alone."""
    found = re.match(r".*?\.\d+(?=\.)", name)
    return f"{found[0]}.{kind_of(name)}" if found else kind_of(name)


LABELS: Mapping[str, Callable[[str], str | None]] = {
    "global": lambda name: "all",
    "layer": _layer,
    "tensor": lambda name: name,
    "kind": kind_of,
    "layer_kind": _layer_kind,
}


def _named(per: tuple[str, ...] | Mapping[str, str]) -> Mapping[str, str]:
    return per if isinstance(per, Mapping) else {expression: expression for expression in per}


def _by_expression(per: tuple[str, ...] | Mapping[str, str]) -> Callable[[str], str | None]:
    compiled = {label: re.compile(expression) for label, expression in _named(per).items()}
    return lambda name: next((label for label, e in compiled.items() if e.search(name)), None)


def _refuse_empty(
    members: Mapping[str, list[str]],
    per: str | tuple[str, ...] | Mapping[str, str],
    path: str,
    names: list[str],
) -> None:
    if isinstance(per, str):
        return
    some = ", ".join(names[:2] + names[-1:])
    faults = [
        Fault(
            f"{path}.{label}" if isinstance(per, Mapping) else path,
            _named(per)[label],
            "matches no parameter that an earlier expression hasn't taken",
            f"match the model's checkpoint names, such as {some}",
        )
        for label, found in members.items()
        if not found
    ]
    if faults:
        raise RecipeError(path, faults)


def _refuse_unknown_kinds(names: Names, per: str, path: str) -> None:
    unknown = [n for leaf in jax.tree.leaves(names) for n in leaf.names if kind_of(n) is None]
    if unknown:
        problem = f"{unknown[0]} is none of {', '.join(KINDS)} ({len(unknown)} such in all)"
        fault = Fault(path, per, problem, "group parameters by regular expressions on their names")
        raise RecipeError(path, [fault])
