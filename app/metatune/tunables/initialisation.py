"""The start of the training: a point moved weight by weight, or a place between checkpoints.

Both are zero where the start is the recipe's own, bit for bit. They act in no step: `begin` moves
the parameters before the first one.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metatune.artefact.sections import initialisation as sections
from metatune.hypergrad.shapes import Params, Scalar, StepLike
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.recipe.faults import Fault, RecipeError
from metatune.tunables.groups import Groups, group
from metatune.tunables.hyper import Hyper, Setting, Tunable
from metatune.tunables.shapes import Slice, Slices
from metatune.tunables.used import Used

PATH = "tune.initialisation"


@runtime_checkable
class Begins(Protocol):
    """A tunable that moves what a training starts from."""

    key: str

    def begin(self, eta: Slice, params: Params, others: Sequence[Params]) -> Params:
        """The parameters before inner step 0.

        Args:
            eta: this tunable's slice of η.
            params: what the recipe starts from.
            others: the same of further checkpoints, where the recipe names any.
        """
        ...


@dataclass(frozen=True, eq=False)
class StartingPoint:
    """`θ_0 = θ + η`, of all parameters or of some.

    Source: Finn et al., Model-Agnostic Meta-Learning, ICML 2017, section 2.2.

    Attributes:
        layers: for each leaf of the parameters the layers of it that are moved; of a leaf that
            isn't stacked [0] or none.
        shapes: of what is moved of each leaf.
    """

    layers: tuple[tuple[int, ...], ...]
    shapes: tuple[tuple[int, ...], ...]
    key: str = "initialisation"
    windows: int = 1

    def initial(self) -> Float[Array, "weights"]:
        """No offset: zeros, leaf by leaf."""
        return jnp.zeros(sum(map(math.prod, self.shapes)), jnp.float32)

    def begin(
        self, eta: Float[Array, "weights"], params: Params, others: Sequence[Params] = ()
    ) -> Params:
        """Adds the offset."""
        del others
        leaves, treedef = jax.tree.flatten(params)
        parts = jax.lax.split(eta, [math.prod(shape) for shape in self.shapes])
        moved = [
            _added(leaf, layers, part.reshape(shape).astype(leaf.dtype)) if layers else leaf
            for leaf, layers, part, shape in zip(
                leaves, self.layers, parts, self.shapes, strict=True
            )
        ]
        return jax.tree.unflatten(treedef, moved)

    def apply(self, eta: Float[Array, "weights"], step: StepLike, hyper: Hyper) -> Hyper:
        """Changes nothing: it acts before the first step."""
        return hyper

    def penalty(self, eta: Float[Array, "weights"]) -> Scalar:
        """None."""
        return jnp.zeros((), eta.dtype)


@dataclass(frozen=True, eq=False)
class Interpolation:
    """`θ_0 = θ + Σ_i α_i (θ_i - θ)`, with `α = η`, [checkpoints * groups].

    Source: Wortsman et al., Model Soups, ICML 2022, whose learned soup mixes finished models; here
    it is what a training starts from, and α isn't constrained.

    Attributes:
        checkpoints: where the θ_i come from.
        groups: parameters that share α.
    """

    checkpoints: tuple[str, ...]
    groups: Groups
    key: str = "initialisation"
    windows: int = 1

    def initial(self) -> Float[Array, "{len(self.checkpoints)*self.groups.size}"]:
        """The recipe's own start: zeros."""
        return jnp.zeros(len(self.checkpoints) * self.groups.size, jnp.float32)

    def begin(
        self,
        eta: Float[Array, "{len(self.checkpoints)*self.groups.size}"],
        params: Params,
        others: Sequence[Params],
    ) -> Params:
        """Adds what leads from one start towards the others."""
        base, moved = params, params
        for coefficients, other in zip(self.coefficients(eta), others, strict=True):
            alphas = self.groups.spread(coefficients, outside=0.0)
            moved = jax.tree.map(_towards, moved, base, other, alphas)
        return moved

    def apply(self, eta: Float[Array, "weights"], step: StepLike, hyper: Hyper) -> Hyper:
        """Changes nothing: it acts before the first step."""
        return hyper

    def penalty(self, eta: Float[Array, "weights"]) -> Scalar:
        """None."""
        return jnp.zeros((), eta.dtype)

    def coefficients(self, eta: Slice) -> Float[Array | np.ndarray, "checkpoints groups"]:
        """α."""
        return eta.reshape(len(self.checkpoints), self.groups.size)


def build(spec: schema.InitialisationSpec, setting: Setting) -> StartingPoint | Interpolation:
    """The tunable of a recipe's `tune.initialisation`.

    Raises:
        RecipeError: a regular expression matches no parameter.
    """
    if isinstance(spec, schema.InterpolationSpec):
        return Interpolation(spec.checkpoints, group(setting.names, spec.per, f"{PATH}.per"))
    return _point(spec, setting)


def _point(spec: schema.PointSpec, setting: Setting) -> StartingPoint:
    named: list[ParameterNames] = jax.tree.leaves(setting.names)
    names = [name for leaf in named for name in leaf.names]
    faults = [
        Fault(
            f"{PATH}.parameters[{index}]",
            expression,
            "matches no trained parameter",
            f"match their checkpoint names, such as {', '.join(names[:2] + names[-1:])}",
        )
        for index, expression in enumerate(spec.parameters or ())
        if not any(re.search(expression, name) for name in names)
    ]
    if faults:
        raise RecipeError(PATH, faults)
    wanted = (".",) if spec.parameters is None else spec.parameters
    layers = tuple(
        tuple(i for i, name in enumerate(leaf.names) if any(re.search(e, name) for e in wanted))
        for leaf in named
    )
    shapes = tuple(
        (len(chosen), *leaf.shape[named.stacked :])
        for chosen, leaf, named in zip(layers, jax.tree.leaves(setting.shapes), named, strict=True)
    )
    return StartingPoint(layers, shapes)


def _added(
    leaf: Float[Array, "*shape"], layers: tuple[int, ...], offset: Float[Array, "moved ..."]
) -> Float[Array, "*shape"]:
    """A leaf with the offset of some of its layers, or of all of it, [1, ...]."""
    if offset.size == leaf.size:
        return leaf + offset.reshape(leaf.shape)
    return leaf.at[np.asarray(layers)].add(offset)


def _towards(
    moved: Float[Array, "*shape"],
    base: Float[Array, "*shape"],
    other: Float[Array, "*shape"],
    alpha: Float[Array, "*layers"],
) -> Float[Array, "*shape"]:
    alpha = alpha.reshape(alpha.shape + (1,) * (base.ndim - alpha.ndim))
    return moved + alpha.astype(base.dtype) * (other - base)


def section(tunables: Sequence[Tunable], eta: Slices, used: Used) -> sections.Initialisation | None:
    """What the tuned trainings start from, if that was tuned."""
    tuned = next((t for t in tunables if isinstance(t, StartingPoint | Interpolation)), None)
    if tuned is None or (weights := used.start()) is None:
        return None
    if not isinstance(tuned, Interpolation):
        return sections.Initialisation("point", weights)
    rows = np.asarray(tuned.coefficients(eta[tuned.key]), np.float64).tolist()
    coefficients = {
        source: dict(zip(tuned.groups.labels, row, strict=True))
        for source, row in zip(tuned.checkpoints, rows, strict=True)
    }
    between = sections.Interpolated(coefficients, tuned.groups.members)
    return sections.Initialisation("interpolation", weights, between)
