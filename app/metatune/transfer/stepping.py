"""How each kind of optimizer steps a parameter: what a rule has to know of it."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from metatune.recipe.schema import GroupsSpec, InnerOptimizerSpec
from metatune.transfer.sizes import Parameter
from metatune.tunables.optimizer_groups import assigned
from metatune.tunables.shapes import Names

Step = Literal["adam", "sgd", "orthogonal", "turned", "turned orthogonal"]
"""By Adam each number moves by about the rate; by `sgd` by its gradient; an `orthogonal` step has
all singular values alike, times `sqrt(max(1, outputs / inputs))`. One that is `turned` moves by a
share of the parameter's own norm, which stays, along Adam's direction or an orthogonal one."""

TURNING: Final[tuple[Step, ...]] = ("turned", "turned orthogonal")

Kinds = str | Mapping[str, str]
"""The kind of the optimizer, or of that of each parameter of the target by checkpoint name."""

ORTHOGONAL: Final = ("muon", "normuon", "muonh")
"""Kinds whose matrices of blocks take orthogonal steps. NorMuon's keeps the norm of Muon's."""

TURNED: Final = ("adamh", "muonh")
"""Kinds whose matrices of blocks and own unembedding keep their norms."""

SAID: Final = ("adamw", *ORTHOGONAL, "adamh")
"""Kinds whose steps have a size that no gradient sets: rules say how their rates follow.

SOAP isn't one of them: along a gradient of few directions it steps as Muon does, along one of many
as Adam, and which of both is no matter of sizes alone.
"""


def kind_of(kinds: Kinds, name: str) -> str:
    """The kind of the optimizer of a parameter."""
    return kinds if isinstance(kinds, str) else kinds[name]


def step(kind: str, parameter: Parameter) -> Step:
    """How an optimizer of this kind steps a parameter."""
    matrix = parameter.layer is not None and parameter.role in ("matrix", "router")
    orthogonal = kind in ORTHOGONAL and matrix and not parameter.bundled
    turned = parameter.role == "head" or (matrix and not parameter.bundled)
    if kind in TURNED and turned:
        return "turned orthogonal" if orthogonal else "turned"
    if orthogonal:
        return "orthogonal"
    return "sgd" if kind == "sgd" else "adam"


def kinds_of(optimizer: InnerOptimizerSpec, names: Names) -> Kinds:
    """The kinds of a recipe's optimizer.

    Args:
        optimizer: the recipe's choice.
        names: `ParameterNames` at the leaves of a tree like the parameters.
    """
    if not isinstance(optimizer, GroupsSpec):
        return optimizer.kind
    members = assigned(optimizer, names).members.values()
    return {
        name: group.kind
        for group, taken in zip(optimizer.groups, members, strict=True)
        for name in taken
    }


def called(kind: str, kinds: Sequence[str]) -> str:
    """What a choice is called: `muon`, or `groups of muon, adamw`.

    Args:
        kind: of the choice.
        kinds: of each of its groups; that of the optimizer where there are none.
    """
    return kind if kind in kinds else f"{kind} of {', '.join(kinds)}"
