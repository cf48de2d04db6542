"""How hypergradients are estimated, by what a recipe says."""

from dataclasses import dataclass, field
from typing import Literal

from metatune.recipe.rules import AT_LEAST_ONE, AT_LEAST_ONE_OR_NAMED, POSITIVE, ruled


@dataclass(frozen=True)
class CheckpointsSpec:
    """What is kept of the inner training between the forward and the backward sweep.

    Attributes:
        keep: which states between segments: all; sqrt, each √n-th of n segments; a number k, each
            k-th; recursive, at most `slots` at a time; or auto, whatever recomputes least within
            the budget. What isn't kept is recomputed: the same hypergradient, bit for bit, in less
            memory and more time.
        slots: states kept at a time besides the first, of `keep: recursive` only.
        store: where they are kept: device, host (memory) or disk (the run folder).
        budget_bytes: how much may lie there at a time: of each device for `store: device`; of each
            host for the others, which is to say of all devices of a process together. Null for no
            limit but that of the place; of `keep: auto` for half of what is free there.
    """

    keep: Literal["all", "sqrt", "recursive", "auto"] | int = ruled("auto", AT_LEAST_ONE_OR_NAMED)
    slots: int = ruled(8, AT_LEAST_ONE)
    store: Literal["device", "host", "disk"] = "device"
    budget_bytes: int | None = ruled(None, AT_LEAST_ONE)


@dataclass(frozen=True)
class DampingSpec:
    """A cap on how the adjoint, the derivative in the state, grows on its way back.

    Where training is chaotic the exact hypergradient is noise. Steps after the last one where the
    cap binds keep the exact one; that of earlier ones is biased, towards zero or, with `restart`,
    towards what is good soon.

    Attributes:
        max_growth: largest norm of the adjoint of the parameters, in norms of the objective's
            gradient; moments are scaled with it.
        every: after each inner step, or after each segment, which lets through what grows and
            shrinks again within one.
        restart: where the cap is exceeded behind a segment, begin anew from the held-out loss
            there, in place of scaling: windows before it are then tuned for their own future, as
            far as their derivative says something of it (every: segment).
    """

    max_growth: float = ruled(10.0, POSITIVE)
    every: Literal["step", "segment"] = "step"
    restart: bool = False


@dataclass(frozen=True)
class MixFlowSpec:
    """MixFlow-MG: exact, forward-over-reverse (Kemaev et al., 2025).

    Attributes:
        segment: inner steps per compiled program at most, and between two kept states.
        mixed_mode: take second derivatives by forward over reverse; false takes them by reverse
            over reverse, in more memory and time, for comparison.
        save_gradients: keep the inner gradients of the forward sweep for the backward sweep: about
            a fifth less time for one copy of the parameters per inner step.
        gradient_dtype: what the inner gradients are rounded to, in the training that is
            differentiated too; bfloat16 halves what saving them takes. Validation and test train
            without rounding.
        checkpoints: what is kept between the sweeps, and where.
        damping: a cap on the adjoint; null for the exact hypergradient.
    """

    kind: Literal["mixflow"] = "mixflow"
    segment: int = ruled(16, AT_LEAST_ONE)
    mixed_mode: bool = True
    save_gradients: bool = True
    gradient_dtype: Literal["float32", "bfloat16"] = "float32"
    checkpoints: CheckpointsSpec = field(default_factory=CheckpointsSpec)
    damping: DampingSpec | None = None


@dataclass(frozen=True)
class ReverseSpec:
    """Reverse-over-reverse through the unrolled steps: the standard way, kept as the oracle.

    Attributes:
        segment: inner steps per compiled program at most, and between two kept states.
        remat: recompute each inner step in the backward sweep.
        checkpoints: what is kept between the sweeps, and where.
    """

    kind: Literal["reverse"] = "reverse"
    segment: int = ruled(16, AT_LEAST_ONE)
    remat: bool = True
    checkpoints: CheckpointsSpec = field(default_factory=CheckpointsSpec)


@dataclass(frozen=True)
class ForwardSpec:
    """FDS: exact, forward-mode along every meta-parameter (Micaelli & Storkey, 2021).

    Keeps no states: memory grows with the number of meta-parameters, not with the steps. A
    meta-parameter costs nothing before its window begins.

    Attributes:
        segment: inner steps per compiled program at most.
        chunk: meta-parameters at a time, each chunk through a training of its own; null for all.
        clip_tangents: largest global norm of the tangent of an inner gradient, along each
            meta-parameter; null, for no clipping, is exact.
        budget_bytes: what the tangents that a device has may take, a state of floats for each
            meta-parameter; null for what is free on the device.
    """

    kind: Literal["forward"] = "forward"
    segment: int = ruled(16, AT_LEAST_ONE)
    chunk: int | None = ruled(None, AT_LEAST_ONE)
    clip_tangents: float | None = ruled(None, POSITIVE)
    budget_bytes: int | None = ruled(None, AT_LEAST_ONE)


@dataclass(frozen=True)
class ForwardGradientSpec:
    """(FG)²U: unbiased, forward-mode along random directions (Shen et al., 2024).

    Keeps no states: memory grows with the number of directions at a time alone.

    Attributes:
        directions: random directions of each hypergradient; its relative error is about the root
            of meta-parameters / directions.
        segment: inner steps per compiled program at most.
        distribution: of the directions; orthogonal has the least error, and takes at most as many
            as meta-parameters.
        control_variate: take what the outer steps before have estimated for a first guess, and the
            directions for what is missing: unbiased still, with less error where the hypergradient
            moves slowly.
        chunk: directions at a time, each chunk through a training of its own; null for all.
        budget_bytes: what the tangents that a device has may take, a state of floats for each
            direction at a time; null for what is free on the device.
    """

    kind: Literal["forward_gradient"] = "forward_gradient"
    directions: int = ruled(8, AT_LEAST_ONE)
    segment: int = ruled(16, AT_LEAST_ONE)
    distribution: Literal["rademacher", "gaussian", "orthogonal"] = "rademacher"
    control_variate: bool = False
    chunk: int | None = ruled(None, AT_LEAST_ONE)
    budget_bytes: int | None = ruled(None, AT_LEAST_ONE)


@dataclass(frozen=True)
class ZerothOrderSpec:
    """Central differences of whole trainings along random directions (Spall, 1992).

    For measures that can't be differentiated, and for a trainer elsewhere; biased by the square of
    `step`.

    Attributes:
        directions: random directions of each hypergradient; two trainings each.
        step: how far to either side of the meta-parameters, in units of log rate and of logits.
        segment: inner steps per compiled program at most.
        distribution: of the directions, as for `forward_gradient`.
        chunk: directions at a time; the memory is that of twice as many trainings.
    """

    kind: Literal["zeroth_order"] = "zeroth_order"
    directions: int = ruled(8, AT_LEAST_ONE)
    step: float = ruled(1e-2, POSITIVE)
    segment: int = ruled(16, AT_LEAST_ONE)
    distribution: Literal["rademacher", "gaussian", "orthogonal"] = "rademacher"
    chunk: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class PersistentESSpec:
    """Persistent evolution strategies: pairs of trainings that live on (Vicol et al., 2021).

    For `unroll: online`: unbiased, for the smoothed objective, through all windows of a lifetime so
    far, not through the latest alone; by values alone, at a variance that grows with the windows.
    What was tuned meanwhile is taken to have moved slowly. No training has the meta-parameters
    themselves: the objective that is told is a mean over the trainings around them.

    Attributes:
        pairs: of trainings, each window of which is perturbed to either side.
        step: standard deviation of a perturbation, in units of log rate and of logits: the
            objective is smoothed over so much.
        segment: inner steps per compiled program at most.
        distribution: of the perturbations; other than gaussian biased by the square of `step`,
            orthogonal at most as many pairs as meta-parameters.
        chunk: pairs at a time; the states of all are kept in any case, two for each pair.
    """

    kind: Literal["persistent_es"] = "persistent_es"
    pairs: int = ruled(8, AT_LEAST_ONE)
    step: float = ruled(0.1, POSITIVE)
    segment: int = ruled(16, AT_LEAST_ONE)
    distribution: Literal["gaussian", "rademacher", "orthogonal"] = "gaussian"
    chunk: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class AutoSpec:
    """Whichever is the fastest of those that fit the device; the run folder's recipe names it.

    Of another measure than the loss, `zeroth_order`.

    Attributes:
        segment: inner steps per compiled program, and between two kept states.
        checkpoints: of reverse mode, what is kept between the sweeps, and where.
    """

    kind: Literal["auto"] = "auto"
    segment: int = ruled(16, AT_LEAST_ONE)
    checkpoints: CheckpointsSpec = field(default_factory=CheckpointsSpec)


EstimatorSpec = (
    MixFlowSpec
    | ReverseSpec
    | ForwardSpec
    | ForwardGradientSpec
    | ZerothOrderSpec
    | PersistentESSpec
    | AutoSpec
)
