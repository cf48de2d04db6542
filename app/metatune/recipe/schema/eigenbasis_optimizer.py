"""The inner optimizer that works in the eigenbases of what gradients gather."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from metatune.recipe.rules import AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, POSITIVE, ruled
from metatune.recipe.schema.base_schedule import CosineSpec, ScheduleSpec


@dataclass(frozen=True)
class SoapSpec:
    """SOAP (Vyas et al., 2024) for the matrices of the blocks, Adam for all else.

    As the authors' code: Adam in the eigenbases of what a matrix's gradients gather on its two
    sides, each layer by itself. The first gradient is only measured, and no parameter moves. Weight
    decay is of a parameter before its step, there after it. Embeddings, the unembedding, and
    experts that share one tensor (gpt-oss) follow Adam; there their sides up to `max_precond_dim`
    are rotated, too. Differentiable, and so are the bases.

    Attributes:
        learning_rate: peak of the base schedule.
        schedule: the base schedule, which a tuned learning rate multiplies.
        weight_decay: decoupled decay, multiplied by the learning rate.
        decay: what decays: matrices only, or every parameter.
        b1: decay of the first moment.
        b2: decay of the second moment, and of what is gathered on the sides.
        eps: added to the root of the second moment.
        eps_root: added under the root, as of adamw.
        precondition_frequency: every how many updates the bases follow.
        max_precond_dim: largest side of a matrix that is rotated.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    TUNABLE: ClassVar[tuple[str, ...]] = ("weight_decay", "b1", "b2", "eps", "clip_norm")
    learning_rate: float = ruled(POSITIVE)
    kind: Literal["soap"] = "soap"
    schedule: ScheduleSpec = field(default_factory=CosineSpec)
    weight_decay: float = ruled(0.01, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    b1: float = ruled(0.95, FRACTION)
    b2: float = ruled(0.95, FRACTION)
    eps: float = ruled(1e-8, NOT_NEGATIVE)
    eps_root: float = ruled(1e-12, POSITIVE)
    precondition_frequency: int = ruled(10, AT_LEAST_ONE)
    max_precond_dim: int = ruled(10_000, AT_LEAST_ONE)
    clip_norm: float | None = ruled(None, POSITIVE)
