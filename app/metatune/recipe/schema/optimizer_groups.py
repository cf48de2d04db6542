"""Optimizers side by side: each group of parameters has its own, with a base rate of its own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from metatune.recipe.rules import POSITIVE, SOME, ruled
from metatune.recipe.schema.base_schedule import CosineSpec, ScheduleSpec
from metatune.recipe.schema.eigenbasis_optimizer import SoapSpec
from metatune.recipe.schema.inner_optimizer import (
    AdafactorSpec,
    AdamHSpec,
    AdamWSpec,
    AdoptSpec,
    LionSpec,
    MuonHSpec,
    MuonSpec,
    SGDSpec,
    SingleOptimizerSpec,
)
from metatune.recipe.schema.neuron_optimizer import NorMuonSpec


@dataclass(frozen=True)
class GroupSpec:
    """What a group has besides its optimizer's numbers; schedule and clip norm are of all groups.

    Attributes:
        match: a regular expression, searched for in checkpoint names: the parameters of the group,
            of those that no group before it took; null for all that are left, in the last group.
    """

    match: str | None = None
    # Shared by all groups, so that no recipe says them here.
    schedule: ScheduleSpec = field(default=CosineSpec(), init=False)
    clip_norm: float | None = field(default=None, init=False)

    @property
    def alone(self) -> SingleOptimizerSpec:
        """The optimizer of these parameters by itself, which clips nothing."""
        own = next(kind for kind in type(self).__mro__ if kind in SINGLE)
        names = [each.name for each in fields(own)]
        return own(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class AdamWGroupSpec(GroupSpec, AdamWSpec):
    """AdamW, for a group of parameters."""


@dataclass(frozen=True)
class SGDGroupSpec(GroupSpec, SGDSpec):
    """Stochastic gradient descent with momentum, for a group of parameters."""


@dataclass(frozen=True)
class LionGroupSpec(GroupSpec, LionSpec):
    """Lion, for a group of parameters."""


@dataclass(frozen=True)
class MuonGroupSpec(GroupSpec, MuonSpec):
    """Muon for the matrices of blocks in a group of parameters, AdamW for all else in it."""


@dataclass(frozen=True)
class AdafactorGroupSpec(GroupSpec, AdafactorSpec):
    """Adafactor, for a group of parameters."""


@dataclass(frozen=True)
class AdoptGroupSpec(GroupSpec, AdoptSpec):
    """ADOPT, for a group of parameters."""


@dataclass(frozen=True)
class AdamHGroupSpec(GroupSpec, AdamHSpec):
    """AdamH, for a group of parameters."""


@dataclass(frozen=True)
class MuonHGroupSpec(GroupSpec, MuonHSpec):
    """MuonH, for a group of parameters."""


@dataclass(frozen=True)
class SoapGroupSpec(GroupSpec, SoapSpec):
    """SOAP for the matrices of blocks in a group of parameters, Adam for all else in it."""


@dataclass(frozen=True)
class NorMuonGroupSpec(GroupSpec, NorMuonSpec):
    """NorMuon for the matrices of blocks in a group of parameters, AdamW for all else in it."""


OptimizerGroupSpec = (
    AdamWGroupSpec
    | SGDGroupSpec
    | LionGroupSpec
    | MuonGroupSpec
    | AdafactorGroupSpec
    | AdoptGroupSpec
    | AdamHGroupSpec
    | MuonHGroupSpec
    | SoapGroupSpec
    | NorMuonGroupSpec
)
"""Schedule-free AdamW has no group: what it trains isn't what is measured, of all parameters."""

SINGLE: tuple[type, ...] = (
    AdamWSpec,
    SGDSpec,
    LionSpec,
    MuonSpec,
    AdafactorSpec,
    AdoptSpec,
    AdamHSpec,
    MuonHSpec,
    SoapSpec,
    NorMuonSpec,
)


@dataclass(frozen=True)
class GroupsSpec:
    """Optimizers side by side, each for its own group of parameters, with its own base rate.

    Every parameter that is trained is of one group, the first whose `match` is found in its name.
    The layers of a tensor are of one group together. `kind: groups` may be left out.

    Attributes:
        groups: an optimizer each, the first that matches before the others.
        schedule: the base schedule of all groups, each with a peak of its own.
        clip_norm: largest global norm of the gradient, of all groups together; null for no
            clipping.
    """

    SAID_BY: ClassVar[str] = "groups"
    groups: tuple[OptimizerGroupSpec, ...] = ruled(SOME)
    kind: Literal["groups"] = "groups"
    schedule: ScheduleSpec = field(default_factory=CosineSpec)
    clip_norm: float | None = ruled(1.0, POSITIVE)

    @property
    def TUNABLE(self) -> tuple[str, ...]:
        """What of any group can be tuned."""
        found = dict.fromkeys(key for group in self.groups for key in group.TUNABLE)
        return tuple(key for key in found if key != "clip_norm") + (
            ("clip_norm",) if "clip_norm" in found else ()
        )

    def starts(self, key: str) -> Mapping[str, float]:
        """A number by its name in each group that has it above zero and where it can be tuned.

        Args:
            key: one of `TUNABLE` but `clip_norm`.
        """
        found = {
            number_name(place, key): getattr(group, key)
            for place, group in enumerate(self.groups)
            if key in group.TUNABLE
        }
        return {name: value for name, value in found.items() if value}


InnerOptimizerSpec = SingleOptimizerSpec | GroupsSpec
"""What turns gradients into updates. `TUNABLE` are those of its fields that can be tuned."""


def number_name(place: int, key: str) -> str:
    """What a number of a group is called where all have names: `groups[0].b1`."""
    return f"groups[{place}].{key}"


def peak(optimizer: InnerOptimizerSpec) -> float:
    """The peak of the base rate, the largest where groups have their own."""
    if isinstance(optimizer, GroupsSpec):
        return max(group.learning_rate for group in optimizer.groups)
    return optimizer.learning_rate


def least(optimizer: InnerOptimizerSpec, key: str) -> float | None:
    """A number of the optimizer, the smallest of its groups; None where it has none.

    Args:
        optimizer: the recipe's choice.
        key: name of a field.
    """
    of = optimizer.groups if isinstance(optimizer, GroupsSpec) else (optimizer,)
    return min((getattr(each, key) for each in of if hasattr(each, key)), default=None)


def field_of(optimizer: InnerOptimizerSpec, key: str) -> str:
    """Where a recipe has a number of its optimizer.

    Of several side by side it is that of the group whose number is the largest, of those that stand
    in a denominator the smallest; of the first of equals.

    Args:
        optimizer: the recipe's choice.
        key: name of a field.
    """
    if not isinstance(optimizer, GroupsSpec):
        return f"inner.optimizer.{key}"
    own = {at: getattr(each, key) for at, each in enumerate(optimizer.groups) if hasattr(each, key)}
    if not own:
        return f"inner.optimizer.{key}"
    place = (min if key in ("eps", "eps_root") else max)(own, key=lambda at: own[at])
    return f"inner.optimizer.{number_name(place, key)}"


def in_groups(hint: str, optimizer: InnerOptimizerSpec) -> str:
    """A hint that names fields of one optimizer, with those that the recipe has: of `field_of`."""
    return re.sub(
        r"inner\.optimizer\.(learning_rate|eps_root|eps)\b",
        lambda found: field_of(optimizer, found[1]),
        hint,
    )
