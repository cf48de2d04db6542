"""Values within parameters: which share one, and where they go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.models import ParameterNames, build
from metatune.tunables.elements import elements

NAMES = {
    "embed": ParameterNames(("embed.weight",), stacked=False),
    "up": ParameterNames(("0.up.weight", "1.up.weight"), stacked=True),
    "conv": ParameterNames(("0.conv.weight", "1.conv.weight"), stacked=True, transposed=True),
    "norm": ParameterNames(("0.norm.weight", "1.norm.weight"), stacked=True),
    "last": ParameterNames(("norm.weight",), stacked=False),
}
SHAPES = {"embed": (7, 4), "up": (2, 5, 4), "conv": (2, 4, 5), "norm": (2, 4), "last": (4,)}
PARAMS = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in SHAPES.items()}
BLOCKS = {
    "row": {"embed": (7, 1), "up": (2, 5, 1), "conv": (2, 1, 5), "norm": (2, 4), "last": (4,)},
    "column": {"embed": (1, 4), "up": (2, 1, 4), "conv": (2, 4, 1), "norm": (2, 1), "last": (1,)},
    "element": SHAPES,
}


@pytest.mark.parametrize("per", BLOCKS)
def test_blocks_are_those_of_the_checkpoint_s_axes(per):
    found = elements(NAMES, PARAMS, per)
    values = np.arange(2 * found.size, dtype=np.float32).reshape(2, -1)
    spread = [found.spread(jnp.asarray(row)) for row in values]
    assert {name: leaf.shape for name, leaf in spread[0].items()} == BLOCKS[per]
    assert len(np.unique(np.concatenate([leaf.ravel() for leaf in spread[0].values()]))) == (
        found.size
    )
    by_name = found.by_name(values)
    for key, leaf in NAMES.items():
        for layer, name in enumerate(leaf.names):
            want = [each[key][layer] if leaf.stacked else each[key] for each in spread]
            np.testing.assert_array_equal(by_name[name], np.stack(want))


def test_the_derivative_is_one_concatenation(largest_array):
    found = elements(NAMES, PARAMS, "element")

    def total(values):
        return sum(jnp.sum(leaf**2) for leaf in found.spread(values).values())

    gradient = jax.grad(total)
    values = jnp.arange(found.size, dtype=jnp.float32)
    np.testing.assert_array_equal(gradient(values), 2 * values)
    assert largest_array(gradient, values) == found.size
    assert "scatter" not in str(jax.make_jaxpr(gradient)(values))


def test_gpt2_keeps_its_matrices_the_other_way_round():
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2}
    model = build(config, vocab_size=16)
    params = jax.eval_shape(model.init, jax.random.key(0))
    rows = elements(model.names(), params, "row")
    shapes = {name: v.shape for name, v in rows.by_name(np.zeros((1, rows.size))).items()}
    assert shapes["transformer.h.0.mlp.c_fc.weight"] == (1, 1, 32)
    assert shapes["transformer.h.0.mlp.c_fc.bias"] == (1, 32)
    assert shapes["transformer.wte.weight"] == (1, 16, 1)
