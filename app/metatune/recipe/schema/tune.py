"""What a recipe tunes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from metatune.recipe.rules import AT_LEAST_ONE, FRACTION, ruled


@dataclass(frozen=True)
class LearningRates:
    """Learning rates as multipliers of the base schedule, one for each group and window.

    Attributes:
        per: how parameters share a rate: all one, by layer, each tensor its own, or groups by
            regular expression on checkpoint names (a list, or names with expressions; the first
            that is found in a name takes it, parameters of no group keep the base rate).
        windows: stretches of the training with one value each, of equal length.
    """

    per: Literal["global", "layer", "tensor"] | tuple[str, ...] | Mapping[str, str] = "tensor"
    windows: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class Mixture:
    """Shares of the domains in the training batches, one simplex for each window.

    Attributes:
        windows: stretches of the training with one mixture each, of equal length.
        floor: smallest share of any domain.
        initial: shares to start from, by domain; uniform by default.
    """

    windows: int = ruled(1, AT_LEAST_ONE)
    floor: float = ruled(0.0, FRACTION)
    initial: Mapping[str, float] | None = None


@dataclass(frozen=True)
class LossWeights:
    """Weights in the training loss, normalised so that they can't stand in for a learning rate.

    Attributes:
        per: what a weight belongs to: a domain, whose weights average one over the domains; or a
            class of tokens (text, prompt, completion, system, tool) that occurs in the training
            data, whose weights average one over its tokens at the mixture that the recipe starts
            with. A sequence's loss is Σ w l / n over its n predicted tokens.
        windows: stretches of the training with one set of weights each, of equal length.
        initial: weights to start from, by domain or class, normalised likewise; one for those that
            aren't named.
    """

    per: Literal["domain", "class"] = "domain"
    windows: int = ruled(1, AT_LEAST_ONE)
    initial: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Tune:
    """What is tuned: at least one."""

    learning_rates: LearningRates | None = None
    mixture: Mixture | None = None
    loss_weights: LossWeights | None = None
