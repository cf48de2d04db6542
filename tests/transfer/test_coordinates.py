"""The coordinate check in a reduced form: two sizes of each axis, one small model."""

import functools

import numpy as np
import pytest
from cells import cells

from metatune.recipe import schema
from metatune.transfer.coordinates import LOGITS, STREAM, Check, slope, slopes

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 16,
    "initializer_range": 0.005,
}
OPTIMIZER = schema.AdamWSpec(learning_rate=2e-4, weight_decay=0.0, clip_norm=None)
BATCHES = np.repeat(np.random.default_rng(0).integers(0, 16, (1, 2, 9)), 5, axis=0)


GROUPS = schema.GroupsSpec(
    (
        schema.MuonGroupSpec(4e-4, weight_decay=0.0, match=r"layers\..*proj\.weight"),
        schema.AdamWGroupSpec(2e-4, weight_decay=0.0),
    ),
    clip_norm=None,
)


@functools.cache
def found(rule, axis, optimizer=OPTIMIZER, family="llama"):
    config = {**CONFIG, "model_type": family}
    measured = slopes(Check(config, rule, optimizer), axis, (1, 4), BATCHES, range(4))
    return {name: each.slope for name, each in measured.items()}


# What the rules below are against.
@pytest.mark.thorough
def test_activations_of_the_plain_model_run_away_with_width_and_depth():
    wide, deep = found("none", "width"), found("none", "depth")
    assert wide[LOGITS] > 0.8 and wide[STREAM] > 0.3
    assert deep[STREAM] > 0.3


@pytest.mark.parametrize("rule", cells(["mup", "complete_d_p"], ["mup"]))
def test_with_a_rule_for_the_width_they_do_not(rule):
    assert found(rule, "width") == pytest.approx({LOGITS: 0.0, STREAM: 0.0}, abs=0.05)


@pytest.mark.parametrize("rule", cells(["completep", "complete_d_p"], ["completep"]))
def test_with_a_rule_for_the_depth_they_do_not(rule):
    assert found(rule, "depth") == pytest.approx({LOGITS: 0.0, STREAM: 0.0}, abs=0.05)


# Norms without weights, one of the embeddings, and branches of which attention's begin smaller.
@pytest.mark.thorough
@pytest.mark.parametrize("axis", ["width", "depth"])
def test_nor_do_those_of_nanochat(axis):
    moved = found("complete_d_p", axis, family="nanochat")
    assert moved == pytest.approx({LOGITS: 0.0, STREAM: 0.0}, abs=0.05)


# Muon's steps by themselves are those of tests/transfer/test_steps.py.
@pytest.mark.thorough
@pytest.mark.parametrize("axis", ["width", "depth"])
def test_with_a_rule_for_each_group_they_do_not(axis):
    assert found("complete_d_p", axis, GROUPS) == pytest.approx(
        {LOGITS: 0.0, STREAM: 0.0}, abs=0.05
    )
    assert found("none", axis, GROUPS)[STREAM] > 0.3


def test_the_slope_is_that_of_a_power():
    assert slope([1, 2, 4], [5.0, 5.0 * 2**0.3, 5.0 * 4**0.3]) == pytest.approx(0.3)
