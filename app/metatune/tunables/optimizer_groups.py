"""Which group of optimizers side by side each parameter is of, and what of a tree is of a group."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import jax
from jaxtyping import Array, Float, PyTree

from metatune.hypergrad.shapes import Shapes
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.recipe.faults import Fault, RecipeError
from metatune.tunables.groups import BASE, Groups, group
from metatune.tunables.shapes import Names

PATH: Final = "inner.optimizer.groups"

Places = PyTree[int]
"""A tree like the parameters: which of the groups each is of."""

LikeParameters = PyTree[Any]  # of whatever leaves: they are only parted and put together
"""A tree like the parameters, or a part of one."""


def assigned(optimizer: schema.GroupsSpec, names: Names) -> Groups:
    """The parameters of each group.

    Args:
        optimizer: the recipe's choice.
        names: `ParameterNames` at the leaves of a tree like the parameters.

    Raises:
        RecipeError: a group without a parameter, a parameter without a group, or layers of one
            tensor in several groups.
    """
    matches = {f"[{place}].match": each.match or "" for place, each in enumerate(optimizer.groups)}
    try:
        found = group(names, matches, PATH)
    except RecipeError as error:
        # As of a mapping, whose keys follow a dot.
        faults = [replace(f, path=f.path.replace(".[", "[")) for f in error.faults]
        unsaid = [f"{PATH}[{at}].match" for at, g in enumerate(optimizer.groups) if g.match is None]
        problem = "takes what groups before it leave, and they leave nothing"
        cure = "take this group out, or write narrower expressions before it"
        faults = [Fault(f.path, None, problem, cure) if f.path in unsaid else f for f in faults]
        raise RecipeError(PATH, faults) from None
    faults = [*_left_over(names, found, list(matches.values())), *_torn(names, found)]
    if faults:
        raise RecipeError(PATH, faults)
    return found


def _left_over(names: Names, found: Groups, matches: Sequence[str]) -> Sequence[Fault]:
    taken = {name for members in found.members.values() for name in members}
    left = [name for leaf in jax.tree.leaves(names) for name in leaf.names if name not in taken]
    if not left:
        return ()
    problem = f"none matches {_some(left)}"
    cure = "add a group without match as the last: it takes all that are left"
    return (Fault(PATH, [each or None for each in matches], problem, cure),)


def _torn(names: Names, found: Groups) -> Sequence[Fault]:
    faults = []
    leaves = zip(jax.tree.leaves(names), jax.tree.leaves(found.index), strict=True)
    for leaf, index in leaves:
        places = {int(place): name for place, name in zip(index.ravel(), leaf.names, strict=False)}
        if len(places) > 1 and BASE not in places:
            first, second = list(places)[:2]
            problem = (
                f"groups[{first}] takes {places[first]} and groups[{second}] {places[second]}: "
                "the layers of a tensor are trained by one optimizer"
            )
            cure = "match all layers; tune.learning_rates tells their rates apart"
            faults.append(Fault(PATH, [places[first], places[second]], problem, cure))
    return faults[:1]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def places(optimizer: schema.GroupsSpec, names: Names) -> Places:
    """The number of each parameter's group, a tree like the parameters."""
    return jax.tree.map(lambda index: int(index.ravel()[0]), assigned(optimizer, names).index)


def of_group(tree: LikeParameters, at: Places, place: int) -> LikeParameters:
    """A tree like the parameters without what is of other groups: None there."""
    return jax.tree.map(lambda own, leaf: leaf if own == place else None, at, tree)


def joined(parts: Sequence[LikeParameters], at: Places) -> LikeParameters:
    """The tree whose `of_group` are the parts, in the order of the groups."""
    return jax.tree.map(lambda own, *leaves: leaves[own], at, *parts)


def per_leaf(optimizer: schema.GroupsSpec, names: Names, key: str) -> LikeParameters:
    """A field of the group of each parameter, a tree like the parameters."""
    at = places(optimizer, names)
    return jax.tree.map(lambda own: getattr(optimizer.groups[own], key), at)


def of_blocks(leaf: ParameterNames, parameter: Float[Array | jax.ShapeDtypeStruct, "..."]) -> bool:
    """Whether a parameter is a matrix of the blocks: stacked by layer alone, with two axes more."""
    return leaf.stacked and not leaf.experts and parameter.ndim == 3


def starts(
    optimizer: schema.GroupsSpec, names: Names, shapes: Shapes | None, key: str
) -> dict[str, float]:
    """A number by its name in each group, as of `GroupsSpec.starts`, where anything follows it.

    Of a group of Muon's, its momentum is of matrices of blocks, and AdamW's decays are of all else;
    NorMuon's second moment is of both.
    """
    found = dict(optimizer.starts(key))
    if shapes is None or key not in ("momentum", "b1", "b2"):
        return found
    at, matrices = places(optimizer, names), jax.tree.map(of_blocks, names, shapes)
    for place, each in enumerate(optimizer.groups):
        if isinstance(each, schema.NorMuonSpec) and key == "b2":
            continue
        if isinstance(each, schema.MuonSpec | schema.MuonHSpec | schema.NorMuonSpec):
            own = jax.tree.leaves(of_group(matrices, at, place))
            if (key == "momentum") not in own:
                found.pop(schema.number_name(place, key), None)
    return found


def has_number(optimizer: schema.InnerOptimizerSpec, name: str) -> bool:
    """Whether an optimizer has a number of this name: `b1`, or of groups `groups[0].b1`."""
    if isinstance(optimizer, schema.GroupsSpec):
        own = {"clip_norm", "weight_decay"} | {
            schema.number_name(place, key)
            for place, each in enumerate(optimizer.groups)
            for key in each.TUNABLE
        }
        return name in own
    return hasattr(optimizer, name)
