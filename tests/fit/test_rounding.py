"""The warning of hypergradients that rounding outweighs."""

import dataclasses

import jax
import pytest
from recipes import CODE, tiny

from metatune.fit.telling.rounding import precision_warnings
from metatune.inner import prepare
from metatune.recipe import schema

ADAM = schema.AdamWSpec(learning_rate=1e-2)
RECIPE = tiny(
    {"intermediate_size": 12, "initializer_range": 0.02},
    model={"dtype": "bfloat16"},
    data={
        "domains": {"code": CODE, "bible": schema.SourceSpec(shipped="bible_web")},
        "sequence_length": 64,
    },
    inner={"steps": 2, "optimizer": ADAM},
    tune=schema.TuneSpec(mixture=schema.MixtureSpec()),
)


def warnings(optimizer=ADAM, dtype="bfloat16", tune=RECIPE.tune):
    recipe = dataclasses.replace(
        RECIPE,
        model=dataclasses.replace(RECIPE.model, dtype=dtype),
        inner=dataclasses.replace(RECIPE.inner, optimizer=optimizer),
        tune=tune,
    )
    return list(precision_warnings(prepare(recipe)))


def test_it_says_how_large_eps_root_must_be():
    params = jax.eval_shape(prepare(RECIPE).initialise, jax.random.key(0)).params
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == 4712
    assert warnings() == [
        "warning: in bfloat16, hypergradients of mixture need an eps_root of 1e-05 or more for "
        "4,712 parameters: inner.optimizer.eps_root is 1e-12; below, they hang on elements of the "
        "gradient that are nothing but rounding. Raise it, or compute in float32"
    ]
    # 0.15 of the root mean square of so many elements whose norm is one, or ten.
    assert warnings(dataclasses.replace(ADAM, eps_root=1.001 * 0.15**2 / count)) == []
    assert len(warnings(dataclasses.replace(ADAM, eps_root=0.999 * 0.15**2 / count))) == 1
    clipped = dataclasses.replace(ADAM, clip_norm=10.0, eps_root=1.001 * 1.5**2 / count)
    assert warnings(clipped) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "float32"},
        {"optimizer": schema.SGDSpec(learning_rate=0.1)},
        {"tune": schema.TuneSpec(learning_rates=schema.LearningRatesSpec())},
    ],
)
def test_nothing_is_said_where_nothing_is_outweighed(changes):
    assert warnings(**changes) == []
