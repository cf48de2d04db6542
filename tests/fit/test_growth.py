"""Growth of the adjoint in the metrics: as it was, in words that JSON has, and in a search."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from recipes import prepared, tiny
from rich.console import Console

from metatune.fit.outer_loop import fit
from metatune.fit.run_folder import RunFolder
from metatune.fit.searching.growth import growth_curves, growth_line, growth_scalars
from metatune.hypergrad import Damping, Growth, MixFlow
from metatune.inner import estimators
from metatune.recipe import schema

STEPS = np.array([0, 4, 8])


def of(params, damped):
    params = jnp.asarray(params, jnp.float32)
    return Growth(STEPS, params, 2 * params, jnp.asarray(damped, jnp.float32))


def test_of_one_training_it_is_what_was_seen():
    line = growth_line(of([8.0, 4.0, 2.0], [0.0, np.log(0.25)]))
    assert line is not None
    assert line == {
        "steps": [0, 4, 8],
        "params": [8.0, 4.0, 2.0],
        "opt_state": [16.0, 8.0, 4.0],
        "damped": pytest.approx(0.25),
    }
    assert growth_scalars(line) == {"adjoint/largest": 4.0, "adjoint/damped": line["damped"]}
    curves = growth_curves(line, 1000)
    assert list(curves) == ["parameters", "optimizer state"]
    expected = [8 * 2 ** (-step / 4) for step in range(9)]  # lines on a log scale
    np.testing.assert_allclose(curves["parameters"], expected, rtol=1e-6)


def test_of_several_trainings_it_is_the_one_that_grew_most():
    line = growth_line(
        of([[8.0, 1.0], [4.0, 5.0], [2.0, 2.0]], [[np.log(0.5), 0.0], [np.log(0.5), 0.0]])
    )
    assert line is not None
    assert line["params"] == [8.0, 5.0, 2.0]
    assert line["damped"] == pytest.approx(0.25)


def test_tangents_grow_from_where_they_begin():
    grown = of([0.0, 2.0, 8.0], [0.0, 0.0])._replace(tangents=True)
    line = growth_line(grown)
    assert line is not None
    assert line == {
        "of": "tangents",
        "steps": [0, 4, 8],
        "params": [0.0, 2.0, 8.0],
        "opt_state": [0.0, 4.0, 16.0],
    }
    assert growth_scalars(line) == {"tangents/largest": 4.0}
    assert len(growth_curves(line, 1000)["parameters"]) == 9
    none = growth_line(grown._replace(params=jnp.zeros(3)))
    assert none is not None and growth_scalars(none) == {}


def test_what_is_no_number_is_null():
    line = growth_line(of([np.inf, 4.0, 2.0], [0.0, 0.0]))
    assert line is not None
    assert json.loads(json.dumps(line, allow_nan=False))["params"] == [None, 4.0, 2.0]
    assert growth_scalars(line)["adjoint/largest"] == 2.0
    assert len(growth_curves(line, 1000)["parameters"]) == 9
    nothing = growth_line(of([0.0, 0.0, 0.0], [0.0, 0.0]))
    assert nothing is not None and growth_curves(nothing, 1000) == {}
    assert growth_line(None) is None


def test_of_many_boundaries_a_line_has_64():
    count = 1001
    many = Growth(np.arange(count), jnp.ones(count), jnp.ones(count), jnp.zeros(count - 1))
    line = growth_line(many)
    assert line is not None
    assert (len(line["steps"]), line["steps"][0], line["steps"][-1]) == (64, 0, 1000)


DAMPED = schema.MixFlowSpec(segment=2, damping=schema.DampingSpec(max_growth=0.5))


def test_the_cap_of_a_recipe_is_the_estimator_s():
    assert estimators.build(DAMPED) == MixFlow(2, damping=Damping(0.5, "step"))


# What the estimator makes of it is in tests/hypergrad/test_damping.py.
@pytest.mark.thorough
def test_a_search_keeps_to_the_cap_of_its_recipe_and_tells(tmp_path):
    damped = DAMPED
    recipe = tiny(outer={"steps": 1, "estimator": damped})
    exact = dataclasses.replace(damped, damping=None)
    norms = {}
    for name, spec in (("damped", damped), ("exact", exact)):
        changed = dataclasses.replace(
            recipe, outer=dataclasses.replace(recipe.outer, estimator=spec)
        )
        with open("/dev/null", "w") as nowhere:
            fit(prepared(changed), tmp_path / name, console=Console(file=nowhere))
        first, *_, last = RunFolder(tmp_path / name).read_metrics()
        assert first["growth"]["steps"] == [0, 2, 4, 6]
        assert "growth" not in last  # no step is taken from there
        norms[name] = first["growth"]
    end = norms["exact"]["params"][-1]
    assert norms["damped"]["params"] == pytest.approx([0.5 * end] * 3 + [end], rel=1e-5)
    assert norms["damped"]["damped"] < 0.5
    assert norms["exact"]["damped"] == 1
