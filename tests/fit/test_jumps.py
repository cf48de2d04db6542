"""Jumps of a hypergradient's norm: one alarm for one, none for what grows smoothly."""

import dataclasses
from typing import Any

import numpy as np
import optax
import pytest

from metatune.fit.searching.jumps import ENOUGH, JUMP, clipped, jumps
from metatune.fit.searching.outer_optimizers import build
from metatune.recipe import schema
from metatune.recipe.phases import Phase
from metatune.report.search import jump

OUTER = schema.OuterSpec(steps=20)
PHASE = Phase(0, 20, schema.MixFlowSpec(), schema.FullSpec(), schema.AdamSpec())


def found(norms, outer=OUTER, phase=PHASE, factors=(0.5, 8.0), **further):
    """The jumps of a search, by point."""
    before, told = [], {}
    for step, norm in enumerate(norms):
        line = {
            "step": step,
            "phase": 0,
            "inner_steps": 100,
            "objective": 1.0,
            "hypergradient_norm": {"learning_rates": norm, "mixture": 0.05},
            **{key: values[step] for key, values in further.items()},
        }
        if new := jumps(before, line, outer, phase, factors):
            told[step] = line["jumps"] = new
        before.append(line)
    return told


def test_one_jump_is_told_once():
    told = found([0.05, 0.06, 0.07, 0.06, 0.80, 0.9, 1.2, 0.05, 0.06, 0.05, 0.06, 0.9])
    assert list(told) == [4] and list(told[4]) == ["learning_rates"]
    jumped = told[4]["learning_rates"]
    assert (jumped["norm"], jumped["before"]) == (0.80, pytest.approx(0.06))
    sentence = jump(4, "learning_rates", jumped)
    assert sentence.startswith(
        "point 4: the hypergradient of learning_rates jumped to a norm of 0.8, 13 times the median "
        "of the points before it, 0.06: likely because rates have grown, to x8.00 of the recipe's "
        "at most: through 100 inner steps the adjoint grows with them"
    )
    assert "; outer.clip_norm let it pass; Adam's steps stay within 1.0 times its rate" in sentence


def test_smooth_sequences_raise_no_alarm():
    assert not found(0.05 * 2.0 ** np.arange(20))
    assert not found(0.05 * 0.5 ** np.arange(20))
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 200)
    assert not found(0.05 * np.exp(noise))
    assert not found([0.0] * 5 + [0.1] * 5)  # of nothing no multiple


def test_too_few_norms_tell_nothing():
    assert not found([0.06] * (ENOUGH - 1) + [0.06 * 100])
    assert list(found([0.06] * ENOUGH + [0.06 * JUMP * 1.01])) == [ENOUGH]
    assert not found([0.06] * ENOUGH + [0.06 * JUMP * 0.99])


def test_only_like_is_compared_with_like():
    norms = [0.06] * 5 + [0.8] * 5
    assert not found(norms, inner_steps=[50] * 5 + [100] * 5)
    assert not found(norms, phase=dataclasses.replace(PHASE, unroll=schema.OnlineSpec(window=4)))


def test_rates_that_have_not_grown_are_not_the_cause():
    told = jump(5, "mixture", found([0.06] * 5 + [0.8], factors=(0.9, 1.1))[5]["learning_rates"])
    assert "rates have hardly grown (x1.10 of the recipe's at most)" in told
    told = jump(5, "mixture", found([0.06] * 5 + [0.8], factors=None)[5]["learning_rates"])
    assert "likely the training of 100 inner steps has become chaotic" in told


@pytest.mark.parametrize("clip_norm", [None, 1.0, 0.5])
@pytest.mark.parametrize("clip", [None, 0.6, {"mixture": 0.1}])
def test_what_clipping_did_is_what_the_optimizer_does(clip_norm, clip):
    outer = dataclasses.replace(OUTER, clip_norm=clip_norm, clip=clip)
    gradient = {"learning_rates": np.array([2, 1], np.float32), "mixture": np.ones(3, np.float32)}
    norms = {key: float(optax.tree.norm(leaf)) for key, leaf in gradient.items()}
    optimizer = build(schema.DescentSpec(learning_rate=1.0, momentum=1e-9), clip_norm, clip)
    moved: Any = optimizer.update(gradient, optimizer.init(gradient))[0]
    for key, leaf in gradient.items():
        factor = -float(moved[key][0]) / float(leaf[0])
        assert clipped(outer, norms, key) == pytest.approx(factor, rel=1e-5)


def test_the_response_names_clipping_and_optimizer():
    norms = [0.06] * 5 + [2.0]
    sign = dataclasses.replace(PHASE, optimizer=schema.SignSpec())
    descent = dataclasses.replace(PHASE, optimizer=schema.DescentSpec())
    free = dataclasses.replace(OUTER, clip_norm=None)
    own = dataclasses.replace(OUTER, population=schema.PopulationSpec(2))

    def response(outer, phase):
        return found(norms, outer, phase)[5]["learning_rates"]["response"]

    assert response(OUTER, sign) == (
        "outer.clip_norm scaled it by 0.5; the sign of a hypergradient knows no norm"
    )
    assert response(free, descent).startswith("nothing clips it (outer.clip_norm and outer.clip")
    assert response(free, descent).endswith("descent moves as far as the norm says")
    assert "clipped each member's by itself" in response(own, PHASE)
