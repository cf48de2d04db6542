"""What a recipe tunes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Literal

from metatune.recipe.rules import (
    ABOVE_ONE,
    AT_LEAST_ONE,
    BUCKETS,
    DECAYS,
    FOUR_TO_SIXTEEN,
    FRACTION,
    HIDDEN,
    INNER_FRACTION,
    MORE_THAN_ONE,
    NOT_EMPTY,
    NOT_NEGATIVE,
    POSITIVE,
    ruled,
)
from metatune.recipe.schema.inner import MULTI_TOKEN_TERM

Per = Literal["global", "layer", "tensor", "kind", "layer_kind", "row", "column", "element"]
PerElement = Literal["row", "column", "element"]

Shares = Mapping[str, float]
"""By domain; normalised to sum to one."""


@dataclass(frozen=True)
class SharingSpec:
    """Adaptive sharing: one rate for all groups and windows at first, split where they pull apart.

    What shares a rate gets the sum of its hypergradients, penalties included, before clipping.
    After every period it is split in two where both sides' hypergradients, in the mean over the
    period's outer steps, are of opposite signs and both large beside their standard errors: between
    windows; between kinds of parameters, then between layers of a kind, then one by one. A split is
    taken back where values differ by no more than they waver and hypergradients pull them together;
    then both sides get the mean of their values and of the outer optimizer's state.

    It saves noise, not work: hypergradients are always of all groups and windows. That costs
    nothing in reverse mode; forward mode, and random directions, pay for the finest resolution.
    Of a population all members need one outer optimizer (`adam: shared`).

    Attributes:
        every: outer steps of a period. N steps can tell probabilities down to `2^(1 - N)`.
        threshold: how rarely noise alone may pull apart as far, of a rate that is right for all
            that share it, in standard deviations of a normal distribution, one-sided: 1.5 is 6.7 %
            of periods, for each shared rate. A split is only taken back where the mean difference
            of the values over a period is within so many of its own standard deviations there.
    """

    every: int = ruled(5, FOUR_TO_SIXTEEN)
    threshold: float = ruled(1.5, POSITIVE)


@dataclass(frozen=True)
class LearningRatesSpec:
    """Learning rates as multipliers of the base schedule, one for each group and window.

    Attributes:
        per: how parameters share a rate: all one (global), by layer, each tensor its own, by what
            they are for (kind: attention, mlp, norm, embedding, head), by that in each layer
            (layer_kind), or groups by regular expression on checkpoint names (a list, or names
            with expressions; the first that is found in a name takes it, parameters of no group
            keep the base rate). Or within tensors: a rate for each output of a matrix (row: axis
            0 of a checkpoint's [out, in]), for each input (column: axis 1; GPT-2 keeps matrices
            as [in, out], with the axes the other way round), or for each element. An embedding is
            [tokens, features]. A vector's rows are its elements; it has one column.
        windows: stretches of the training with one value each, of equal length; or knots.
        interpolation: how multipliers go on from their knots: constant within windows, or linear,
            on lines between knots that are evenly spread from the first step to the last.
        max_multiplier: M, that no multiplier reaches, nor one over it: η moves its logarithm to
            `log M tanh(η / log M)`, of slope one at the start; null for no bound.
        smoothness: weight of a penalty on the outer objective, the mean over cells and
            neighbouring windows of the squared difference of log multipliers.
        prior: weight of a penalty on the outer objective, the mean over cells and windows of the
            squared log multiplier: it draws multipliers towards one.
        sharing: start with one multiplier for all, and split where it pays; null for one for each
            group and window from the start.
    """

    per: Per | tuple[str, ...] | Mapping[str, str] = "tensor"
    windows: int = ruled(1, AT_LEAST_ONE)
    interpolation: Literal["constant", "linear"] = "constant"
    max_multiplier: float | None = ruled(None, ABOVE_ONE)
    smoothness: float = ruled(0.0, NOT_NEGATIVE)
    prior: float = ruled(0.0, NOT_NEGATIVE)
    sharing: SharingSpec | None = None


@dataclass(frozen=True)
class MixtureSpec:
    """Shares of the domains in the training batches, one simplex for each window.

    Attributes:
        windows: stretches of the training with one mixture each, of equal length.
        floor: smallest share of any domain.
        initial: shares to start from, by domain; uniform by default.
        max_epochs: caps each domain's share, in every window, at that at which a production
            training reads its text so many times: `max_epochs * its tokens / production_tokens`.
            That no window exceeds it is more than enough for the training not to.
        production_tokens: that the tuned training will read; null for those of the inner training.
        available_tokens: that a production training has, by domain; for those that aren't named,
            what is trained on here.
        groups: domains by the group that they belong to, e.g. topics of one source: the search
            moves the shares of the groups, and the shares within them. A domain that isn't named
            makes a group by itself.
        prior: shares that `kl` draws towards; `initial` by default.
        kl: penalty for the distance from the prior, in nats of loss for a nat of `KL(p ‖ prior)`,
            the mean over the windows.
        smoothness: penalty for changes from window to window, in nats of loss for a `Σ_d (p_d' -
            p_d)²` of one, the mean over neighbours.
    """

    windows: int = ruled(1, AT_LEAST_ONE)
    floor: float = ruled(0.0, FRACTION)
    initial: Shares | None = None
    max_epochs: float | None = ruled(None, POSITIVE)
    production_tokens: int | None = ruled(None, AT_LEAST_ONE)
    available_tokens: Mapping[str, int] | None = None
    groups: Mapping[str, tuple[str, ...]] | None = None
    prior: Shares | None = None
    kl: float = ruled(0.0, NOT_NEGATIVE)
    smoothness: float = ruled(0.0, NOT_NEGATIVE)


DEFAULT_BUCKETS: Final = 4


@dataclass(frozen=True)
class LossWeightsSpec:
    """Weights in the training loss, normalised so that they can't stand in for a learning rate.

    Attributes:
        per: what a weight belongs to: a domain, whose weights average one over the domains; or a
            class of tokens, whose weights average one over the training tokens at the mixture that
            the recipe starts with. A sequence's loss is Σ w l / n over its n predicted tokens.
            Tokens are in a class by the part of a document that they are of (class: text, prompt,
            completion, system, tool, those that occur in the training data), by the label of that
            document (label, as `data.domains` say which column holds it), by where in the
            sequence they stand (position: position_1, position_2, ..., equal stretches), or by how
            frequent they are in the training data at that mixture (frequency: frequency_1 for the
            most frequent, each bucket with about as many training tokens).
        windows: stretches of the training with one set of weights each, of equal length.
        initial: weights to start from, by domain or class, normalised likewise; one for those that
            aren't named.
        buckets: how many classes of positions or frequencies; null for 4 of them.
    """

    per: Literal["domain", "class", "label", "position", "frequency"] = "domain"
    windows: int = ruled(1, AT_LEAST_ONE)
    initial: Mapping[str, float] | None = None
    buckets: int | None = ruled(None, BUCKETS)

    @property
    def bucket_names(self) -> tuple[str, ...]:
        """The classes of positions or frequencies, in their order."""
        count = self.buckets or DEFAULT_BUCKETS
        return tuple(f"{self.per}_{number}" for number in range(1, count + 1))


@dataclass(frozen=True)
class WeightDecaySpec:
    """Weight decay as multipliers of the recipe's own, one for each group and window.

    Attributes:
        per: how parameters that decay share it: as of learning rates, all one by default.
        windows: stretches of the training with one value each, of equal length.
    """

    per: Literal["global", "layer", "tensor"] | tuple[str, ...] | Mapping[str, str] = "global"
    windows: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class TunedFieldSpec:
    """A number of the optimizer or of the loss, one for each window.

    Attributes:
        windows: stretches of the training with one value each, of equal length.
    """

    windows: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class OptimizerFieldsSpec:
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

    weight_decay: WeightDecaySpec | None = None
    momentum: TunedFieldSpec | None = None
    b1: TunedFieldSpec | None = None
    b2: TunedFieldSpec | None = None
    eps: TunedFieldSpec | None = None
    clip_norm: TunedFieldSpec | None = None


@dataclass(frozen=True)
class LossTermsSpec:
    """Coefficients of `inner.loss`, by their names there, starting from what they are there.

    The weight of the next token's term is the unit, and isn't tuned. What starts from zero can't
    be moved.

    Attributes:
        z_loss: is multiplied.
        multi_token_prediction: its weight, is multiplied.
        router_balance: is multiplied.
        label_smoothing: ε, whose odds ε / (1 - ε) are multiplied, so that it stays between 0 and 1.
    """

    z_loss: TunedFieldSpec | None = None
    label_smoothing: TunedFieldSpec | None = None
    multi_token_prediction: TunedFieldSpec | None = None
    router_balance: TunedFieldSpec | None = None


@dataclass(frozen=True)
class LearnedUpdateSpec:
    """Small networks that correct the optimizer's step, element by element.

    Each element of a step is multiplied by a number between `1 / max_multiplier` and
    `max_multiplier`, which a network with one hidden layer makes of what it sees of that element:
    its gradient, moments of it, its value, the optimizer's own direction, and how far the training
    is. At the start all these numbers are one.

    Attributes:
        per: parameters that share a network: all one (global), by what they are for (kind), by
            layer, by kind in each layer (layer_kind), each tensor its own, or groups by regular
            expression as of learning rates; parameters of no group keep the optimizer's step.
        hidden_size: of the networks.
        decays: of the moments of the gradient that the networks see. Each is as large as the
            parameters, and so is a second moment.
        max_multiplier: M, that no number reaches, nor one over it: the network's output o becomes
            `exp(log M tanh(o / log M))`.
        step_size: learned, or kept: then a corrected step has the root-mean-square of the
            optimizer's own over each tensor, so that learning rates alone say how large it is;
            what brings it there may move a number beyond M.
    """

    per: (
        Literal["global", "kind", "layer", "layer_kind", "tensor"]
        | tuple[str, ...]
        | Mapping[str, str]
    ) = "kind"
    hidden_size: int = ruled(8, HIDDEN)
    decays: tuple[float, ...] = ruled((0.1, 0.5, 0.9, 0.99, 0.999), DECAYS)
    max_multiplier: float = ruled(4.0, MORE_THAN_ONE)
    step_size: Literal["learned", "kept"] = "learned"

    @property
    def windows(self) -> int:
        """One: that the training moves on is among what the networks see."""
        return 1


@dataclass(frozen=True)
class AveragingSpec:
    """An exponential moving average of the parameters, θ̄' = β θ̄ + (1 - β) θ' after each update.

    The average is what is judged, reported and kept, with η = 0 too; what is tuned is β, whose odds
    β / (1 - β) are multiplied, so that it stays between 0 and 1.

    Attributes:
        windows: stretches of the averaged part of the training with one β each, of equal length.
        start: from where on the average is taken, a fraction of training; it is the parameters
            themselves up to there.
        decay: β to start from.
    """

    windows: int = ruled(1, AT_LEAST_ONE)
    start: float = ruled(0.0, FRACTION)
    decay: float = ruled(0.99, INNER_FRACTION)


@dataclass(frozen=True)
class PointSpec:
    """The point that every training starts from, tuned weight by weight (MAML, Finn et al., 2017).

    What is tuned is an offset, zero at first, on what the recipe starts from: the pretrained
    weights, or one draw from the recipe's seed, then the same for every training. Of online
    windows those that begin a training move it, the others leave it.

    Attributes:
        parameters: regular expressions, searched for in checkpoint names: what of the trained
            parameters is moved; null for all.
    """

    kind: Literal["point"] = "point"
    parameters: tuple[str, ...] | None = ruled(None, NOT_EMPTY)
    windows: ClassVar[int] = 1


@dataclass(frozen=True)
class InterpolationSpec:
    """A start between checkpoints, `θ_0 = θ + Σ_i α_i (θ_i - θ)` of trained parameters.

    θ are the weights of `model.pretrained`, θ_i those of the further checkpoints; each α_i is zero
    at first, and may leave [0, 1]: a tuned model soup (Wortsman et al., 2022).

    Attributes:
        checkpoints: folders or hub ids of models with the same parameters, one or more.
        per: how parameters share the α_i: as of learning rates, all one by default; parameters of
            no group stay those of `model.pretrained`.
    """

    checkpoints: tuple[str, ...] = ruled(NOT_EMPTY)
    kind: Literal["interpolation"] = "interpolation"
    per: (
        Literal["global", "layer", "tensor", "kind", "layer_kind"]
        | tuple[str, ...]
        | Mapping[str, str]
    ) = "global"
    windows: ClassVar[int] = 1


InitialisationSpec = PointSpec | InterpolationSpec


@dataclass(frozen=True)
class MlpRaterSpec:
    """A rater that sees each token with the one before it, and takes the mean over the sequence.

    Attributes:
        hidden_size: width of the network.
        layers: how many blocks it has.
        temperature: of the softmax: the larger, the more even the weights.
    """

    kind: Literal["mlp"] = "mlp"
    hidden_size: int = ruled(32, AT_LEAST_ONE)
    layers: int = ruled(1, AT_LEAST_ONE)
    temperature: float = ruled(1.0, POSITIVE)


@dataclass(frozen=True)
class TransformerRaterSpec:
    """A rater that also compares the places of a sequence with each other, by attention.

    Attributes:
        hidden_size: width of the network, a multiple of `heads`.
        layers: how many blocks it has.
        heads: of the attention.
        temperature: of the softmax: the larger, the more even the weights.
    """

    kind: Literal["transformer"] = "transformer"
    hidden_size: int = ruled(32, AT_LEAST_ONE)
    layers: int = ruled(1, AT_LEAST_ONE)
    heads: int = ruled(2, AT_LEAST_ONE)
    temperature: float = ruled(1.0, POSITIVE)


RaterSpec = TransformerRaterSpec | MlpRaterSpec
"""A small network that scores the sequences of a batch: those worth learning weigh more.

The weights of a batch of B sequences are `B softmax(scores / temperature)`. They average one, so
that they can't stand in for a learning rate: a sequence weighs more at the expense of the others of
its batch. All begin at one. A rater stays the same for the whole training.

A rater that tells the domains apart can do what a single window of loss weights of domains does:
tune those beside it where they are to move over training. A mixture decides what is drawn, the
rater how much of what was drawn is learned: the weights average one over what the mixture draws.
"""


KEYS: Final[Mapping[str, str]] = {"multi_token_prediction": MULTI_TOKEN_TERM}
"""The keys of tunables whose fields have another name."""


def keyed(named: Mapping[str, float]) -> dict[str, float]:
    """Numbers by entry of `tune`, by the keys of the tunables."""
    return {KEYS.get(name, name): number for name, number in named.items()}


@dataclass(frozen=True)
class TuneSpec:
    """What is tuned: at least one."""

    learning_rates: LearningRatesSpec | None = None
    mixture: MixtureSpec | None = None
    loss_weights: LossWeightsSpec | None = None
    optimizer: OptimizerFieldsSpec | None = None
    loss_terms: LossTermsSpec | None = None
    initialisation: InitialisationSpec | None = None
    learned_update: LearnedUpdateSpec | None = None
    rater: RaterSpec | None = None
    averaging: AveragingSpec | None = None

    def entries(self) -> Iterator[tuple[str, str, Any]]:
        """Key, dotted path and settings of everything that is tuned by a slice of η of its own."""
        for field in fields(self):
            settings = getattr(self, field.name)
            if isinstance(settings, OptimizerFieldsSpec | LossTermsSpec):
                for inner in fields(settings):
                    if (own := getattr(settings, inner.name)) is not None:
                        key = KEYS.get(inner.name, inner.name)
                        yield key, f"tune.{field.name}.{inner.name}", own
            elif settings is not None:
                yield field.name, f"tune.{field.name}", settings
