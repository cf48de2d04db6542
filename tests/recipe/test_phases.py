"""Phases with nothing left out."""

import dataclasses

import pytest
import yaml

from metatune.recipe import phases, reading, schema, writing

PHASES = [
    {"steps": 5, "unroll": {"kind": "truncated", "window": 4}},
    {"steps": 2, "estimator": {"kind": "forward_gradient"}, "reset": True},
]


@pytest.fixture
def recipe(tree):
    """Two phases, each with one choice of its own."""
    tree["outer"] = {"optimizer": {"kind": "sign"}, "phases": PHASES}
    return reading.parse(tree, "memory")


def test_what_a_phase_leaves_out_is_that_of_all(recipe):
    sign = schema.SignSpec()
    assert phases.resolved(recipe.outer) == (
        phases.Phase(0, 5, schema.MixFlowSpec(), schema.TruncatedSpec(4), sign),
        phases.Phase(1, 2, schema.ForwardGradientSpec(), schema.FullSpec(), sign, reset=True),
    )


def test_a_recipe_without_phases_is_one():
    outer = schema.OuterSpec(steps=7, estimator=schema.ReverseSpec())
    assert phases.resolved(outer) == (
        phases.Phase(0, 7, schema.ReverseSpec(), schema.FullSpec(), schema.AdamSpec()),
    )


def test_a_phase_alone_is_a_recipe(recipe):
    _, second = phases.resolved(recipe.outer)
    alone = phases.alone(recipe, second)
    expected = schema.OuterSpec(
        steps=2, estimator=schema.ForwardGradientSpec(), optimizer=schema.SignSpec()
    )
    assert alone == dataclasses.replace(recipe, outer=expected)
    assert phases.resolved(alone.outer) == (dataclasses.replace(second, number=0, reset=False),)


def test_phases_are_written_and_read_back(recipe):
    text = writing.to_yaml(recipe)
    assert reading.parse(yaml.safe_load(text), "memory") == recipe
    flat = writing.flat(writing.to_tree(recipe))
    assert flat["outer.phases[0].unroll.window"] == 4
    assert flat["outer.phases[1].estimator.kind"] == "forward_gradient"
    assert "outer.steps" not in flat


def test_lists_of_plain_values_stay_whole():
    tree = {"horizons": [1, 2], "none": [], "phases": [{"steps": 1}, {"steps": 2}]}
    assert writing.flat(tree) == {
        "horizons": [1, 2],
        "none": [],
        "phases[0].steps": 1,
        "phases[1].steps": 2,
    }


def test_fractions_are_horizons_of_any_training_and_reach_every_window(recipe):
    full = schema.FullSpec(fractions=(0.07, 0.4, 1.0))

    def found(steps, windows):
        inner = dataclasses.replace(recipe.inner, steps=steps)
        rates = schema.LearningRatesSpec(per="global", windows=windows)
        return phases.horizons(full, inner, schema.TuneSpec(learning_rates=rates))

    assert found(100, 5) == (7, 40, 100)
    assert found(10, 2) == (2, 4, 10)
    # Of 7 steps, as 5 are drawn out to them, none is in the second fifth, as it is of 6.
    assert found(7, 5) == (7, 7, 7)
    assert phases.horizons(schema.FullSpec(), recipe.inner, recipe.tune) is None
    assert phases.horizons(schema.FullSpec(horizons=(3,)), recipe.inner, recipe.tune) == (3,)
    assert phases.horizons(schema.TruncatedSpec(2), recipe.inner, recipe.tune) is None
