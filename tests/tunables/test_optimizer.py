"""Numbers of the inner optimizer as tunables."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.tunables import Hyper, Setting, build
from metatune.tunables.optimizer import FORMS

NAMES = {
    "head": ParameterNames(("head.weight",), stacked=False),
    "norm": ParameterNames(("norm.weight",), stacked=False),
    "up": ParameterNames(("layers.0.up.weight", "layers.1.up.weight"), stacked=True),
}
BASE = Hyper(
    {"head": jnp.ones((1, 1)), "norm": jnp.ones(1), "up": jnp.ones((1, 1, 1))},
    mixture=jnp.ones(1),
    loss_weights=jnp.ones(1),
)
ADAMW = schema.AdamWSpec(learning_rate=1e-3)
DECAYING = {**NAMES, "norm": None}


def tunables(decaying=DECAYING, **fields):
    tune = schema.TuneSpec(optimizer=schema.OptimizerFieldsSpec(**fields))
    return build(tune, Setting(NAMES, ("a",), 4, optimizer=ADAMW, decaying=decaying))


def tuned(tunable, eta, step) -> Any:
    """What the tunable sets in an inner step."""
    return tunable.apply(eta, jnp.int32(step), BASE).optimizer[tunable.key]


def test_every_field_has_a_form():
    assert set(FORMS) == set(schema.OptimizerFieldsSpec.__dataclass_fields__)


def test_each_is_a_tunable_by_itself_and_starts_as_the_recipe_has_it():
    found = tunables(
        weight_decay=schema.WeightDecaySpec(windows=3),
        b2=schema.TunedFieldSpec(windows=2),
        eps=schema.TunedFieldSpec(),
        clip_norm=schema.TunedFieldSpec(),
    )
    assert [tunable.key for tunable in found] == ["weight_decay", "b2", "eps", "clip_norm"]
    hyper = BASE
    for tunable in found:
        assert tunable.initial().shape[0] == tunable.windows
        hyper = tunable.apply(tunable.initial(), jnp.int32(3), hyper)
    numbers: Any = hyper.optimizer
    assert float(numbers["b2"]) == np.float32(0.95) and float(numbers["eps"]) == np.float32(1e-8)
    assert float(numbers["clip_norm"]) == 1.0
    assert numbers["weight_decay"]["norm"] is None
    assert {float(leaf.min()) for leaf in jax.tree.leaves(numbers["weight_decay"])} == {
        float(np.float32(0.1))
    }


def test_decays_move_by_their_odds_and_stay_between_0_and_1():
    (tunable,) = tunables(b1=schema.TunedFieldSpec(windows=2))
    eta = jnp.array([[np.log(11.0)], [-30.0]])  # from odds of 9 to 99
    values = [float(tuned(tunable, eta, t)) for t in (0, 1, 2)]
    assert values[:2] == pytest.approx([0.99, 0.99], rel=1e-6)
    assert 0 < values[2] < 1e-11


def test_weight_decay_of_groups_leaves_the_others():
    spec = schema.WeightDecaySpec(per={"first": r"layers\.0"}, windows=2)
    (tunable,) = tunables(weight_decay=spec)
    eta = jnp.log(jnp.array([[2.0], [3.0]]))
    decay = tuned(tunable, eta, 2)
    assert decay["norm"] is None
    np.testing.assert_allclose(decay["up"], np.reshape([0.3, 0.1], (2, 1, 1)), rtol=1e-6)
    np.testing.assert_allclose(decay["head"], [[0.1]], rtol=1e-6)


def test_groups_hold_what_decays():
    with pytest.raises(RecipeError, match=r"tune\.optimizer\.weight_decay\.per.* matches no param"):
        tunables(weight_decay=schema.WeightDecaySpec(per=("norm",)))
    nothing = dict.fromkeys(NAMES)
    with pytest.raises(RecipeError, match="no parameter decays; take it out, or set inner.optim"):
        tunables(nothing, weight_decay=schema.WeightDecaySpec())
