"""Learned updates: small networks that correct the optimizer's step, one for each group.

Source: Metz et al., Practical tradeoffs between memory, compute, and performance in learned
optimizers, CoLLAs 2022, arXiv 2203.11860, whose small network and features these are, here with a
correction of a hand-designed optimizer instead of a whole step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from metatune.artefact.sections import learned_update as sections
from metatune.hypergrad.shapes import Scalar, StepLike
from metatune.recipe import schema
from metatune.tunables.groups import Groups, group
from metatune.tunables.hyper import Correction, Hyper, Networks, Setting, Tunable
from metatune.tunables.shapes import Index, Slices
from metatune.tunables.used import Used

SECOND_MOMENT_DECAY: Final = 0.99
"""Of the mean of squared gradients that the networks see."""

TIME_SCALES: Final = (0.01, 0.03, 0.1, 0.3, 1.0)
"""In fractions of training: the networks see `tanh(progress / scale - 1)` for each."""

OTHER_FEATURES: Final = 4
"""Gradient, value, direction and second moment, besides the moments and the times."""


class Form(NamedTuple):
    """A learned update but for the weights of its networks.

    Attributes:
        index: pytree like the parameters; each leaf holds numbers of networks, [layers] where the
            parameter is stacked, [] otherwise; -1 for the last, which is that of no group.
        decays: of the moments of the gradient.
        second_moment_decay: of the mean of squared gradients.
        time_scales: in fractions of training.
        max_multiplier: that no factor reaches, nor one over it, before the size is kept.
        keeps_size: whether a corrected step has the root-mean-square of the optimizer's own.
    """

    index: Index
    decays: tuple[float, ...]
    second_moment_decay: float
    time_scales: tuple[float, ...]
    max_multiplier: float
    keeps_size: bool

    @property
    def features(self) -> int:
        """Numbers that a network sees."""
        return OTHER_FEATURES + len(self.decays) + len(self.time_scales)


@dataclass(frozen=True, eq=False)
class TunableLearnedUpdate:
    """A network for each group: its weights, in a row, are the meta-parameters.

    The hidden layer begins at random, the output layer at zero, so that the optimizer's step is
    multiplied by one.

    Attributes:
        groups: parameters that share a network.
        form: the rest of it.
        steps: horizon of the inner training.
        random: the key of the hidden layers.
        unravel: from the weights of a group in a row to its network.
        start: the network that each group starts from, but for its hidden layer.
    """

    groups: Groups
    form: Form
    steps: int
    random: Key[Array, ""]
    unravel: Callable[[Float[Array, "weights"]], Networks]
    start: Networks
    key: str = "learned_update"

    @property
    def windows(self) -> int:
        """One: the networks are those of the whole training."""
        return 1

    def initial(self) -> Float[Array, "{self.groups.size} weights"]:
        """Random hidden layers and zeros, float32."""
        shape = (self.groups.size, *self.start.hidden.shape)
        hidden = jax.random.normal(self.random, shape, np.float32)
        scaled = hidden / np.float32(np.sqrt(shape[1]))
        rows = [ravel_pytree(self.start._replace(hidden=own))[0] for own in scaled]
        return jnp.stack(rows)

    def apply(
        self, eta: Float[Array, "{self.groups.size} weights"], step: StepLike, hyper: Hyper
    ) -> Hyper:
        """Puts the networks in, and how far the training is."""
        progress = jnp.asarray(step).astype(eta.dtype) / self.steps
        return hyper._replace(learned_update=Correction(self.networks(eta), progress))

    def penalty(self, eta: Float[Array, "{self.groups.size} weights"]) -> Scalar:
        """None."""
        return jnp.zeros((), eta.dtype)

    def networks(self, eta: Float[Array, "{self.groups.size} weights"]) -> Networks:
        """The networks of all groups, and one of zeros."""
        # Its output is zero, and the factor that it gives exactly one.
        return jax.vmap(self.unravel)(jnp.pad(eta, ((0, 1), (0, 0))))


def build(spec: schema.LearnedUpdateSpec, setting: Setting) -> TunableLearnedUpdate:
    """The tunable of a recipe's `tune.learned_update`.

    Raises:
        RecipeError: a regular expression matches no parameter, or a parameter is of no known kind.
    """
    if setting.seed_key is None:
        raise ValueError("a learned update needs a key for its hidden layers")
    groups = group(setting.names, spec.per, "tune.learned_update.per")
    form = Form(
        groups.index,
        spec.decays,
        SECOND_MOMENT_DECAY,
        TIME_SCALES,
        spec.max_multiplier,
        spec.step_size == "kept",
    )
    start = Networks(
        hidden=np.zeros((form.features, spec.hidden_size), np.float32),
        bias=np.zeros(spec.hidden_size, np.float32),
        output=np.zeros(spec.hidden_size, np.float32),
    )
    _, unravel = ravel_pytree(start)
    return TunableLearnedUpdate(groups, form, setting.steps, setting.seed_key, unravel, start)


def section(tunables: Sequence[Tunable], eta: Slices, used: Used) -> sections.LearnedUpdate | None:
    """The networks, if they were tuned."""
    tuned = next((each for each in tunables if isinstance(each, TunableLearnedUpdate)), None)
    if tuned is None:
        return None
    form = tuned.form
    networks = tuned.networks(eta[tuned.key])._asdict()
    return sections.LearnedUpdate(
        groups=tuned.groups.members,
        decays=form.decays,
        second_moment_decay=form.second_moment_decay,
        time_scales=form.time_scales,
        max_multiplier=form.max_multiplier,
        step_size="kept" if form.keeps_size else "learned",
        # Without the last, that of parameters in no group.
        **{name: np.asarray(rows, np.float32)[:-1] for name, rows in networks.items()},
    )
