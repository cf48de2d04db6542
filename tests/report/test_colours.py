"""Which curve has which colour, and which values are drawn."""

import numpy as np
import pytest

from metatune.report.colours import APART, CATEGORICAL, kind_of_curve, mixed, tints
from metatune.report.sampling import evenly, log_floor


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.31.self_attn.q_proj.weight", "attention"),
        ("model.layers.3.post_attention_layernorm.weight", "norm"),
        ("model.layers.3.mlp.up_proj.weight 90 %", "mlp"),
        ("model.layers.3.attention", "attention"),
        ("transformer.h.11", "transformer.h"),
        ("weight_decay model.layers.0.mlp.up_proj.weight", "weight_decay mlp"),
        ("weight_decay model.layers.0", "weight_decay model.layers"),
        ("attention", "attention"),
        ("code", "code"),
        ("b1", "b1"),
    ],
)
def test_curves_are_of_kinds(name, kind):
    assert kind_of_curve(name) == kind


def test_few_curves_have_colours_of_their_own_and_many_those_of_their_kinds():
    few = tints(["code", "drama", "model.layers.0"])
    assert [tint.colour for tint in few] == list(CATEGORICAL[:3])
    assert [tint.key for tint in few] == ["code", "drama", "model.layers.0"]
    names = [f"model.layers.{i}.{kind}.weight" for i in range(APART) for kind in ("mlp", "attn")]
    many = tints(names)
    assert len({tint.colour for tint in many}) == len(names)
    assert [tint.key for tint in many if tint.first] == ["mlp", "attention"]
    assert [tint.key_colour for tint in many[-2:]] == list(CATEGORICAL[:2])
    assert [tint.colour for tint in many[-2:]] == list(CATEGORICAL[:2])  # the last is unshaded
    assert mixed("#000000", 0.0) == "#ffffff" and mixed("#0072b2", 1.0) == "#0072b2"


def test_a_log_scale_has_a_floor():
    np.testing.assert_allclose(log_floor(np.array([0.0, 1e-9, 0.5, 2.0])), [2e-3, 2e-3, 0.5, 2.0])
    with pytest.raises(ValueError, match="needs a value above 0, the largest is 0: use a linear"):
        log_floor(np.zeros(3))


def test_even_choices_keep_both_ends():
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(101, 5) == [0, 25, 50, 75, 100]
