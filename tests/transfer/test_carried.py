"""Artefacts carried to other sizes: every number by hand, and what is refused."""

import dataclasses

import numpy as np
import pytest
from transfer_sides import LLAMA, side

from metatune.artefact import (
    Artefact,
    ArtefactError,
    ElementFactors,
    Initialisation,
    LearningRates,
    Mixture,
    Multipliers,
    Optimizer,
    OptimizerSchedules,
    load,
    write,
)
from metatune.artefact.demands import demands, fitted_lines
from metatune.artefact.exporters import export
from metatune.artefact.horizon import base_rates
from metatune.transfer import carry
from metatune.transfer.enlarging import enlarged
from metatune.transfer.mapping import Between, counterparts, depth_of, interpolated
from metatune.transfer.supply import epochs

ADAMW = {
    "kind": "adamw",
    "weight_decay": 0.1,
    "b1": 0.9,
    "b2": 0.95,
    "eps": 1e-8,
    "eps_root": 1e-16,
    "clip_norm": 1.0,
}
UP, DOWN = "mlp.up_proj.weight", "mlp.down_proj.weight"
FIRST, LAST = "model.layers.0.", "model.layers.1."


def tuned(settings=ADAMW, per="kind", **changes):
    """An artefact of the proxy: 10 updates, the base schedule 0.01 and 0.005 in two halves.

    By kind, matrices have twice and thrice that; by layer, the first has 1 and 4, the second 4
    and 1 times it.
    """
    names = list(side().parameters)
    base = np.array([0.01, 0.005])
    if per == "kind":
        blocks = [name for name in names if "proj" in name]
        groups = {"matrix": (2.0, 3.0), "other": (1.0, 1.0)}
        members = {"matrix": blocks, "other": [name for name in names if name not in blocks]}
    else:
        groups = {"model.layers.0": (1.0, 4.0), "model.layers.1": (4.0, 1.0), "other": (1.0, 1.0)}
        members = {
            label: [name for name in names if name.startswith(label + ".")]
            for label in list(groups)[:2]
        }
        members["other"] = [n for n in names if "layers" not in n]
    rates = {name: base * groups[label] for label, own in members.items() for name in own}
    multipliers = Multipliers(
        (0.0, 0.5), groups, {label: tuple(own) for label, own in members.items()}
    )
    whole = Artefact(
        horizon_steps=10,
        horizon_tokens=640,
        learning_rates=LearningRates((0.0, 0.5), "constant", rates, multipliers),
        mixture=Mixture((0.0,), "constant", ("code", "drama"), np.array([[0.75, 0.25]])),
        loss_weights=None,
        optimizer=Optimizer(settings, tuple(name for name in names if "norm" not in name)),
        provenance={
            "model_config": {**LLAMA},
            "domains": {"code": {"tokens": 1000}, "drama": {"tokens": 100}},
        },
        result={},
    )
    return dataclasses.replace(whole, **changes)


PROXY = side(steps=10, batch_size=4, sequence_length=16)


def target(width=1, depth=1, **changes):
    given = {"steps": 10, "batch_size": 4, "sequence_length": 16, **changes}
    return side("big", enlarged(LLAMA, width=width, depth=depth), **given)


def curve(artefact, name):
    return artefact.learning_rates.parameters[name]


def test_relative_depth():
    assert [depth_of(layer, 4, 2) for layer in range(4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [depth_of(layer, 3, 5) for layer in range(3)] == [0, 2, 4]
    assert [depth_of(layer, 3, 1) for layer in range(3)] == [0, 0, 0]
    assert depth_of(0, 1, 3) == 1


def test_layers_lie_between_those_of_the_proxy():
    found = counterparts(PROXY, target(depth=2))
    name = f"model.layers.1.{UP}"
    assert found[name][:2] == (FIRST + UP, LAST + UP)
    assert found[name].along == pytest.approx(1 / 3)
    assert found["model.layers.3." + UP] == Between(LAST + UP, LAST + UP, 0.0)
    assert found["model.norm.weight"] == Between("model.norm.weight", "model.norm.weight", 0.0)


def test_rates_between_layers_are_interpolated_in_log_space():
    carried = carry(tuned(per="layer"), PROXY, target(depth=2), "none").artefact
    # 1 and 4 times the base, 4 and 1: a third of the way from 1 to 4 is 4^(1/3)
    third = np.array([0.01 * 4 ** (1 / 3), 0.005 * 4 ** (2 / 3)])
    np.testing.assert_allclose(curve(carried, "model.layers.1." + UP), third, rtol=1e-12)
    np.testing.assert_array_equal(curve(carried, "model.layers.3." + UP), [0.04, 0.005])
    multipliers = carried.learning_rates.multipliers
    assert multipliers is not None
    assert multipliers.groups["model.layers.1"] == pytest.approx((4 ** (1 / 3), 4 ** (2 / 3)))
    assert set(multipliers.groups) == {*(f"model.layers.{n}" for n in range(4)), "other"}
    np.testing.assert_allclose(base_rates(carried), [0.01, 0.005], rtol=1e-12)


def test_multipliers_on_lines_stay_those_of_the_rates_between_layers():
    whole = tuned(per="layer")
    rates = whole.learning_rates
    assert rates.multipliers is not None
    lines = dataclasses.replace(rates.multipliers, interpolation="linear")
    knots = (0.0, 0.25, 0.5)
    at = {n: np.interp(knots, lines.knots, m) for n, m in lines.groups.items()}
    curves = {
        name: np.array([0.01, 0.01, 0.005]) * at[label]
        for label, names in lines.members.items()
        for name in names
    }
    moving = LearningRates(knots, "constant", curves, lines)
    carried = carry(
        dataclasses.replace(whole, learning_rates=moving), PROXY, target(depth=2), "none"
    ).artefact.learning_rates
    assert carried.multipliers is not None
    made = carried.multipliers.groups["model.layers.2"]
    rate = carried.parameters["model.layers.2." + UP]
    np.testing.assert_allclose(rate, np.array([0.01, 0.01, 0.005]) * made, rtol=1e-12)
    assert carried.multipliers.knots == knots


def test_a_rate_of_zero_stays_zero_between_layers():
    curves = {"a": np.array([0.0, 2.0]), "b": np.array([3.0, 8.0])}
    np.testing.assert_allclose(interpolated(Between("a", "b", 0.5), curves), [0.0, 4.0])


def test_groups_by_kind_map_as_they_are():
    carried = carry(tuned(), PROXY, target(depth=3), "none").artefact.learning_rates
    assert carried.multipliers is not None
    assert carried.multipliers.groups == {"matrix": (2.0, 3.0), "other": (1.0, 1.0)}
    assert "model.layers.5." + DOWN in carried.multipliers.members["matrix"]
    np.testing.assert_array_equal(carried.parameters["model.layers.5." + DOWN], [0.02, 0.015])


def test_the_measured_case_by_hand():
    """Twice as wide and deep, three times the updates: 0.58 to 0.14 of the rates."""
    carried = carry(tuned(), PROXY, target(2, 2, steps=30)).artefact
    root = 3**-0.5
    for name, factor in (
        ("model.embed_tokens.weight", root),
        ("model.layers.3.input_layernorm.weight", root),
        ("lm_head.weight", root / 2),
        ("model.layers.3." + UP, root / 2),
        ("model.layers.3." + DOWN, root / 4),
    ):
        before = curve(tuned(), name.replace("layers.3", "layers.1"))
        np.testing.assert_allclose(curve(carried, name), factor * before, rtol=1e-12)
    asked = demands(carried)
    assert asked is not None and asked.rule == "complete_d_p"
    assert asked.initial_scale["model.layers.3." + UP] == pytest.approx(2**-0.5)
    assert asked.initial_scale["model.layers.3." + DOWN] == pytest.approx(2**-0.5 / 2)
    assert asked.initial_scale["lm_head.weight"] == pytest.approx(0.5)
    assert "model.norm.weight" not in asked.initial_scale
    assert asked.eps["lm_head.weight"] == pytest.approx(3**0.5)
    assert asked.eps["model.layers.0." + UP] == pytest.approx(3**0.5 / 4)
    assert asked.settings == {"b1": pytest.approx(1 - 0.1 / 3), "b2": pytest.approx(1 - 0.05 / 3)}
    decay = carried.optimizer.schedules
    assert decay is not None and decay.weight_decay is not None
    assert decay.weight_decay["model.embed_tokens.weight"] == pytest.approx([0.1 * root])
    assert decay.weight_decay["model.layers.3." + DOWN] == pytest.approx([0.1 * root * 4])
    assert set(decay.weight_decay) == set(carried.optimizer.decayed)
    said = fitted_lines(carried)
    assert "weight decay of model.embed_tokens.weight: x0.5774" in said
    assert "Adam's eps of lm_head.weight: x1.732" in said
    assert carried.mixture is not None
    np.testing.assert_array_equal(carried.mixture.weights, [[0.75, 0.25]])


def test_a_longer_training_of_the_same_model_changes_settings_alone():
    carried = carry(tuned(), PROXY, target(steps=40))
    settings = carried.artefact.optimizer.settings
    assert settings["weight_decay"] == pytest.approx(0.05)
    assert settings["eps"] == pytest.approx(2e-8)
    assert settings["eps_root"] == pytest.approx(4e-16)
    assert carried.artefact.optimizer.schedules is None
    assert carried.demands is not None
    assert (carried.demands.eps, carried.demands.initial_scale) == ({}, {})
    assert carried.undone == ()
    half = 0.5 * curve(tuned(), FIRST + UP)
    np.testing.assert_allclose(curve(carried.artefact, FIRST + UP), half, rtol=1e-12)


def test_a_shorter_training_forgets_at_most_everything_and_is_warned_of():
    found = carry(tuned(), PROXY, target(steps=1))
    (said,) = found.warnings
    assert said.startswith("warning: a training 10 times shorter than the tuned one")
    assert not carry(tuned(), PROXY, target(steps=1), "none").warnings
    assert not carry(tuned(), PROXY, target(steps=20)).warnings
    carried = found.artefact
    assert carried.optimizer.settings["b1"] == pytest.approx(0.0, abs=1e-12)
    assert carried.optimizer.settings["b2"] == pytest.approx(0.5)
    first = side(steps=100, batch_size=4, sequence_length=16)
    assert carry(tuned(), first, target(steps=1)).artefact.optimizer.settings["b1"] == 0.0


def test_what_was_tuned_of_the_optimizer_follows():
    names = tuned().optimizer.decayed
    schedules = OptimizerSchedules(
        (0.0, 0.5),
        "constant",
        {"b2": np.array([0.9, 0.8])},
        {name: np.array([0.1, 0.2]) for name in names},
    )
    whole = tuned(optimizer=Optimizer(ADAMW, names, schedules))
    found = carry(whole, PROXY, target(2, steps=40)).artefact.optimizer.schedules
    assert found is not None and found.weight_decay is not None
    assert found.values["b2"] == pytest.approx([0.975, 0.95])
    assert found.weight_decay[FIRST + UP] == pytest.approx([0.1, 0.2])  # x2 width, /2 updates
    assert found.weight_decay["model.embed_tokens.weight"] == pytest.approx([0.05, 0.1])


@pytest.mark.parametrize("rule", [None, "none", "mup", "completep", "complete_d_p"])
def test_equal_sizes_are_the_very_same_artefact(rule):
    whole = tuned()
    carried = carry(whole, PROXY, target(), rule)
    assert carried.artefact is whole
    assert (carried.done, carried.left, carried.demands) == ((), (), None)
    batch = carry(whole, PROXY, target(batch_size=8), rule)
    assert batch.artefact is whole


def test_a_carried_artefact_is_written_and_read_back_and_is_of_its_target(tmp_path):
    carried = carry(tuned(), PROXY, target(2, 2, steps=30))
    write(tmp_path / "artefact", carried.artefact, "")
    back = load(tmp_path)
    assert demands(back) == carried.demands
    assert fitted_lines(back) == [*carried.done, *carried.left, *carried.undone]


@pytest.mark.parametrize("name", ["torch", "csv", "megatron"])
def test_an_export_says_that_its_rates_are_fitted(tmp_path, name):
    carried = carry(tuned(), PROXY, target(2, 2, steps=30)).artefact
    export(carried, name, tmp_path / "out", lossy=True, sequences_per_step=4)
    readme = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "**fitted**, not tuned: the rates were carried from proxy to big",
        "width 8 to 16, depth 2 to 4, updates 10 to 30",
        "by Complete(d)P (Mlodozeniec et al. 2025, table 1)",
        "fresh numbers of lm_head.weight: x0.5 (a standard deviation of 0.01 instead of 0.02)",
        "exported for 30 updates",
    ):
        assert said in readme
    assert fitted_lines(tuned()) == []


def refused(artefact, other, rule=None, proxy=PROXY):
    with pytest.raises(ArtefactError) as caught:
        carry(artefact, proxy, other, rule)
    return str(caught.value)


def test_bad_input_is_named_all_together():
    other = side(
        "other",
        {"model_type": "gpt2", "n_embd": 8, "n_layer": 2, "n_head": 2, "vocab_size": 17},
        tokenizer_sha256="ab",
        optimizer="lion",
    )
    whole = tuned(provenance={"lora": {"rank": 4}, "weights_sha256": "ef"})
    said = refused(whole, other, proxy=side(steps=10, tokenizer_sha256="cd"))
    for part in (
        "other, model_type = 'gpt2': must be 'llama', the family that was tuned",
        "other, hash of the tokenizer = 'ab': must be that of the tuned training, cd",
        "other, optimizer.kind = 'lion': must be 'adamw', which the rates were tuned for: comp",
        "provenance.lora = {'rank': 4}: adapters start from a pretrained model",
        "provenance.weights_sha256 = 'ef': complete_d_p is about trainings from fresh parameters",
    ):
        assert part in said


def test_tied_against_untied_is_refused():
    said = refused(tuned(), side("other", tie_word_embeddings=True))
    assert "other, tie_word_embeddings = True: must be False, as in the tuned model" in said
    assert "tie both or none, and tune anew" in said


def test_another_rule_is_refused_with_the_nearest():
    said = refused(tuned(), target(2), "completed_p")
    assert "--rule = 'completed_p': unknown rule; did you mean complete" in said


def test_what_has_shapes_is_refused_at_other_shapes():
    whole = tuned()
    factors = {name: np.ones((1, 1), np.float32) for name in whole.learning_rates.parameters}
    elements = ElementFactors((0.0,), "constant", factors)
    rates = dataclasses.replace(whole.learning_rates, multipliers=None, elements=elements)
    said = refused(dataclasses.replace(whole, learning_rates=rates), target(2))
    assert "learning_rates.elements: rates within parameters have the shapes of" in said
    start = Initialisation("point", {"model.norm.weight": np.ones(8, np.float32)}, None)
    said = refused(dataclasses.replace(whole, initialisation=start), target(2))
    assert "initialisation: the weights of a tuned start have the shapes of the tuned" in said


SGD = {"kind": "sgd", "weight_decay": 0.0, "momentum": 0.9, "nesterov": False, "clip_norm": None}


@pytest.mark.parametrize(
    ("own", "more", "expected"),
    [
        ({"mup": True}, {}, ["proxy, mup = True: says that the model scales itself", "big, mup"]),
        ({}, {"mup_base_width": 64}, ["big, mup_base_width = 64: says that the model scales"]),
        (
            {"model_type": "granite", "residual_multiplier": 0.3},
            {"residual_multiplier": 0.2},
            ["big, residual_multiplier = 0.2: must be 0.3, as in the tuned model, which"],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::metatune.recipe.faults.ConfigWarning")
def test_a_model_that_scales_itself_is_not_scaled_again(own, more, expected):
    proxy = side(**own)
    big = side("big", **{**own, **more}, hidden_size=16, num_attention_heads=4)
    with pytest.raises(ArtefactError) as refused:
        carry(tuned(), proxy, big)
    assert len(refused.value.faults) == len(expected)
    for fault, begin in zip(refused.value.faults, expected, strict=True):
        assert str(fault).startswith(begin), fault
        assert str(fault).endswith("; --rule none takes the rates as they are")
    assert carry(tuned(), proxy, big, "none").demands is not None


def test_a_rule_that_says_nothing_of_the_optimizer_is_refused_at_other_shapes():
    said = refused(tuned(settings=SGD), target(2))
    only = "complete_d_p says nothing of it (only of adamw, muon, normuon, muonh, adamh)"
    assert f"optimizer.kind = 'sgd': {only}" in said
    assert "--rule none takes the rates as they are" in said
    said = refused(tuned(settings={**SGD, "clip_norm": 1.0}), target(2), "mup")
    assert "optimizer.clip_norm = 1.0: clipping makes the steps of SGD depend" in said
    found = carry(tuned(settings=SGD), PROXY, target(4), "mup").artefact
    np.testing.assert_allclose(curve(found, "lm_head.weight"), [0.0025, 0.00125])


def test_of_the_same_shapes_they_are_taken_as_they_are_and_it_is_said():
    whole = tuned(settings=SGD)
    carried = carry(whole, PROXY, target(steps=20))
    assert carried.artefact is whole
    assert carried.done == (
        "the rates are taken as they are: optimizer.kind = 'sgd': complete_d_p says nothing of it "
        "(only of adamw, muon, normuon, muonh, adamh)",
    )
    assert "says nothing of it" in refused(whole, target(steps=20), "complete_d_p")


def test_trainings_that_do_not_begin_fresh_or_train_a_part_are_not_followed():
    said = refused(tuned(), target(2, start="pretrained weights"))
    assert "big, start = 'pretrained weights': complete_d_p is about trainings from fresh" in said
    part = dict(tuned().learning_rates.parameters)
    del part["lm_head.weight"]
    part["auxiliary_head.weight"] = part["model.norm.weight"]
    rates = LearningRates((0.0, 0.5), "constant", part)
    said = refused(tuned(learning_rates=rates), target(2))
    for part in ("'lm_head.weight': wasn't trained", "'auxiliary_head.weight': is no parameter of"):
        assert f"learning_rates.parameters = {part}" in said
    longer = carry(tuned(learning_rates=rates), PROXY, target(steps=20))
    assert longer.artefact.learning_rates is rates


def test_nothing_is_carried_twice():
    once = carry(tuned(), PROXY, target(2)).artefact
    said = refused(once, target(4), proxy=target(2))
    assert "provenance.fitted = 'complete_d_p': the artefact was carried to other sizes" in said
    assert "carry the one of the run over instead of an export" in said


def test_epochs_of_each_domain_at_the_new_horizon():
    other = target(steps=100)  # 6400 tokens, a quarter of them of drama, which has 100
    assert epochs(tuned(), other, {"code": 1000, "drama": 100}) == {
        "code": pytest.approx(4.8),
        "drama": pytest.approx(16.0),
    }
    said = carry(tuned(), PROXY, other).warnings
    assert [line.split(":")[1].strip().split(";")[0] for line in said] == [
        "the tuned shares read code 4.8 times over (1,000 tokens)",
        "the tuned shares read drama 16.0 times over (100 tokens)",
    ]
    assert carry(tuned(), PROXY, other, tokens={"code": 10**6, "drama": 10**6}).warnings == ()
    assert carry(tuned(), PROXY, target()).warnings == ()
