"""Rates follow the widths of a model by tables 3 and 8 of Tensor Programs V."""

import dataclasses

import numpy as np
import pytest

from metatune.artefact import ArtefactError
from metatune.artefact.exporters import EXPORTERS, export
from metatune.artefact.horizon import base_rates
from metatune.artefact.widths import Fans, Widths, fitted_lines, widened

NAMES = ("embed.weight", "mlp.weight", "norm.weight", "lm_head.weight")


def model(width, source="the tuned model", tied=False, head=4, family="llama", names=NAMES):
    fans = (Fans(1, width), Fans(width, 4 * width), Fans(1, width), Fans(width, 1))
    return Widths(source, family, dict(zip(names, fans, strict=False)), width, tied, head)


def factors(make, settings, by=2.0, tied=False):
    tuned = make(names=NAMES, settings=settings)
    wide = widened(tuned, model(8), model(int(8 * by), "wide", tied), "mup")
    found = []
    for name in NAMES:
        ours, theirs = (a.learning_rates.parameters[name] for a in (tuned, wide))
        np.testing.assert_allclose(theirs, ours * theirs[0] / ours[0], rtol=1e-15)
        found.append(theirs[0] / ours[0])
    return found


def test_under_adam_a_rate_falls_with_the_fan_in(make):
    assert factors(make, make().optimizer.settings) == pytest.approx([1, 0.5, 1, 0.5])
    assert factors(make, make().optimizer.settings, by=0.5) == pytest.approx([1, 2, 1, 2])


def test_under_sgd_a_rate_follows_both_fans(make, sgd):
    assert factors(make, sgd, by=4) == pytest.approx([4, 1, 4, 0.25])


@pytest.fixture
def sgd():
    names = ("kind", "weight_decay", "momentum", "nesterov", "clip_norm")
    return dict(zip(names, ("sgd", 0.0, 0.9, False, None), strict=True))


def test_the_base_schedule_stays_and_the_groups_part_by_factor(make):
    tuned = make(names=NAMES)
    wide = widened(tuned, model(8), model(16, "wide"), "mup").learning_rates
    multipliers = wide.multipliers
    assert multipliers is not None
    assert multipliers.groups == {"all, width x1": (0.3, 1.7), "all, width x0.5": (0.15, 0.85)}
    assert multipliers.members["all, width x0.5"] == ("mlp.weight", "lm_head.weight")
    one = dict.fromkeys(NAMES, np.full(20, 0.25))
    plain = dataclasses.replace(tuned.learning_rates, parameters=one, multipliers=None)
    plain = dataclasses.replace(tuned, learning_rates=plain)
    carried = widened(plain, model(8), model(16, "wide"), "mup")
    np.testing.assert_array_equal(base_rates(carried), base_rates(plain))


@pytest.mark.parametrize("target", ["torch", "csv", "megatron"])
def test_an_export_says_that_its_rates_are_fitted(make, tmp_path, target):
    wide = widened(make(names=NAMES), model(8), model(16, "wide", tied=True, head=16), "mup")
    assert target in EXPORTERS
    export(wide, target, tmp_path / "out", lossy=True, sequences_per_step=8)
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "**fitted**, not tuned: the rates were carried to wide by muP" in readme
    assert "table 8" in readme and "x0.5 for 2 parameters" in readme
    assert "multiply the logits by 0.5" in readme
    assert "multiply the attention scores by 0.5" in readme
    assert "weight decay acts through the rates" in readme
    assert fitted_lines(make()) == []


def refused(artefact, target, rule="mup"):
    with pytest.raises(ArtefactError) as caught:
        widened(artefact, model(8), target, rule)
    return str(caught.value)


def test_layers_beyond_the_tuned_depth_are_named_on_both_sides(make):
    names = ("embed.weight", "mlp2.weight", "norm.weight", "lm_head.weight")
    said = refused(make(names=NAMES), model(16, "deep", names=names))
    assert "1 parameters of the artefact that deep doesn't have:" in said
    assert "    mlp.weight (nearest: mlp2.weight)" in said
    assert "    mlp2.weight (nearest: mlp.weight)" in said


def test_what_the_rule_can_not_do_is_refused_together(make, sgd):
    artefact = make(names=NAMES, settings={**sgd, "clip_norm": 1.0})
    artefact = dataclasses.replace(
        artefact, provenance={"lora": {"rank": 4}, "weights_sha256": "ab"}
    )
    said = refused(artefact, model(16, "other", family="gpt2"), "mupp")
    for part in (
        "export: 5 faults",
        "--widths = 'mupp': unknown rule; did you mean mup?",
        "other, model_type = 'gpt2': must be 'llama', the family that was tuned",
        "optimizer.clip_norm = 1.0: clipping makes the steps of SGD depend",
        "provenance.lora = {'rank': 4}: muP is about trainings from fresh parameters",
        "provenance.weights_sha256 = 'ab': muP is about",
    ):
        assert part in said


def test_another_optimizer_is_refused(make):
    said = refused(make(names=NAMES, settings={"kind": "lion", "clip_norm": None}), model(16))
    assert "optimizer.kind = 'lion': muP has no rule for it here (only for adamw, sgd)" in said


def test_no_width_is_fitted_twice(make):
    once = widened(make(names=NAMES), model(8), model(16, "wide"), "mup")
    assert "carried to another width before; export from the run" in refused(once, model(16))
