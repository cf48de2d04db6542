"""The one tiny recipe of the tests, and changes to it.

Tests whose recipes are of one shape share compiled programs, by JAX's cache of them: change what a
test is about, and leave the rest.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from metatune.inner import prepare
from metatune.inner.training import InnerTraining
from metatune.recipe import schema, writing

CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}
CODE = schema.SourceSpec(shipped="code_stdlib")
DRAMA = schema.SourceSpec(shipped="drama_shakespeare")
TINY = schema.Recipe(
    model=schema.ModelSpec(config=CONFIG, remat=False),
    data=schema.DataSpec(
        domains={"code": CODE, "drama": DRAMA},
        target={"code": 1.0},
        sequence_length=16,
        batch_size=4,
    ),
    inner=schema.InnerSpec(optimizer=schema.AdamWSpec(learning_rate=1e-2), steps=6),
    tune=schema.TuneSpec(
        learning_rates=schema.LearningRatesSpec(per="layer", windows=3),
        mixture=schema.MixtureSpec(windows=2, floor=0.05),
    ),
    outer=schema.OuterSpec(
        steps=4,
        estimator=schema.MixFlowSpec(segment=4),
        objective=schema.ObjectiveSpec(sequences=8, micro_batch=8),
        validation=schema.ValidationSpec(seeds=1, sequences=8),
        test=schema.FinalTestSpec(seeds=2, sequences=8),
    ),
)


def tiny(config: Mapping[str, Any] | None = None, **sections: Any) -> schema.Recipe:
    """The tiny recipe with changes, such as `tiny({"num_hidden_layers": 2}, inner={"steps": 3})`.

    Args:
        config: of the model's config, what differs.
        sections: of each section the fields that differ, or a whole section in its place.
    """
    return changed(TINY, config, **sections)


def changed(
    recipe: schema.Recipe, config: Mapping[str, Any] | None = None, **sections: Any
) -> schema.Recipe:
    """Another recipe with such changes."""
    if config is not None:
        whole = {**(recipe.model.config or {}), **config}
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, config=whole))
    held = {
        name: dataclasses.replace(getattr(recipe, name), **changes)
        if isinstance(changes, Mapping)
        else changes
        for name, changes in sections.items()
    }
    return dataclasses.replace(recipe, **held)


_TRAININGS: dict[tuple[str, bool], InnerTraining] = {}


def prepared(recipe: schema.Recipe) -> InnerTraining:
    """The training of a recipe, one for all that differ in how they are tuned alone.

    So these share compiled programs, which JAX knows by the training's functions. For tests of what
    tuning does with a training; `prepare` makes another one.
    """
    outer = schema.OuterSpec(steps=1, objective=recipe.outer.objective)
    alike = writing.to_yaml(dataclasses.replace(recipe, outer=outer))
    key = alike, bool(jax.config.read("jax_enable_x64"))
    if key not in _TRAININGS:
        _TRAININGS[key] = prepare(recipe)
    training = _TRAININGS[key]
    return dataclasses.replace(
        training, recipe=dataclasses.replace(training.recipe, outer=recipe.outer)
    )
