"""Groups of parameters are divided by kind, then by layer, then one by one."""

from metatune.tunables import Groups
from metatune.tunables.divisions import described, divisions

NAMES = (
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
    "model.layers.10.mlp.up_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "model.norm.weight",
)
TENSORS = Groups(NAMES, None, {name: (name,) for name in NAMES})
LAYERS = Groups(
    ("model.layers.0", "model.layers.1", "rest"),
    None,
    {
        "model.layers.0": (*NAMES[1:4], NAMES[7]),
        "model.layers.1": NAMES[4:6],
        "rest": (NAMES[0], NAMES[8]),
    },
)


def test_several_kinds_are_divided_into_one_and_the_others():
    assert divisions(TENSORS, range(9)) == [(0,), (1, 2, 4, 5, 6), (3,), (7, 8)]


def test_of_two_kinds_one_side_says_it_all():
    assert divisions(TENSORS, (0, 3)) == [(3,)]


def test_one_kind_is_cut_between_layers_in_their_order():
    assert divisions(TENSORS, (1, 2, 4, 5, 6)) == [(1, 2), (1, 2, 4, 5)]


def test_what_is_in_no_layer_comes_last():
    assert divisions(TENSORS, (7, 8)) == [(7,)]


def test_one_layer_of_one_kind_is_divided_one_by_one():
    assert divisions(TENSORS, (1, 2)) == [(2,)]


def test_a_single_group_has_no_division():
    assert divisions(TENSORS, (3,)) == []


def test_groups_of_several_kinds_are_alike_if_they_have_the_same():
    assert divisions(LAYERS, range(3)) == [(0,), (1,), (2,)]


def test_in_words():
    assert described(TENSORS, range(9)) == "all parameters"
    assert described(TENSORS, (3,)) == "model.layers.0.self_attn.q_proj.weight"
    assert described(TENSORS, (0, 3)) == "attention, embedding"
    expected = "2 of mlp (model.layers.0.mlp.up_proj.weight to model.layers.0.mlp.down_proj.weight)"
    assert described(TENSORS, (1, 2)) == expected
