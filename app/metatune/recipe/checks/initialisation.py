"""Rules on a start that is tuned."""

from collections.abc import Iterable

from metatune.recipe.faults import Fault
from metatune.recipe.phases import resolved, said
from metatune.recipe.schema import (
    InitialisationSpec,
    InnerSpec,
    InterpolationSpec,
    ModelSpec,
    OuterSpec,
    PointSpec,
    TruncatedSpec,
)

PATH = "tune.initialisation"


def a_point_is_the_same_for_all(
    tune_initialisation: InitialisationSpec, model: ModelSpec, inner: InnerSpec, outer: OuterSpec
) -> Iterable[Fault]:
    """An offset is tuned on one point: of another draw its weights would mean something else."""
    drawn = "model.config" if model.config is not None else inner.lora and "inner.lora"
    if isinstance(tune_initialisation, PointSpec) and drawn and outer.fresh.initialisation:
        problem = f"{PATH} tunes one point, but with {drawn} each training would draw its own"
        cure = "write false: every training then starts from the draw of the recipe's seed"
        yield Fault("outer.fresh.initialisation", True, problem, cure)


def checkpoints_are_of_the_trained_model(
    tune_initialisation: InitialisationSpec, model: ModelSpec, inner: InnerSpec
) -> Iterable[Fault]:
    """What is interpolated between are weights, of what is trained."""
    if not isinstance(tune_initialisation, InterpolationSpec):
        return
    if model.config is not None:
        problem = "interpolates from model.pretrained, but the model starts from fresh parameters"
        cure = "write model.pretrained, or kind: point"
        yield Fault(f"{PATH}.kind", "interpolation", problem, cure)
    if inner.lora is not None:
        problem = "moves what is trained, adapters here, which checkpoints don't hold"
        yield Fault(f"{PATH}.kind", "interpolation", problem, "take out inner.lora, or kind: point")


def some_step_sees_the_start(
    tune_initialisation: InitialisationSpec, outer: OuterSpec, inner: InnerSpec
) -> Iterable[Fault]:
    """Differentiated steps that all begin later leave the start without a gradient."""
    if (outer.steps is None) == (outer.phases is None):
        return
    unrolls = [phase.unroll for phase in resolved(outer)]
    if not all(isinstance(u, TruncatedSpec) and u.window < inner.steps for u in unrolls):
        return
    for path, unroll in said(outer, "unroll"):
        if isinstance(unroll, TruncatedSpec):
            problem = f"leaves step 0 out, of {inner.steps}, so that {PATH} has no gradient"
            cure = "take kind: full, or kind: online, whose first windows begin at step 0"
            yield Fault(f"{path}.window", unroll.window, problem, cure)
