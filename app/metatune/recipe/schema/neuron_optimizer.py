"""The inner optimizer that makes the updates of neurons alike in size."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from metatune.recipe.rules import AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, POSITIVE, ruled
from metatune.recipe.schema.base_schedule import CosineSpec, ScheduleSpec


@dataclass(frozen=True)
class NorMuonSpec:
    """NorMuon (Li et al., 2025) for the matrices of the blocks, AdamW for all else.

    As the authors' code with its iteration in the precision of the parameters: Muon's Nesterov
    momentum, made orthogonal, each neuron's part over the root of its second moment, at the norm
    that it had before, times `sqrt(max(1, outputs / inputs))`. Differentiable, but for a matrix
    whose momentum is zero, which stays where it is and counts as a constant.

    Attributes:
        learning_rate: peak of the base schedule, of NorMuon and AdamW alike.
        schedule: the base schedule, which a tuned learning rate multiplies.
        momentum: decay of the momentum, of the matrices of the blocks.
        nesterov: look ahead along the momentum.
        newton_schulz_steps: iterations that make a matrix orthogonal.
        weight_decay: decoupled decay, multiplied by the learning rate.
        decay: what decays: matrices only, or every parameter.
        b1: decay of the first moment, in AdamW.
        b2: decay of the second moments, of neurons and in AdamW.
        eps: added to the root of the second moment, in AdamW, and to the norm of a momentum.
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
    kind: Literal["normuon"] = "normuon"
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
