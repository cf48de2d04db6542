"""Each rule equals its formulas, on configs whose factors were computed by hand."""

import math
from typing import Any

import pytest
from transfer_sides import GPT2, LLAMA, side

from metatune.transfer import RULES, Factor, factors_of
from metatune.transfer.enlarging import enlarged

ROOT = math.sqrt(0.5)
BLOCK = "model.layers.0."
WIDE: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4}
DEEP: dict[str, Any] = {"num_hidden_layers": 4}


def close(factor: Factor):
    return pytest.approx(tuple(vars(factor).values()), rel=1e-12)


def values(factor: Factor):
    return tuple(vars(factor).values())


def rule(name, proxy, target, kind="adamw"):
    return RULES[name].factors(kind, proxy, target)


def test_none_leaves_everything():
    found = rule("none", side(steps=10), side("big", **WIDE, **DEEP, steps=30))
    assert set(found.parameters.values()) == {Factor()}
    assert (found.residual, found.logits, found.attention, found.memory) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # rate, weight decay, eps, fresh numbers; twice the width, MLPs twice as wide
        (BLOCK + "self_attn.q_proj.weight", (0.5, 2.0, 0.5, ROOT)),
        (BLOCK + "mlp.down_proj.weight", (0.5, 2.0, 0.5, ROOT)),
        (BLOCK + "input_layernorm.weight", (1.0, 1.0, 0.5, 1.0)),
        ("model.norm.weight", (1.0, 1.0, 0.5, 1.0)),
        ("model.embed_tokens.weight", (1.0, 1.0, 0.5, 1.0)),
        ("lm_head.weight", (0.5, 2.0, 1.0, 0.5)),
    ],
)
def test_mup_under_adam(name, expected):
    found = rule("mup", side(), side("wide", **WIDE))
    assert values(found.parameters[name]) == pytest.approx(expected, rel=1e-12)
    assert (found.residual, found.logits, found.attention) == (1, 1, 1)


def test_a_fan_in_of_its_own_counts():
    """MLPs four times as wide: their down projections sum four times as many numbers."""
    found = rule("mup", side(), side("wide", **{**WIDE, "intermediate_size": 64}))
    up, down = (found.parameters[BLOCK + f"mlp.{which}_proj.weight"] for which in ("up", "down"))
    assert (up.learning_rate, up.weight_decay, up.initial) == pytest.approx((0.5, 2, ROOT))
    assert (down.learning_rate, down.weight_decay, down.initial) == pytest.approx((0.25, 4, 0.5))


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        (BLOCK + "self_attn.q_proj.weight", 1.0),
        (BLOCK + "input_layernorm.weight", 4.0),
        ("model.embed_tokens.weight", 4.0),
        ("lm_head.weight", 0.25),
    ],
)
def test_mup_under_sgd_follows_both_fans(name, rate):
    wide: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 8}
    found = rule("mup", side(), side("wide", **wide), "sgd").parameters[name]
    assert found.learning_rate == pytest.approx(rate)
    assert found.weight_decay == pytest.approx(1 / rate)


def test_larger_heads_want_smaller_scores():
    found = rule("mup", side(), side("wide", **{**WIDE, "num_attention_heads": 1}))
    assert found.attention == pytest.approx(0.5)  # heads of 4 became one of 16


def test_tied_embeddings_want_smaller_logits():
    tied: dict[str, Any] = {"tie_word_embeddings": True}
    found = rule("mup", side(**tied), side("wide", **WIDE, **tied))
    assert found.logits == 0.5
    assert values(found.parameters["model.embed_tokens.weight"]) == (1.0, 1.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # three times the depth: the eps of what is within branches shrinks with their multiplier
        (BLOCK + "self_attn.q_proj.weight", (1.0, 1.0, 1 / 3, 1.0)),
        (BLOCK + "input_layernorm.weight", (1.0, 1.0, 1 / 3, 1.0)),
        ("model.embed_tokens.weight", (1.0, 1.0, 1.0, 1.0)),
        ("lm_head.weight", (1.0, 1.0, 1.0, 1.0)),
    ],
)
def test_completep_in_depth(name, expected):
    found = rule("completep", side(), side("deep", num_hidden_layers=6))
    assert values(found.parameters[name]) == pytest.approx(expected, rel=1e-12)
    assert found.residual == pytest.approx(1 / 3)


def test_mup_says_nothing_of_the_depth():
    found = rule("mup", side(), side("deep", num_hidden_layers=6))
    assert set(found.parameters.values()) == {Factor()} and found.residual == 1


def test_completep_is_mup_where_the_depth_stays():
    sides = side(), side("wide", **WIDE)
    assert rule("completep", *sides) == rule("mup", *sides)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # twice the width, twice the depth, four times the updates
        (BLOCK + "self_attn.k_proj.weight", (0.25, 1.0, 0.5, ROOT)),
        (BLOCK + "input_layernorm.weight", (0.5, 0.5, 0.5, 1.0)),
        ("model.embed_tokens.weight", (0.5, 0.5, 1.0, 1.0)),
        ("lm_head.weight", (0.25, 1.0, 2.0, 0.5)),
    ],
)
def test_complete_d_p_in_all(name, expected):
    sides = side(steps=100), side("big", **WIDE, **DEEP, steps=400)
    found = rule("complete_d_p", *sides)
    assert values(found.parameters[name]) == pytest.approx(expected, rel=1e-12)
    assert found.residual == 0.5
    assert found.memory == 0.25


def test_complete_d_p_says_what_it_was_not_told():
    found = rule("complete_d_p", side(steps=100), side("big", **WIDE))
    assert found.unknown == ("updates of big",)
    assert found.memory == 1
    assert found.parameters == rule("completep", side(), side("big", **WIDE)).parameters


def test_twice_the_tokens_in_batches_twice_as_large_change_nothing():
    sides = (
        side(steps=100, batch_size=4, sequence_length=16),
        side("big", steps=100, batch_size=8, sequence_length=16),
    )
    found = rule("complete_d_p", *sides)
    assert set(found.parameters.values()) == {Factor()} and found.memory == 1


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_equal_sizes_are_left_as_they_are(name, config):
    found = factors_of("adamw", side(config=config, steps=7), side("same", config, steps=7), name)
    assert set(found.parameters.values()) == {Factor()}
    assert (found.residual, found.logits, found.attention, found.memory) == (1, 1, 1, 1)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_two_steps_are_as_good_as_one(name, tied, config):
    """A to B to C, layer by layer, is A to C: what differs between layers never enters."""
    config = {**config, "tie_word_embeddings": tied}
    a = side("a", config, steps=10)
    b = side("b", enlarged(config, width=3, depth=2), steps=35)
    c = side("c", enlarged(config, width=5, depth=6), steps=20)
    first, second, both = (factors_of("adamw", *sides, name) for sides in ((a, b), (b, c), (a, c)))
    for parameter, factor in both.parameters.items():
        layer = c.parameters[parameter].layer
        between = parameter if layer is None else parameter.replace(f".{layer}.", ".0.")
        made = first.parameters[between].times(second.parameters[parameter])
        assert values(made) == close(factor)
    for field in ("residual", "logits", "attention", "memory"):
        made = getattr(first, field) * getattr(second, field)
        assert made == pytest.approx(getattr(both, field), rel=1e-12)
