"""Trainings of equal recipes share their functions, and so all that JAX has compiled of these.

JAX knows a program by the functions that it is traced from, and `prepare` makes new ones each time:
two commands on one recipe would compile everything twice. Here all is prepared as ever, looked at
and read, and then what is compiled is that of an equal training before it. Whoever wants functions
of their own takes `metatune.inner.preparing.prepare`.
"""

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable

import jax

from metatune import inner
from metatune.inner.training import InnerTraining
from metatune.recipe import schema, writing

KEPT = 48
_known: OrderedDict[tuple[object, ...], InnerTraining] = OrderedDict()


def key_of(training: InnerTraining) -> tuple[object, ...]:
    """All that a training's functions are made of."""
    recipe = training.recipe
    outer = schema.OuterSpec(steps=1, objective=recipe.outer.objective)
    return (
        writing.to_yaml(dataclasses.replace(recipe, outer=outer, trainer=None)),
        repr(training.model),
        tuple(domain.sha256 for domain in training.corpus.domains),
        training.weights_sha256,
        tuple(sorted(training.checkpoints_sha256.items())),
        bool(jax.config.read("jax_enable_x64")),
    )


def shared(training: InnerTraining) -> InnerTraining:
    """The training, with the functions of an equal one if there was any."""
    if training.layout is not None:
        return training
    key = key_of(training)
    known = _known.setdefault(key, training)
    _known.move_to_end(key)
    if len(_known) > KEPT:
        _known.popitem(last=False)
    return dataclasses.replace(known, recipe=training.recipe, corpus=training.corpus)


def sharing(prepare: Callable[..., InnerTraining]) -> Callable[..., InnerTraining]:
    """A function that prepares, and shares."""

    @functools.wraps(prepare)
    def prepared(*args, **options):
        return shared(prepare(*args, **options))

    return prepared


# Before any other module takes them from there.
inner.prepare = sharing(inner.prepare)
inner.prepare_file = sharing(inner.prepare_file)
