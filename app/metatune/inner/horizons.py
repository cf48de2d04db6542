"""The inner training over fewer steps: the same schedules as fractions of a shorter training."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int32, Int64

from metatune.hypergrad import Problem
from metatune.hypergrad.shapes import Step, StepLike
from metatune.inner.training import InnerTraining
from metatune.tunables import Hyper
from metatune.tunables.shapes import Slices, SlicesLike


@dataclass(frozen=True, eq=False)
class Rescaled:
    """The differentiable training with its schedules rescaled to `steps` inner steps.

    Inner step t uses what step `⌊t T / steps⌋` of the whole training of T steps uses. Where that
    lies is an argument of compiled programs, not part of them: one compilation serves all `steps`.

    Attributes:
        training: the whole training.
        steps: of the shorter one; at most as many.
    """

    training: InnerTraining
    steps: int

    @property
    def problem(self) -> Problem:
        """As `InnerTraining.reweighted`."""
        whole = self.training.reweighted
        hyper_at = jax.tree_util.Partial(_HyperAt(whole.hyper_at), jnp.asarray(self._padded()))
        return replace(whole, hyper_at=hyper_at)

    def shares(self, eta: SlicesLike) -> Float64[np.ndarray, "{self.steps} domains"]:
        """Shares of the domains in each inner step."""
        return self.training.trajectory(eta).mixture[self._steps_of_the_whole()]

    def _steps_of_the_whole(self) -> Int64[np.ndarray, "{self.steps}"]:
        """The step of the whole training that each step is like."""
        # In int64: a product of two numbers of steps may exceed 32 bits.
        return (
            np.arange(self.steps, dtype=np.int64) * self.training.recipe.inner.steps // self.steps
        )

    def _padded(self) -> Int32[np.ndarray, "{self.training.recipe.inner.steps}"]:
        """The same as int32, of one shape for all `steps`."""
        found = self._steps_of_the_whole().astype(np.int32)
        return np.pad(found, (0, self.training.recipe.inner.steps - self.steps), mode="edge")


@dataclass(frozen=True)
class _HyperAt:
    """The map η ↦ λ_t by a table of steps; equal, hence compiled once, where `whole` is."""

    whole: Callable[[Slices, Step], Hyper]

    def __call__(self, like: Int32[Array, "whole"], eta: Slices, step: StepLike) -> Hyper:
        return self.whole(eta, like[step])
