"""Nested groups of the members of a simplex: shares of the groups, and shares within them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32


@dataclass(frozen=True)
class Nested:
    """A softmax of two levels: `softmax(g)[group of d] * softmax over the group's z [d]`.

    That is a softmax again, of `g[group of d] + z[d] - logsumexp of the group's z`. A member that
    is alone in its group has no z: it would change nothing.

    Attributes:
        groups: indices of the members of each group; every member is in exactly one.
    """

    groups: tuple[tuple[int, ...], ...]

    def logits(self, coordinates: Float[Array, "coordinates"]) -> Float[Array, "members"]:
        """Logits of all members, from g and then z: groups, and members of the larger ones."""
        count = len(self.groups)
        chosen, within = coordinates[:count], coordinates[count:]
        members = self._with_company()
        inside = jnp.zeros(sum(map(len, self.groups)), coordinates.dtype).at[members].set(within)
        for number, group in enumerate(map(np.asarray, self.groups)):
            logits = chosen[number] + jax.nn.log_softmax(inside[group])
            inside = inside.at[group].set(logits)
        return inside

    def coordinates(self, logits: Float[Array, "members"]) -> Float[Array, "coordinates"]:
        """Coordinates that `logits` maps to these, those within a group centred on zero."""
        groups = [np.asarray(group) for group in self.groups]
        chosen = jnp.stack([jax.nn.logsumexp(logits[group]) for group in groups])
        centred = [logits[group] - jnp.mean(logits[group]) for group in groups if len(group) > 1]
        return jnp.concatenate([chosen, *centred])

    def _with_company(self) -> Int32[np.ndarray, "members"]:
        """Members of groups of more than one, group by group."""
        return np.array([d for group in self.groups if len(group) > 1 for d in group], np.int32)


def nested(groups: Mapping[str, Sequence[str]] | None, names: Sequence[str]) -> Nested | None:
    """The groups of a recipe; None for none.

    Args:
        groups: names of the members of each; a member of no group makes one by itself.
        names: of all members.
    """
    if groups is None:
        return None
    named = [tuple(names.index(name) for name in members) for members in groups.values()]
    grouped = {member for group in named for member in group}
    return Nested((*named, *((at,) for at in range(len(names)) if at not in grouped)))
