"""What a recipe says of the inner training: its optimizer, schedule and trained parameters."""

from dataclasses import dataclass, field
from typing import Literal

from metatune.recipe.rules import AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, POSITIVE, ruled


@dataclass(frozen=True)
class Constant:
    """A base rate that stays, after a linear warmup over `warmup` (fraction of inner steps)."""

    kind: Literal["constant"] = "constant"
    warmup: float = ruled(0.0, FRACTION)


@dataclass(frozen=True)
class Cosine:
    """A linear warmup, then half a cosine down to `final` (fraction of the peak rate)."""

    kind: Literal["cosine"] = "cosine"
    warmup: float = ruled(0.05, FRACTION)
    final: float = ruled(0.1, FRACTION)


@dataclass(frozen=True)
class WarmupStableDecay:
    """Warmup, plateau, then a linear decay over the last `decay` (fraction of inner steps)."""

    kind: Literal["wsd"] = "wsd"
    warmup: float = ruled(0.05, FRACTION)
    decay: float = ruled(0.2, FRACTION)
    final: float = ruled(0.1, FRACTION)


Schedule = Constant | Cosine | WarmupStableDecay


@dataclass(frozen=True)
class AdamW:
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

    learning_rate: float = ruled(POSITIVE)
    kind: Literal["adamw"] = "adamw"
    schedule: Schedule = field(default_factory=Cosine)
    weight_decay: float = ruled(0.1, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    b1: float = ruled(0.9, FRACTION)
    b2: float = ruled(0.95, FRACTION)
    eps: float = ruled(1e-8, NOT_NEGATIVE)
    eps_root: float = ruled(1e-12, POSITIVE)
    clip_norm: float | None = ruled(1.0, POSITIVE)


@dataclass(frozen=True)
class SGD:
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

    learning_rate: float = ruled(POSITIVE)
    kind: Literal["sgd"] = "sgd"
    schedule: Schedule = field(default_factory=Cosine)
    momentum: float = ruled(0.9, FRACTION)
    nesterov: bool = False
    weight_decay: float = ruled(0.0, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    clip_norm: float | None = ruled(1.0, POSITIVE)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al., 2022): `W + (alpha / rank) B A`, W frozen, A and B trained.

    Attributes:
        targets: regular expressions, searched for in checkpoint names: the matrices of the blocks
            that get an adapter.
        rank: of B A.
        alpha: the adapters' weight, over the rank.
    """

    targets: tuple[str, ...]
    rank: int = ruled(8, AT_LEAST_ONE)
    alpha: float = ruled(16.0, POSITIVE)


@dataclass(frozen=True)
class Inner:
    """The training that is tuned: `steps` updates of `optimizer`.

    Attributes:
        optimizer: what turns gradients into updates.
        steps: inner steps of a whole training, which the schedules run over.
        micro_batch: sequences of a batch that are computed at a time, their gradients summed: less
            memory, the same update to rounding; null for all. Must divide data.batch_size.
        train: regular expressions, searched for in checkpoint names: the parameters that are
            trained; all others are frozen, those of a fresh model as they are drawn once from the
            recipe's seed. Null for all, or with lora for the adapters alone.
        lora: adapters beside frozen matrices; null for none.
    """

    optimizer: AdamW | SGD
    steps: int = ruled(AT_LEAST_ONE)
    micro_batch: int | None = ruled(None, AT_LEAST_ONE)
    train: tuple[str, ...] | None = None
    lora: Lora | None = None
