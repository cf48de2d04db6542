"""Starts that are tuned: what η does to the parameters that a training begins with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.tunables import Hyper, Setting, build

NAMES = {
    "embedding": ParameterNames(("model.embed_tokens.weight",), stacked=False),
    "layers": ParameterNames(tuple(f"model.layers.{i}.mlp.up_proj.weight" for i in range(3)), True),
}
PARAMS = {
    "embedding": jnp.arange(6.0).reshape(3, 2),
    "layers": jnp.arange(12.0).reshape(3, 2, 2),
}


def tunable(spec) -> Any:
    setting = Setting(NAMES, ("code",), 10, PARAMS)
    (found,) = build(schema.TuneSpec(initialisation=spec), setting)
    return found


@pytest.mark.parametrize(
    ("parameters", "size"),
    [(None, 18), (("layers.1", "embed"), 10), (("layers.[02]",), 8), (("embed",), 6)],
)
def test_a_point_moves_what_it_names(parameters, size):
    point = tunable(schema.PointSpec(parameters=parameters))
    assert point.initial().shape == (size,) and not point.initial().any()
    still = point.begin(point.initial(), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, still, PARAMS)
    moved = point.begin(jnp.arange(1.0, size + 1, dtype=np.float32), PARAMS)
    offsets = jax.tree.map(lambda a, b: np.asarray(a - b), moved, PARAMS)
    named = {name: offsets["layers"][i] for i, name in enumerate(NAMES["layers"].names)}
    named["model.embed_tokens.weight"] = offsets["embedding"]
    touched = {name for name, offset in named.items() if offset.any()}
    expected = {
        None: set(named),
        ("layers.1", "embed"): {"model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"},
        ("layers.[02]",): {f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 2)},
        ("embed",): {"model.embed_tokens.weight"},
    }
    assert touched == expected[parameters]
    # Each weight has an offset of its own.
    assert sorted(np.concatenate([named[n].ravel() for n in touched])) == list(range(1, size + 1))


def test_a_start_between_checkpoints_is_affine():
    spec = schema.InterpolationSpec(checkpoints=("a", "b"), per={"body": "layers.[01]"})
    soup = tunable(spec)
    others = [jax.tree.map(lambda leaf: leaf + 1, PARAMS), jax.tree.map(lambda p: 3 * p, PARAMS)]
    still = soup.begin(soup.initial(), PARAMS, others)
    jax.tree.map(np.testing.assert_array_equal, still, PARAMS)
    moved = soup.begin(jnp.array([0.5, -0.25]), PARAMS, others)
    np.testing.assert_array_equal(moved["embedding"], PARAMS["embedding"])  # of no group
    np.testing.assert_array_equal(moved["layers"][2], PARAMS["layers"][2])
    expected = PARAMS["layers"][:2] + 0.5 - 0.25 * 2 * PARAMS["layers"][:2]
    np.testing.assert_allclose(moved["layers"][:2], expected, rtol=1e-6)


@pytest.mark.parametrize("spec", [schema.PointSpec(), schema.InterpolationSpec(checkpoints=("a",))])
def test_no_step_is_changed_and_nothing_is_paid(spec):
    found, hyper = tunable(spec), Hyper({}, jnp.ones(1), jnp.ones(1))
    assert found.apply(found.initial(), jnp.int32(0), hyper) is hyper
    assert float(found.penalty(found.initial() + 1)) == 0


def test_an_expression_that_matches_nothing_is_refused():
    with pytest.raises(RecipeError) as error:
        tunable(schema.PointSpec(parameters=("mlp", "attention")))
    assert [str(fault) for fault in error.value.faults] == [
        "tune.initialisation.parameters[1] = 'attention': matches no trained parameter; match "
        "their checkpoint names, such as model.embed_tokens.weight, "
        "model.layers.0.mlp.up_proj.weight, model.layers.2.mlp.up_proj.weight"
    ]
