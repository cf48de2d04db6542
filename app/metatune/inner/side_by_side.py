"""Optimizers side by side: each sees the gradients, the state and the numbers of its own group.

Gradients are clipped by the norm of all of them together, before they are parted.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import optax

from metatune.hypergrad.shapes import OptState, Params
from metatune.recipe import schema
from metatune.tunables import Hyper
from metatune.tunables.optimizer_groups import LikeParameters, Places, joined, of_group

Init = Callable[[Params], OptState]
Update = Callable[[Params, OptState, Params, Hyper], tuple[Params, OptState]]


class SideBySideState(NamedTuple):
    """The state of each group's optimizer, of its parameters alone: None at all others."""

    groups: tuple[OptState, ...]


def side_by_side(
    optimizer: schema.GroupsSpec, at: Places, each: Sequence[tuple[Init, Update]]
) -> tuple[Init, Update]:
    """The start and the update of all groups.

    Args:
        optimizer: the recipe's choice.
        at: which group each parameter is of.
        each: start and update of each group's optimizer, built of its own names.
    """

    def init(params: Params) -> SideBySideState:
        own = [begin(of_group(params, at, place)) for place, (begin, _) in enumerate(each)]
        return SideBySideState(tuple(own))

    def update(
        grads: Params, state: SideBySideState, params: Params, hyper: Hyper
    ) -> tuple[Params, SideBySideState]:
        norm = (hyper.optimizer or {}).get("clip_norm", optimizer.clip_norm)
        if norm is not None:
            clip = optax.clip_by_global_norm(norm)
            grads, _ = clip.update(grads, clip.init(params))
        found: list[tuple[Params, OptState]] = []
        for place, (_, step) in enumerate(each):
            own = [of_group(tree, at, place) for tree in (grads, params)]
            mine = hyper_of(hyper, optimizer, at, place)
            found.append(step(own[0], state.groups[place], own[1], mine))
        stepped, states = zip(*found, strict=True)
        return joined(stepped, at), SideBySideState(tuple(states))

    return init, update


def hyper_of(hyper: Hyper, optimizer: schema.GroupsSpec, at: Places, place: int) -> Hyper:
    """λ as the optimizer of one group has it: its numbers under their own names.

    Args:
        hyper: of all groups.
        optimizer: the recipe's choice.
        at: which group each parameter is of.
        place: of the group.
    """

    def part(tree: LikeParameters) -> LikeParameters:
        return of_group(tree, at, place)

    numbers, given = {}, hyper.optimizer or {}
    for key in optimizer.groups[place].TUNABLE:
        if key == "weight_decay" and key in given:
            numbers[key] = part(given[key])
        elif (name := schema.number_name(place, key)) in given:
            numbers[key] = given[name]
    return hyper._replace(
        learning_rate=part(hyper.learning_rate),
        optimizer=numbers or None,
        eps_scale=None if hyper.eps_scale is None else part(hyper.eps_scale),
    )


def by_group(
    optimizer: schema.GroupsSpec,
    at: Places,
    function: Callable[..., LikeParameters],
    *trees: LikeParameters,
) -> LikeParameters:
    """What a function makes of each group's optimizer and its parts of trees, as one tree."""
    parts = [
        function(group.alone, *(of_group(tree, at, place) for tree in trees))
        for place, group in enumerate(optimizer.groups)
    ]
    return joined(parts, at)
