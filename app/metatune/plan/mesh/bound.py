"""What a hypergradient takes of a device at most, without a compiler.

Loose on purpose: it says where one device is plainly large enough, and nothing else.
"""

import math
from typing import Any, Final

import jax

from metatune.hypergrad.reverse.checkpoints import SHARE_OF_FREE
from metatune.hypergrad.stores import device_bytes
from metatune.inner import InnerTraining, estimators
from metatune.plan.cost_model import add_members
from metatune.plan.memory import Memory
from metatune.plan.work import Work, horizon, together
from metatune.recipe import schema
from metatune.recipe.batch_sizes import held_out_batches, training_batch

STATES: Final = 14
"""States of a training at a time: those in hand, adjoints, and a program's copies of parameters."""
PASSES: Final = 10
"""Arrays of each activation: of the values, the tangents, the adjoints and theirs, and copies."""
SCORES: Final = 6
"""Arrays of attention's scores in a block, of each pass: around the softmax, and their masks."""
BYTES: Final = 4
"""Of an activation: bfloat16 is computed by float32 on the way."""
NOTHING: Final = Memory(0, 0, 0, 0, 0, 0, 0)


def most_bytes(training: InnerTraining, limit: int) -> float:
    """Bytes of a device that a hypergradient takes at most, on the mesh that the training is on.

    Args:
        training: of a recipe without phases.
        limit: bytes of a device, of which `keep: auto` fills a share at most.
    """
    spec = training.recipe.outer.estimator
    if isinstance(spec, schema.AutoSpec):  # which takes another one only where this doesn't fit
        spec = schema.MixFlowSpec(segment=spec.segment, checkpoints=spec.checkpoints)
    each = STATES * device_bytes(training.shapes()) + PASSES * BYTES * _activations(training)
    beside = add_members(training, NOTHING).device
    beside += Work(training, estimators.build(spec)).beside_bytes()
    return _trainings(training, spec) * each + _carry(training, spec, limit) + beside


def _activations(training: InnerTraining) -> int:
    """Elements of what a forward pass computes on a device, each array once, and roughly.

    For each token the inputs and outputs of every matrix, and attention's scores.
    """
    recipe, layout = training.recipe, training.model.layout
    sizes = [training_batch(recipe.data, recipe.inner)[1], *held_out_batches(recipe.outer).values()]
    length, config = recipe.data.sequence_length, training.model.config
    tokens = max(sizes) * length // (1 if layout is None else layout.parts)
    scores = SCORES * len(config.layers) * config.num_attention_heads * length
    matrices = jax.tree.leaves((training.shapes().params, training.frozen))
    widths = sum(math.prod(leaf.shape[:-2]) * sum(leaf.shape[-2:]) for leaf in matrices)
    return tokens * (widths + scores)


def _trainings(training: InnerTraining, spec: Any) -> int:
    """Trainings, or tangents of one, that are on a device at a time."""
    match spec:
        case schema.ZerothOrderSpec():
            return 2 + 2 * min(spec.chunk, spec.directions)
        case schema.PersistentESSpec():
            return 2 + 6 * spec.pairs
        case schema.ForwardGradientSpec():
            return 2 + 2 * min(spec.chunk or spec.directions, spec.directions)
        case schema.ForwardSpec():
            etas = jax.tree.leaves(jax.eval_shape(training.initial_eta))
            count = sum(leaf.size for leaf in etas)
            return 2 + 2 * min(spec.chunk or count, count)
        case _:
            return together(training.recipe) or 1


def _carry(training: InnerTraining, spec: Any, limit: int) -> float:
    """Of reverse mode: states between all segments, and gradients of all steps, in float32."""
    if not isinstance(spec, schema.MixFlowSpec | schema.ReverseSpec):
        return 0.0
    steps, shapes = horizon(training.recipe).window, training.shapes()
    segments = -(-steps // spec.segment) + 1
    whole = (segments + 1) * device_bytes(shapes) + steps * device_bytes(shapes.params)
    whole *= together(training.recipe) or 1
    if spec.checkpoints.keep != "auto":
        return whole
    return min(whole, spec.checkpoints.budget_bytes or SHARE_OF_FREE * limit)
