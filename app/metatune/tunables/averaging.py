"""An exponential moving average of the parameters, whose decay is tuned by window.

The average is what is judged, reported and kept; the training itself goes on as it is.

Source: Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM Journal on
Control and Optimization, 1992; with an exponential window, as of `torch.optim.swa_utils`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metatune.artefact.sections import averaging as sections
from metatune.hypergrad.shapes import OptState, Params, Scalar, StepLike
from metatune.recipe import schema
from metatune.recipe.faults import Fault, RecipeError
from metatune.tunables.hyper import Hyper, Setting, Tunable
from metatune.tunables.optimizer import remembered
from metatune.tunables.shapes import Slices
from metatune.tunables.used import Used
from metatune.tunables.windows import window_of

PATH = "tune.averaging"

Update = Callable[[Params, OptState, Params, Hyper], tuple[Params, OptState]]
"""`(grads, opt_state, params, hyper) -> (params, opt_state)`, as of a `Problem`."""


@dataclass(frozen=True)
class TunableAveraging:
    """`β_t = remembered(decay, η[window of t])` from its first step on, 0 before.

    Attributes:
        decay: what the search starts from.
        first: the first step after which the average is more than the parameters.
        windows: stretches of the training from there on, of equal length.
        steps: horizon of the inner training.
    """

    decay: float
    first: int
    windows: int
    steps: int
    key: str = "averaging"

    def initial(self) -> Float[Array, "{self.windows}"]:
        """Zeros, [windows]."""
        return jnp.zeros(self.windows, jnp.float32)

    def apply(self, eta: Float[Array, "{self.windows}"], step: StepLike, hyper: Hyper) -> Hyper:
        """Sets the decay after this step."""
        since = jnp.maximum(step - self.first, 0)
        decay = remembered(self.decay, eta[window_of(since, self.windows, self.steps - self.first)])
        return hyper._replace(averaging=jnp.where(step < self.first, 0.0, decay))

    def penalty(self, eta: Float[Array, "{self.windows}"]) -> Scalar:
        """None."""
        return jnp.zeros((), eta.dtype)


class Averaged(NamedTuple):
    """The state of an optimizer beside which an average is kept.

    Attributes:
        average: θ̄, like the parameters.
        inner: the optimizer's own state.
    """

    average: Params
    inner: OptState


@dataclass(frozen=True)
class AveragedUpdate:
    """An optimizer's update, then `θ̄_{t+1} = β_t θ̄_t + (1 - β_t) θ_{t+1}`.

    Attributes:
        update: the optimizer's own.
    """

    update: Update

    def __call__(
        self, grads: Params, state: Averaged, params: Params, hyper: Hyper
    ) -> tuple[Params, Averaged]:
        """As of a `Problem`."""
        params, inner = self.update(grads, state.inner, params, hyper)
        return params, Averaged(jax.tree.map(self._towards(hyper), state.average, params), inner)

    def _towards(
        self, hyper: Hyper
    ) -> Callable[[Float[Array, "..."], Float[Array, "..."]], Float[Array, "..."]]:
        if (decay := hyper.averaging) is None:
            raise ValueError("a training that keeps an average needs its decay")

        def towards(
            average: Float[Array, "*shape"], param: Float[Array, "*shape"]
        ) -> Float[Array, "*shape"]:
            own = decay.astype(param.dtype)
            return own * average + (1 - own) * param

        return towards


def begun(params: Params, inner: OptState) -> Averaged:
    """The state that a training starts with; its average is a copy, as its memory is given away."""
    return Averaged(jax.tree.map(jnp.copy, params), inner)


def average(params: Params, state: Averaged) -> Params:
    """θ̄, which is judged and kept."""
    del params
    return state.average


def beside(
    init: Callable[[Params], OptState], update: Update
) -> tuple[Callable[[Params], Averaged], AveragedUpdate, Callable[[Params, Averaged], Params]]:
    """An optimizer beside which an average is kept: its init, its update, and what is evaluated."""
    return lambda params: begun(params, init(params)), AveragedUpdate(update), average


def averages(tunables: Sequence[Tunable]) -> bool:
    """Whether an average is kept."""
    return any(isinstance(tunable, TunableAveraging) for tunable in tunables)


def build(spec: schema.AveragingSpec, setting: Setting) -> TunableAveraging:
    """The tunable of a recipe's `tune.averaging`.

    Raises:
        RecipeError: it starts after the last update, or has more windows than updates from there.
    """
    # What a training starts from is in no average: the first update is the first of it.
    first = max(1, math.ceil(spec.start * setting.steps))
    left = setting.steps - first
    if left < spec.windows:
        problem = (
            f"leaves {left} of {setting.steps} updates for tune.averaging.windows, {spec.windows}"
        )
        fault = Fault(f"{PATH}.start", spec.start, problem, "lower one of them")
        raise RecipeError("tune", [fault])
    return TunableAveraging(spec.decay, first, spec.windows, setting.steps)


def section(tunables: Sequence[Tunable], eta: Slices, used: Used) -> sections.Averaging | None:
    """The decay after every step, if an average is kept."""
    if used.trajectory.hyper.averaging is None:
        return None
    decay = np.asarray(used.trajectory.hyper.averaging, np.float64)
    kept, schedule = used.scheduled([decay])
    return sections.Averaging(decay=decay[kept], **schedule)
