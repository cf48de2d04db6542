"""Rules under other steps than Adam's: factors by hand, what updates do, groups and experts."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipes
from transfer_sides import LLAMA, side

from metatune.artefact import ArtefactError, load, write
from metatune.artefact.demands import demands
from metatune.fit.making import artefact_of
from metatune.inner import optimizers, prepare
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.train.matching import refuse_misfit, remarks
from metatune.train.schedules import Schedules
from metatune.transfer import RULES, carry, factors_of, of_artefact, of_training
from metatune.transfer.enlarging import enlarged
from metatune.transfer.mapping import Between, counterparts
from metatune.transfer.refusals import of_the_models
from metatune.transfer.rules.rule import Rule
from metatune.transfer.rung import Rung
from metatune.transfer.sized import at_size
from metatune.transfer.stepping import SAID, step
from metatune.transfer.toward import toward_training
from metatune.tunables import Hyper

BLOCK = "model.layers.0."
UP, DOWN, NORM = BLOCK + "mlp.up_proj.weight", BLOCK + "mlp.down_proj.weight", "model.norm.weight"
HEAD = "lm_head.weight"
WIDE: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 4}
"""Twice as wide, with MLPs four times as wide: [16, 8] becomes [64, 16], and [8, 16] [16, 64]."""
ROOT = math.sqrt(0.5)


def values(factor):
    return tuple(vars(factor).values())


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        # rate, weight decay, eps, fresh numbers
        ("muon", BLOCK + "self_attn.q_proj.weight", (1.0, 1.0, 1.0, ROOT)),
        ("muon", UP, (1.0, 1.0, math.sqrt(8) / 2, ROOT)),
        ("normuon", DOWN, (ROOT, 1 / ROOT, math.sqrt(8) / 2, 0.5)),
        ("muon", HEAD, (0.5, 2.0, 1.0, 0.5)),
        ("muon", NORM, (1.0, 1.0, 0.5, 1.0)),
        ("adamh", UP, (ROOT, 1.0, 0.5, ROOT)),
        ("adamh", DOWN, (0.5, 1.0, 0.5, 0.5)),
        ("adamh", HEAD, (1.0, 1.0, 1.0, 0.5)),
        ("muonh", UP, (1.0, 1.0, math.sqrt(8) / 2, ROOT)),
        ("muonh", DOWN, (ROOT, 1.0, math.sqrt(8) / 2, 0.5)),
        ("muonh", HEAD, (1.0, 1.0, 1.0, 0.5)),
        ("muonh", "model.embed_tokens.weight", (1.0, 1.0, 0.5, 1.0)),
    ],
)
def test_mup_of_steps_that_are_not_adam_s(kind, name, expected):
    found = RULES["mup"].factors(kind, side(), side("wide", **WIDE)).parameters[name]
    assert values(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("fans", [(8, 8), (16, 8), (8, 32)], ids=str)
@pytest.mark.parametrize("kind", ["muon", "normuon", "muonh", "adamh"])
def test_an_update_is_as_large_for_features_of_any_width(kind, fans):
    """What the optimizer itself makes of full gradients: √(out / in) of spectral norm.

    That is against the rule's own formulas. Adam's along one direction is 1 / in by number.
    """
    spec = {
        "muon": schema.MuonSpec(0.1, weight_decay=0.0),
        "normuon": schema.NorMuonSpec(0.1, weight_decay=0.0),
        "muonh": schema.MuonHSpec(0.1, clip_norm=None),
        "adamh": schema.AdamHSpec(0.1, clip_norm=None),
    }[kind]
    names: Any = {"layers": {"up_proj": {"weight": ParameterNames(("up",), stacked=True)}}}
    inner = optimizers.build(spec, names)

    def moved(out, into, scale=1.0, rate=1.0):
        rng = np.random.default_rng(0)
        start, slope = (jnp.asarray(rng.normal(size=(1, out, into)), jnp.float32) for _ in "ab")

        def tree(leaf) -> Any:
            return {"layers": {"up_proj": {"weight": leaf}}}

        start = start * scale / math.sqrt(fans[1])
        hyper = Hyper(tree(jnp.full((1, 1, 1), 0.01 * rate)), jnp.ones(1), jnp.ones(1))
        after, _ = jax.jit(inner.update)(tree(slope), inner.init(tree(start)), tree(start), hyper)
        change = np.asarray(after["layers"]["up_proj"]["weight"] - start)[0]
        if kind == "adamh":
            return np.sqrt(np.mean(change**2)) * into
        return np.linalg.norm(change, 2) / math.sqrt(out / into)

    (out, into), times = fans, 4

    def of(width):  # a projection of the stream, or the way back from an MLP of its own width
        return side(
            str(width),
            {**LLAMA, "hidden_size": into * width, "num_attention_heads": 2 * width},
            intermediate_size=out * width,
        )

    factor = RULES["mup"].factors(kind, of(1), of(times)).parameters[UP]
    before = moved(out, into)
    after = moved(times * out, times * into, factor.initial, factor.learning_rate)
    # Five iterations reach 0.7 to 1.2, the norm of 64 random numbers a tenth; a wrong power is 2.
    assert after == pytest.approx(before, rel=0.25)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        # of the same width, twice the depth, four times the updates; branches are in the weights
        ("muon", UP, (0.5, 0.5, 0.5, 1.0)),
        ("muon", DOWN, (0.25, 1.0, 1.0, 0.5)),
        ("muon", HEAD, (0.5, 0.5, 2.0, 1.0)),
        ("adamh", UP, (0.5, 1.0, 1.0, 1.0)),
        ("adamh", DOWN, (0.5, 1.0, 2.0, 0.5)),
        ("muonh", DOWN, (0.5, 1.0, 1.0, 0.5)),
        ("muonh", NORM, (0.5, 0.5, 2.0, 1.0)),
    ],
)
def test_depth_and_duration_of_steps_that_are_not_adam_s(kind, name, expected):
    deep = side("deep", num_hidden_layers=4, steps=400)
    found = factors_of(kind, side(steps=100), deep, "complete_d_p")
    assert values(found.parameters[name]) == pytest.approx(expected, rel=1e-12)
    assert (found.residual, found.memory) == (1, 0.25)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", sorted({*SAID} - {"adamw"}))
def test_two_steps_are_as_good_as_one(kind, name):
    a = side("a", steps=10)
    b = side("b", enlarged(LLAMA, width=3, depth=2), steps=35)
    c = side("c", enlarged(LLAMA, width=5, depth=2), intermediate_size=40, steps=20)
    first, second, both = (factors_of(kind, *sides, name) for sides in ((a, b), (b, c), (a, c)))
    for parameter, factor in both.parameters.items():
        made = first.parameters[parameter].times(second.parameters[parameter])
        assert values(made) == pytest.approx(values(factor), rel=1e-12)


# Experts.

MOE: dict[str, Any] = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "head_dim": 4,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 4,
    "decoder_sparse_step": 2,
}
OSS: dict[str, Any] = {
    **LLAMA,
    "model_type": "gpt_oss",
    "head_dim": 4,
    "num_key_value_heads": 1,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
OTHER_EXPERTS = {"hidden_size": 16, "num_attention_heads": 4, "moe_intermediate_size": 32}
EXPERT, GATE = "model.layers.1.mlp.experts.3.", "model.layers.1.mlp.gate.weight"


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        # twice the width, experts four times as wide
        ("adamw", EXPERT + "up_proj.weight", (0.5, 2.0, 0.5, ROOT)),
        ("adamw", EXPERT + "down_proj.weight", (0.25, 4.0, 0.5, 0.5)),
        ("adamw", GATE, (0.5, 2.0, 1.0, 0.5)),
        # 4 outputs of 8 inputs, then of 16
        ("muon", GATE, (ROOT, 1 / ROOT, 1 / ROOT, 0.5)),
        ("muon", EXPERT + "up_proj.weight", (1.0, 1.0, math.sqrt(8) / 2, ROOT)),
        ("adamh", GATE, (1.0, 1.0, 1.0, 0.5)),
        ("muonh", GATE, (1.0, 1.0, 1 / ROOT, 0.5)),
    ],
)
def test_experts_are_matrices_and_a_router_is_a_head(kind, name, expected):
    found = RULES["mup"].factors(kind, side(config=MOE), side("wide", MOE, **OTHER_EXPERTS))
    assert values(found.parameters[name]) == pytest.approx(expected, rel=1e-12)


def test_experts_that_share_a_tensor_and_what_chooses_them():
    wide = side("wide", enlarged(OSS, width=2))
    found = RULES["mup"].factors("muon", side(config=OSS), wide).parameters
    first, last = (BLOCK + f"mlp.experts.{name}_proj" for name in ("gate_up", "down"))
    assert values(found[first]) == pytest.approx((0.5, 2.0, 0.5, ROOT))  # by Adam
    assert values(found[last]) == pytest.approx((0.5, 2.0, 0.5, ROOT))
    assert values(found[last + "_bias"]) == (1.0, 1.0, 0.5, 1.0)
    assert values(found[BLOCK + "mlp.router.bias"]) == (1.0, 1.0, 1.0, 1.0)
    assert values(found[BLOCK + "self_attn.sinks"]) == (1.0, 1.0, 0.5, 1.0)
    sinks, bias = (wide.parameters[BLOCK + n] for n in ("self_attn.sinks", "mlp.router.bias"))
    assert (sinks.std, bias.std, bias.role) == (0.02, 0.02, "router_bias")
    deep = factors_of("muon", side(config=OSS), side("deep", enlarged(OSS, depth=2)), "completep")
    assert values(deep.parameters[last]) == (0.5, 2.0, 1.0, 0.5)
    assert values(deep.parameters[last + "_bias"]) == (0.5, 2.0, 1.0, 0.5)


def test_blocks_with_experts_lie_between_blocks_with_experts():
    """Of four blocks the second and fourth have them, of eight each second."""
    found = counterparts(side(config=MOE), side("deep", MOE, num_hidden_layers=8))
    name = "model.layers.{}.mlp.experts.0.up_proj.weight".format
    assert found[name(1)] == Between(name(1), name(1), 0.0)  # at 3/7, before the first
    assert found[name(5)][:2] == (name(1), name(3))
    assert found[name(5)].along == pytest.approx((15 / 7 - 1) / 2)
    assert found[name(7)] == Between(name(3), name(3), 0.0)
    dense = "model.layers.{}.mlp.up_proj.weight".format
    assert found[dense(6)] == Between(dense(2), dense(2), 0.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_experts": 8}, "big, num_experts = 8: must be 4, as in the tuned model: mup says"),
        ({"num_experts_per_tok": 1}, "big, num_experts_per_tok = 1: must be 2, as in the tuned"),
    ],
)
def test_other_numbers_of_experts_are_refused_by_name(changes, expected):
    proxy, big = side(config=MOE), side("big", MOE, **changes)
    assert not proxy.like(big)
    (fault,) = of_the_models(proxy, big, RULES["mup"])
    assert str(fault).startswith(expected)
    assert not list(of_the_models(proxy, big, RULES["none"]))
    assert not list(of_the_models(proxy, side("wide", MOE, **OTHER_EXPERTS), RULES["mup"]))


# Optimizers side by side.

GROUPS = schema.GroupsSpec(
    (
        schema.MuonGroupSpec(0.02, match=r"layers\..*_proj", momentum=0.9, weight_decay=0.2),
        schema.AdamWGroupSpec(0.003, b1=0.8, b2=0.9, weight_decay=0.1),
    ),
    schedule=schema.ConstantSpec(),
)
ONCE = {"inner": {"optimizer": GROUPS, "steps": 6}, "tune": {"mixture": None}}
BIG = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def tuned():
    training = prepare(recipes.tiny(**ONCE))
    return artefact_of(training, training.initial_eta(), {"status": "unfinished"})


@pytest.fixture(scope="module")
def big():
    return prepare(recipes.tiny(BIG, **{**ONCE, "inner": {"optimizer": GROUPS, "steps": 24}}))


@pytest.fixture(scope="module")
def found(tuned, big):
    return toward_training(tuned, big, "big.yaml")


LAST = "model.layers.1."


def test_each_group_follows_by_its_own_optimizer(found, tuned, big, tmp_path):
    """Twice the width and depth, four times the updates: by hand."""
    rates = found.artefact.learning_rates.parameters
    for name, rate in (
        (LAST + "mlp.up_proj.weight", 0.02 / 2),
        (LAST + "mlp.down_proj.weight", 0.02 / 2 / 2),  # its branch is half as large
        ("lm_head.weight", 0.003 / 2 / 2),
        ("model.embed_tokens.weight", 0.003 / 2),
    ):
        np.testing.assert_allclose(rates[name], rate, rtol=1e-6)
    after = found.artefact.optimizer
    muon, adam = after.settings["groups"]
    assert {*muon["parameters"], *adam["parameters"]} == set(rates)
    assert muon["orthogonal"] == muon["parameters"] and LAST + "mlp.up_proj.weight" in rates
    assert len(muon["parameters"]) == 14 and muon["inputs_first"] == []
    assert (muon["momentum"], adam["b1"]) == (0.9, pytest.approx(1 - 0.2 / 4))
    assert (muon["b2"], adam["b2"]) == (pytest.approx(1 - 0.05 / 4), pytest.approx(1 - 0.1 / 4))
    decay = after.schedules and after.schedules.weight_decay
    assert decay is not None
    for name, value in (
        (LAST + "mlp.up_proj.weight", 0.2 / 2),
        (LAST + "mlp.down_proj.weight", 0.2 / 2 * 2),
        ("lm_head.weight", 0.1 / 2 * 2),
        ("model.embed_tokens.weight", 0.1 / 2),
    ):
        np.testing.assert_allclose(decay[name], value, rtol=1e-12)
    asked = demands(found.artefact)
    assert asked is not None
    assert set(asked.settings) == {f"groups[{n}].{key}" for n in (0, 1) for key in ("b1", "b2")}
    assert asked.eps[LAST + "mlp.up_proj.weight"] == pytest.approx(1 / 2)
    assert asked.eps["lm_head.weight"] == pytest.approx(2)
    write(tmp_path / "artefact", found.artefact, "")
    assert load(tmp_path).optimizer.settings == after.settings
    refuse_misfit(found.artefact, big, "big.yaml")
    assert not [line for line in remarks(found.artefact, big) if "optimizer with" in line]
    assert of_artefact(tuned).optimizer == "groups of muon, adamw"


def test_a_training_has_the_numbers_of_each_group(found, big):
    hyper: Any = Schedules(big, found.artefact, 4).segment(8).hyper
    np.testing.assert_allclose(hyper.optimizer["groups[1].b1"], 1 - 0.2 / 4, rtol=1e-6)
    assert "groups[0].momentum" not in hyper.optimizer
    up = ("model", "layers", "mlp", "up_proj", "weight")
    for tree, value in (
        (hyper.learning_rate, 0.01),
        (hyper.optimizer["weight_decay"], 0.1),
        (hyper.eps_scale, 0.5),
    ):
        for key in up:
            tree = tree[key]
        np.testing.assert_allclose(tree, value, rtol=1e-6)


def test_a_population_of_sizes_follows_group_by_group():
    training = prepare(recipes.tiny(**ONCE))
    there = at_size(training, Rung(width=2), "complete_d_p").training
    hyper: Any = there.hyper_over(training.initial_eta(), np.arange(1, dtype=np.int32))
    up = ("model", "layers", "mlp", "up_proj", "weight")
    for path, rate, decay in ((up, 0.02, 0.2), (("lm_head", "weight"), 0.003 / 2, 0.1 * 2)):
        rates, decays = hyper.learning_rate, hyper.optimizer["weight_decay"]
        for key in path:
            rates, decays = rates[key], decays[key]
        np.testing.assert_allclose(rates, rate, rtol=1e-6)
        np.testing.assert_allclose(decays, decay, rtol=1e-6)


def test_what_no_rule_says_of_groups_is_refused(tuned, big):
    proxy, target = of_artefact(tuned), of_training(big, "big")
    groups = [dict(group) for group in tuned.optimizer.settings["groups"]]
    groups[0] = {**groups[0], "kind": "soap"}
    settings = {**tuned.optimizer.settings, "groups": groups}
    other = dataclasses.replace(tuned.optimizer, settings=settings)
    with pytest.raises(ArtefactError) as refused:
        carry(dataclasses.replace(tuned, optimizer=other), proxy, target)
    said = str(refused.value)
    assert "big, optimizer.kind = 'groups of muon, adamw': must be 'groups of soap, adamw'" in said
    assert "optimizer.groups[0].kind = 'soap': complete_d_p says nothing of it" in said
    elsewhere = dataclasses.replace(target, kinds={**target.kinds, UP: "adamw"})
    with pytest.raises(ArtefactError, match=f"must be 'muon', which the rates of {UP} were tuned"):
        carry(tuned, proxy, elsewhere)
    assert carry(tuned, proxy, elsewhere, "none").artefact.optimizer.kinds == ("muon", "adamw")


def test_steps_of_what_a_kind_has_no_word_for_are_adam_s():
    parameters = side(config=OSS).parameters
    bundled = parameters[BLOCK + "mlp.experts.down_proj"]
    assert [step(kind, bundled) for kind in ("muon", "muonh", "adamh")] == ["adam"] * 3
    assert step("muonh", parameters[HEAD]) == "turned"
    assert step("muon", parameters[BLOCK + "mlp.router.weight"]) == "orthogonal"
    rule: Rule = RULES["completep"]
    assert rule.optimizers == SAID
