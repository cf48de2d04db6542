"""The estimators of recipes. A new one is a row of `ESTIMATORS`."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, overload

import jax

from metatune.hypergrad import (
    Checkpoints,
    Damping,
    EstimatorError,
    Forward,
    ForwardGradient,
    MixFlow,
    PersistentES,
    Reverse,
    ZerothOrder,
)
from metatune.hypergrad.estimator import Estimator
from metatune.recipe import schema
from metatune.recipe.faults import Fault
from metatune.recipe.phases import said
from metatune.recipe.rules import arguments
from metatune.tunables import Tunable

MIXFLOW: Final = 3.6
"""Gradients of an inner step of MixFlow with saved gradients (docs/cost.md, two CPU cores)."""

GRADIENT_DTYPES: Final = {"float32": None, "bfloat16": "bfloat16"}  # parameters are float32


def _mixflow(spec: schema.MixFlowSpec) -> MixFlow:
    dtype = GRADIENT_DTYPES[spec.gradient_dtype]
    damping = spec.damping and Damping(**asdict(spec.damping))
    return MixFlow(spec.segment, spec.mixed_mode, spec.save_gradients, dtype, damping)


def _reverse(spec: schema.ReverseSpec) -> Reverse:
    return Reverse(spec.segment, spec.remat)


def _forward(spec: schema.ForwardSpec) -> Forward:
    return Forward(spec.segment, spec.chunk, spec.clip_tangents, spec.budget_bytes)


def _forward_gradient(spec: schema.ForwardGradientSpec) -> ForwardGradient:
    return ForwardGradient(
        spec.directions, spec.segment, spec.distribution, spec.chunk, spec.budget_bytes
    )


def _zeroth_order(spec: schema.ZerothOrderSpec) -> ZerothOrder:
    return ZerothOrder(spec.directions, spec.step, spec.segment, spec.distribution, spec.chunk)


def _persistent_es(spec: schema.PersistentESSpec) -> PersistentES:
    return PersistentES(spec.pairs, spec.step, spec.segment, spec.distribution, spec.chunk)


ESTIMATORS: Mapping[type, Callable[..., Estimator]] = {
    schema.MixFlowSpec: _mixflow,
    schema.ReverseSpec: _reverse,
    schema.ForwardSpec: _forward,
    schema.ForwardGradientSpec: _forward_gradient,
    schema.ZerothOrderSpec: _zeroth_order,
    schema.PersistentESSpec: _persistent_es,
}


@overload
def build(spec: schema.MixFlowSpec | schema.ReverseSpec) -> MixFlow | Reverse: ...


@overload
def build(spec: schema.ForwardSpec | schema.ForwardGradientSpec) -> Forward | ForwardGradient: ...


@overload
def build(spec: schema.PersistentESSpec) -> PersistentES: ...


@overload
def build(spec: schema.EstimatorSpec) -> Estimator: ...


def build(spec: schema.EstimatorSpec) -> Estimator:
    """The estimator that a recipe asks for.

    Raises:
        EstimatorError: it asks for none that is run here.
    """
    if isinstance(spec, schema.AutoSpec):
        raise EstimatorError(
            "the estimator auto differentiates nothing itself: what it is gets chosen first, by "
            "metatune.plan.decided"
        )
    return ESTIMATORS[type(spec)](spec)


def gradients(spec: schema.MixFlowSpec | schema.ReverseSpec) -> float:
    """Gradients of an inner step that a differentiated inner step takes, forward and backward."""
    return MIXFLOW + build(spec).recomputed_gradients


def checkpoints(spec: schema.EstimatorSpec, folder: Path) -> Checkpoints:
    """What an estimator keeps of an inner training, a disk's files in `folder`."""
    if not isinstance(spec, schema.MixFlowSpec | schema.ReverseSpec):
        return Checkpoints()
    kept = spec.checkpoints
    on_disk = folder if kept.store == "disk" else None
    return Checkpoints(kept.keep, kept.slots, kept.store, on_disk, kept.budget_bytes)


def program_is_there(trainer: schema.TrainerSpec) -> Iterable[Fault]:
    """The program of an external trainer can be run."""
    program = arguments(trainer.command)[0]
    if shutil.which(program) is None:
        problem = f"no program {program} can be run here"
        cure = "write its path, or the name of one on the PATH"
        yield Fault("trainer.command", trainer.command, problem, cure)


def too_many_directions(outer: schema.OuterSpec, tunables: Sequence[Tunable]) -> Iterable[Fault]:
    """There are as many orthogonal directions as meta-parameters."""
    size = sum(jax.eval_shape(tunable.initial).size for tunable in tunables)
    for path, spec in said(outer, "estimator"):
        if isinstance(spec, schema.ForwardGradientSpec | schema.ZerothOrderSpec):
            field, count = "directions", spec.directions
            cure = f"take {size}, which is exact, or distribution: rademacher"
        elif isinstance(spec, schema.PersistentESSpec):
            field, count = "pairs", spec.pairs
            cure = f"take {size}, or distribution: gaussian"
        else:
            continue
        if spec.distribution == "orthogonal" and count > size:
            problem = f"must be at most the number of meta-parameters, {size}, to be orthogonal"
            yield Fault(f"{path}.{field}", count, problem, cure)
