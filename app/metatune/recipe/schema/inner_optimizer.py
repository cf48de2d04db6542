"""Inner optimizers of a recipe."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from metatune.recipe.rules import (
    AT_LEAST_ONE,
    FRACTION,
    INNER_FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    ValueRule,
    ruled,
)
from metatune.recipe.schema.base_schedule import ConstantSpec, CosineSpec, ScheduleSpec
from metatune.recipe.schema.eigenbasis_optimizer import SoapSpec
from metatune.recipe.schema.neuron_optimizer import NorMuonSpec


@dataclass(frozen=True)
class AdamWSpec:
    """AdamW (Loshchilov & Hutter, 2019), as `optax.adamw`.

    Attributes:
        learning_rate: peak of the base schedule.
        schedule: the base schedule, which a tuned learning rate multiplies.
        weight_decay: decoupled decay, multiplied by the learning rate.
        decay: what decays: matrices only, or every parameter.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        eps_root: added under the root; must be positive, or the hypergradient of a parameter
            whose gradient is zero is not a number.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    TUNABLE: ClassVar[tuple[str, ...]] = ("weight_decay", "b1", "b2", "eps", "clip_norm")
    learning_rate: float = ruled(POSITIVE)
    kind: Literal["adamw"] = "adamw"
    schedule: ScheduleSpec = field(default_factory=CosineSpec)
    weight_decay: float = ruled(0.1, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    b1: float = ruled(0.9, FRACTION)
    b2: float = ruled(0.95, FRACTION)
    eps: float = ruled(1e-8, NOT_NEGATIVE)
    eps_root: float = ruled(1e-12, POSITIVE)
    clip_norm: float | None = ruled(1.0, POSITIVE)


@dataclass(frozen=True)
class AdoptSpec:
    """ADOPT (Taniguchi et al., 2024), as `optax.contrib.adopt`, with decoupled weight decay.

    A gradient is divided by the root of the second moment of those before it, and clipped, before
    it enters the first: it converges with any b2. The first update measures the second moment, and
    no parameter steps but by weight decay. A clipped element counts as a constant in
    hypergradients, as do most where b2 leaves the second moment far behind.

    Attributes:
        learning_rate: peak of the base schedule.
        schedule: the base schedule, which a tuned learning rate multiplies.
        weight_decay: decoupled decay, multiplied by the learning rate.
        decay: what decays: matrices only, or every parameter.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: the least that a gradient is divided by; a gradient that was zero so far has no other.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    TUNABLE: ClassVar[tuple[str, ...]] = ("weight_decay", "b1", "b2", "eps", "clip_norm")
    learning_rate: float = ruled(POSITIVE)
    kind: Literal["adopt"] = "adopt"
    schedule: ScheduleSpec = field(default_factory=CosineSpec)
    weight_decay: float = ruled(0.1, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    b1: float = ruled(0.9, FRACTION)
    b2: float = ruled(0.9999, FRACTION)
    # Its square is held against squares of gradients, in single precision.
    eps: float = ruled(1e-6, ValueRule(lambda value: value >= 1e-15, "1e-15 or above"))
    clip_norm: float | None = ruled(None, POSITIVE)


@dataclass(frozen=True)
class SGDSpec:
    """Stochastic gradient descent with momentum, as `optax.sgd` after `add_decayed_weights`.

    Attributes:
        learning_rate: peak of the base schedule.
        schedule: the base schedule, which a tuned learning rate multiplies.
        momentum: decay of the trace of gradients.
        nesterov: look ahead along the momentum.
        weight_decay: decay added to the gradient (after clipping, before momentum, as PyTorch).
        decay: what decays: matrices only, or every parameter.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    TUNABLE: ClassVar[tuple[str, ...]] = ("weight_decay", "momentum", "clip_norm")
    learning_rate: float = ruled(POSITIVE)
    kind: Literal["sgd"] = "sgd"
    schedule: ScheduleSpec = field(default_factory=CosineSpec)
    momentum: float = ruled(0.9, FRACTION)
    nesterov: bool = False
    weight_decay: float = ruled(0.0, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    clip_norm: float | None = ruled(1.0, POSITIVE)


@dataclass(frozen=True)
class LionSpec:
    """Lion (Chen et al., Symbolic Discovery of Optimization Algorithms, 2023), as `optax.lion`.

    Its sign has no derivative but zero: a hypergradient through Lion holds how far each step goes
    and what decays, which is all there is almost everywhere, and nothing of how gradients change.
    So neither what weighs the data nor what makes the sign can be tuned by differentiation.

    Attributes:
        learning_rate: peak of the base schedule.
        schedule: the base schedule, which a tuned learning rate multiplies.
        weight_decay: decoupled decay, multiplied by the learning rate.
        decay: what decays: matrices only, or every parameter.
        b1: share of the momentum, beside the gradient, in what the sign is taken of.
        b2: decay of the momentum.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    TUNABLE: ClassVar[tuple[str, ...]] = ("weight_decay",)
    learning_rate: float = ruled(POSITIVE)
    kind: Literal["lion"] = "lion"
    schedule: ScheduleSpec = field(default_factory=CosineSpec)
    weight_decay: float = ruled(0.1, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    b1: float = ruled(0.9, FRACTION)
    b2: float = ruled(0.99, FRACTION)
    clip_norm: float | None = ruled(None, POSITIVE)


@dataclass(frozen=True)
class MuonSpec:
    """Muon (Jordan et al., 2024) for the matrices of the blocks, AdamW for all else.

    As `optax.contrib.muon`, each layer's matrix by itself: Nesterov momentum, made orthogonal by
    Newton-Schulz iterations, times `sqrt(max(1, outputs / inputs))`. AdamW is plain, where that of
    `optax.contrib.muon` looks ahead as well. Differentiable, but for a matrix whose momentum is
    zero, which stays where it is and counts as a constant.

    Attributes:
        learning_rate: peak of the base schedule, of Muon and AdamW alike.
        schedule: the base schedule, which a tuned learning rate multiplies.
        momentum: decay of Muon's first moment.
        nesterov: look ahead along the momentum, in Muon.
        newton_schulz_steps: iterations that make a matrix orthogonal.
        weight_decay: decoupled decay, multiplied by the learning rate.
        decay: what decays: matrices only, or every parameter.
        b1: decay of the first moment, in AdamW.
        b2: decay of the second moment, in AdamW.
        eps: added to the root of the second moment, and to the norm of a matrix.
        eps_root: added under the root, as of adamw.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    TUNABLE: ClassVar[tuple[str, ...]] = (
        "weight_decay",
        "momentum",
        "b1",
        "b2",
        "eps",
        "clip_norm",
    )
    learning_rate: float = ruled(POSITIVE)
    kind: Literal["muon"] = "muon"
    schedule: ScheduleSpec = field(default_factory=CosineSpec)
    momentum: float = ruled(0.95, FRACTION)
    nesterov: bool = True
    newton_schulz_steps: int = ruled(5, AT_LEAST_ONE)
    weight_decay: float = ruled(0.1, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    b1: float = ruled(0.9, FRACTION)
    b2: float = ruled(0.95, FRACTION)
    eps: float = ruled(1e-8, NOT_NEGATIVE)
    eps_root: float = ruled(1e-12, POSITIVE)
    clip_norm: float | None = ruled(None, POSITIVE)


@dataclass(frozen=True)
class AdafactorSpec:
    """Adafactor (Shazeer & Stern, 2018), as `optax.adafactor`, each layer's tensor by itself.

    Unlike there, weight decay is multiplied by the learning rate. Differentiable, but for a tensor
    whose gradient is zero, which stays where it is and counts as a constant.

    Attributes:
        learning_rate: peak of the base schedule; a fraction of a parameter's own size where
            `scale_by_parameter` holds.
        schedule: the base schedule, which a tuned learning rate multiplies.
        decay_rate: the second moment of update t decays by `1 - t ** -decay_rate`.
        clipping_threshold: largest root mean square of a tensor's update; null for no clipping.
        scale_by_parameter: whether updates are multiplied by the parameter's root mean square.
        min_dim_size_to_factor: smallest side of a matrix whose second moment is factored.
        eps: added to the square of the gradient; where it is too small, the hypergradient of a
            parameter whose gradient is zero is not a number.
        weight_decay: decoupled decay, multiplied by the learning rate.
        decay: what decays: matrices only, or every parameter.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    TUNABLE: ClassVar[tuple[str, ...]] = ("weight_decay", "clip_norm")
    learning_rate: float = ruled(POSITIVE)
    kind: Literal["adafactor"] = "adafactor"
    schedule: ScheduleSpec = field(default_factory=CosineSpec)
    decay_rate: float = ruled(0.8, FRACTION)
    clipping_threshold: float | None = ruled(1.0, POSITIVE)
    scale_by_parameter: bool = True
    min_dim_size_to_factor: int = ruled(128, AT_LEAST_ONE)
    eps: float = ruled(1e-20, ValueRule(lambda value: value >= 1e-24, "1e-24 or above"))
    weight_decay: float = ruled(0.0, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    clip_norm: float | None = ruled(None, POSITIVE)


@dataclass(frozen=True)
class ScheduleFreeAdamWSpec:
    """Schedule-free AdamW (Defazio et al., The Road Less Scheduled, 2024).

    As `optax.contrib.schedule_free_adamw`, each tensor averaged by its own learning rates. What is
    trained is `y = b1 x + (1 - b1) z`, what is measured and kept the average x. Differentiable.

    Attributes:
        learning_rate: peak of the base schedule.
        schedule: the base schedule, which a tuned learning rate multiplies: no decay is needed.
        b1: share of the average x in y.
        b2: decay of the second moment.
        weight_lr_power: a step counts in the average by the largest rate so far to this power.
        eps: added to the root of the second moment.
        eps_root: added under the root, as of adamw.
        weight_decay: decoupled decay at y, multiplied by the learning rate.
        decay: what decays: matrices only, or every parameter.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    TUNABLE: ClassVar[tuple[str, ...]] = ("weight_decay", "b2", "eps", "clip_norm")
    learning_rate: float = ruled(POSITIVE)
    kind: Literal["schedule_free_adamw"] = "schedule_free_adamw"
    schedule: ScheduleSpec = field(default_factory=lambda: ConstantSpec(warmup=0.05))
    b1: float = ruled(0.9, INNER_FRACTION)
    b2: float = ruled(0.95, FRACTION)
    weight_lr_power: float = ruled(2.0, NOT_NEGATIVE)
    eps: float = ruled(1e-8, NOT_NEGATIVE)
    eps_root: float = ruled(1e-12, POSITIVE)
    weight_decay: float = ruled(0.1, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    clip_norm: float | None = ruled(None, POSITIVE)


@dataclass(frozen=True)
class AdamHSpec:
    """AdamH (Wen et al., Hyperball Optimization, 2026): Adam whose matrices keep their norm.

    Each matrix W of the blocks, and an unembedding that isn't tied, turns by the learning rate:
    `W' = R normalise(W - rate R normalise(u))` with R its Frobenius norm and u Adam's update.
    Embeddings, norms, biases, and experts that share one tensor (gpt-oss), take Adam's steps. As
    `adamH` of Levanter, but that there is one base rate (tune learning rates by kind to tell them
    apart) and one norm that gradients are clipped to. A matrix of zeros, or without a gradient,
    stays.

    Attributes:
        learning_rate: peak of the base schedule; of a matrix the share of its norm that it moves.
        schedule: the base schedule, which a tuned learning rate multiplies.
        weight_decay: decoupled decay, multiplied by the learning rate, of what doesn't keep its
            norm.
        decay: what decays of these: matrices only, or every parameter.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        eps_root: added under the root, as of adamw.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    TUNABLE: ClassVar[tuple[str, ...]] = ("weight_decay", "b1", "b2", "eps", "clip_norm")
    learning_rate: float = ruled(POSITIVE)
    kind: Literal["adamh"] = "adamh"
    schedule: ScheduleSpec = field(default_factory=CosineSpec)
    weight_decay: float = ruled(0.0, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    b1: float = ruled(0.9, FRACTION)
    b2: float = ruled(0.95, FRACTION)
    eps: float = ruled(1e-8, NOT_NEGATIVE)
    eps_root: float = ruled(1e-12, POSITIVE)
    clip_norm: float | None = ruled(1.0, POSITIVE)


@dataclass(frozen=True)
class MuonHSpec:
    """MuonH (Wen et al., Hyperball Optimization, 2026): Muon whose matrices keep their norm.

    As adamh, but that u of the matrices of the blocks is their Nesterov momentum, made orthogonal.
    As `muonH` of Levanter, with the same two exceptions.

    Attributes:
        learning_rate: peak of the base schedule; of a matrix the share of its norm that it moves.
        schedule: the base schedule, which a tuned learning rate multiplies.
        momentum: decay of the trace of gradients, of the matrices of the blocks.
        nesterov: look ahead along the momentum.
        newton_schulz_steps: iterations that make a matrix orthogonal.
        weight_decay: decoupled decay, multiplied by the learning rate, of what doesn't keep its
            norm.
        decay: what decays of these: matrices only, or every parameter.
        b1: decay of the first moment, in Adam.
        b2: decay of the second moment, in Adam.
        eps: added to the root of the second moment, and to the norm of a momentum.
        eps_root: added under the root, as of adamw.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    TUNABLE: ClassVar[tuple[str, ...]] = (
        "weight_decay",
        "momentum",
        "b1",
        "b2",
        "eps",
        "clip_norm",
    )
    learning_rate: float = ruled(POSITIVE)
    kind: Literal["muonh"] = "muonh"
    schedule: ScheduleSpec = field(default_factory=CosineSpec)
    momentum: float = ruled(0.95, FRACTION)
    nesterov: bool = True
    newton_schulz_steps: int = ruled(5, AT_LEAST_ONE)
    weight_decay: float = ruled(0.0, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    b1: float = ruled(0.9, FRACTION)
    b2: float = ruled(0.95, FRACTION)
    eps: float = ruled(1e-8, NOT_NEGATIVE)
    eps_root: float = ruled(1e-12, POSITIVE)
    clip_norm: float | None = ruled(1.0, POSITIVE)


SingleOptimizerSpec = (
    AdamWSpec
    | SGDSpec
    | LionSpec
    | MuonSpec
    | AdafactorSpec
    | ScheduleFreeAdamWSpec
    | AdoptSpec
    | AdamHSpec
    | MuonHSpec
    | SoapSpec
    | NorMuonSpec
)
"""One optimizer for all parameters. `TUNABLE` are those of its fields that can be tuned."""
