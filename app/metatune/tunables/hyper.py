"""The hyperparameters λ_t of an inner step, and what a tunable does to them."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int64, Key, PyTree

from metatune.hypergrad.shapes import Scalar, Shapes, StepLike
from metatune.recipe import schema
from metatune.tunables.shapes import Names, Slice
from metatune.tunables.token_classes import TokenClasses

Rates = PyTree[Float[Array, "..."]]
"""A number for each parameter, or for parts of it: each leaf is broadcast against its parameter."""


class Networks(NamedTuple):
    """Weights of the networks of a learned update, of every group."""

    hidden: Float[Array | np.ndarray, "*groups features hidden"]
    bias: Float[Array | np.ndarray, "*groups hidden"]
    output: Float[Array | np.ndarray, "*groups hidden"]


class Correction(NamedTuple):
    """How a learned update corrects the step.

    Attributes:
        networks: of each group of parameters; the last is zero, of those in no group.
        progress: fraction of the training that is done.
    """

    networks: Networks
    progress: Scalar


class Hyper(NamedTuple):
    """What inner step t uses.

    Attributes:
        learning_rate: pytree like the parameters; each leaf is broadcast against its parameter.
        mixture: share of each domain in the training data, sums to one.
        loss_weights: weight of each domain's loss, averages one.
        class_weights: weight of the loss of a token of each of the `TokenClasses`, averages one
            over the training tokens; None where none is tuned.
        optimizer: numbers of the inner optimizer that are tuned, by name: scalars, of weight decay
            a tree like `learning_rate`, None at what doesn't decay. None where none is tuned.
        loss_terms: coefficients of the terms of the loss beside the next token's, scalars by name,
            of those that there are. None for none.
        learned_update: what corrects the optimizer's step; None where nothing does.
        averaging: decay of the average of the parameters after this step; None for no average.
        eps_scale: what Adam's ε is multiplied by for each parameter, and what is added inside of
            the root by its square, a tree like `learning_rate`; None where all have one ε. Nothing
            tunes it: a training that was carried to other sizes asks for it.
        rater: a function of a batch to the weights of its sequences, as `Rating.weights`; the
            leaves of this `Partial` are the network's parameters. None where none is tuned.
    """

    learning_rate: Rates
    mixture: Float[Array, "domains"]
    loss_weights: Float[Array, "domains"]
    class_weights: Float[Array, "classes"] | None = None
    optimizer: Mapping[str, Scalar | Rates] | None = None
    loss_terms: Mapping[str, Scalar] | None = None
    learned_update: Correction | None = None
    rater: jax.tree_util.Partial | None = None
    averaging: Scalar | None = None
    eps_scale: Rates | None = None


class TrainingTokens(NamedTuple):
    """What the training data holds, and how it is drawn.

    Attributes:
        classes: that tokens are put into.
        of_class: predicted tokens of each domain and class.
        mixture: the domains' shares of the tokens, at the recipe's own shares of sequences.
        mixture_is_tuned: whether these are tuned too.
    """

    classes: TokenClasses
    of_class: Int64[np.ndarray, "domains classes"]
    mixture: tuple[float, ...]
    mixture_is_tuned: bool


class Supply(NamedTuple):
    """How much text there is to train on, and how much is read.

    Attributes:
        tokens: of each domain's training split, in whole sequences.
        horizon: that the inner training reads, of all domains together.
    """

    tokens: tuple[int, ...]
    horizon: int


class Setting(NamedTuple):
    """What is tuned for.

    Attributes:
        names: checkpoint names of the model's parameters, `ParameterNames` at the leaves.
        domains: names of the domains.
        steps: horizon of the inner training.
        shapes: the parameters, or their shapes, in a tree like `names`; None where nothing is tuned
            within parameters.
        tokens: what the training data holds; None before it has been read.
        supply: how much of it there is; None likewise.
        optimizer: what trains; None before that is known.
        decaying: as `names`, None at the leaves that don't decay; None for none, or not yet known.
        loss: terms of the training loss; None for none, or not yet known.
        vocab_size: number of tokens; None where no tunable reads them.
        key: for what tunables draw; None where none does.
        seed_key: that of the recipe's seed itself; None likewise.
    """

    names: Names
    domains: tuple[str, ...]
    steps: int
    shapes: Shapes | None = None
    tokens: TrainingTokens | None = None
    supply: Supply | None = None
    optimizer: schema.InnerOptimizerSpec | None = None
    decaying: Names | None = None
    loss: schema.LossSpec | None = None
    vocab_size: int | None = None
    key: Key[Array, ""] | None = None
    seed_key: Key[Array, ""] | None = None


@runtime_checkable
class Tunable(Protocol):
    """One entry of a recipe's `tune`."""

    @property
    def key(self) -> str:
        """The entry's name in the recipe, and that of its slice of η."""
        ...

    @property
    def windows(self) -> int:
        """Stretches of the training with one value each."""
        ...

    def initial(self) -> Slice:
        """The slice of η that leaves the recipe as it is."""
        ...

    def apply(self, eta: Slice, step: StepLike, hyper: Hyper) -> Hyper:
        """Puts this tunable's share into λ_t.

        Args:
            eta: this tunable's slice of η.
            step: inner step t.
            hyper: λ_t as the recipe and the tunables before this one have it.
        """
        ...

    def penalty(self, eta: Slice) -> Scalar:
        """What the search pays for these meta-parameters, besides the objective.

        Zero where the recipe asks for none. No loss that is judged or reported holds it.

        Args:
            eta: this tunable's slice of η.
        """
        ...
