"""What a recipe tunes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

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
class WeightDecay:
    """Weight decay as multipliers of the recipe's own, one for each group and window.

    Attributes:
        per: how parameters that decay share it: as of learning rates, all one by default.
        windows: stretches of the training with one value each, of equal length.
    """

    per: Literal["global", "layer", "tensor"] | tuple[str, ...] | Mapping[str, str] = "global"
    windows: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class TunedField:
    """A number of the optimizer, one for each window.

    Attributes:
        windows: stretches of the training with one value each, of equal length.
    """

    windows: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class OptimizerFields:
    """Numbers of the inner optimizer, by their names there, starting from what they are there.

    What is positive is multiplied; of a decay β the odds β / (1 - β) are, about how many steps it
    remembers, so that it stays between 0 and 1. What starts from zero can't be multiplied.

    Attributes:
        weight_decay: of the parameters that decay.
        momentum: decay of the trace or first moment of gradients.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        clip_norm: largest global norm of the gradient.
    """

    weight_decay: WeightDecay | None = None
    momentum: TunedField | None = None
    b1: TunedField | None = None
    b2: TunedField | None = None
    eps: TunedField | None = None
    clip_norm: TunedField | None = None


@dataclass(frozen=True)
class Tune:
    """What is tuned: at least one."""

    learning_rates: LearningRates | None = None
    mixture: Mixture | None = None
    loss_weights: LossWeights | None = None
    optimizer: OptimizerFields | None = None

    def entries(self) -> Iterator[tuple[str, str, Any]]:
        """Key, dotted path and settings of everything that is tuned by a slice of η of its own."""
        for field in fields(self):
            settings = getattr(self, field.name)
            if isinstance(settings, OptimizerFields):
                for inner in fields(settings):
                    if (own := getattr(settings, inner.name)) is not None:
                        yield inner.name, f"tune.optimizer.{inner.name}", own
            elif settings is not None:
                yield field.name, f"tune.{field.name}", settings
