"""The same choice, whatever noise there is in the timings."""

import dataclasses
from importlib import import_module

import numpy as np
import pytest
from cells import cells
from recipes import CODE, tiny

from metatune import plan as plans
from metatune.inner import prepare
from metatune.plan import (
    Alternative,
    Memory,
    Pace,
    Plan,
    cost_model,
    counting,
    forward_mode,
    reverse_mode,
)
from metatune.plan.alternatives import slower
from metatune.plan.compiling import Program
from metatune.plan.measuring import MeasuredWay
from metatune.plan.timing import Samples, summary
from metatune.recipe import schema

RECIPE = tiny(
    data={"domains": {"code": CODE}},
    inner={"steps": 20},
    tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="global", windows=4)),
    outer={"objective": schema.ObjectiveSpec(sequences=16, micro_batch=8)},
)
DRAWS = 200
WAYS = import_module("metatune.plan.alternatives")  # the package has a function of that name
TRUE = {  # seconds of a gradient are one; the last has four directions in the second half
    "mixflow": {"forward": 1.0, "pullback": 2.6},
    "reverse": {"forward": 1.0, "pullback": 4.6},
    "forward": {forward_mode.PLAIN: 1.0, forward_mode.PUSH: 10.0},
}


def drawn(kind, random, spread, rounds=3):
    """Noisy timings: a busy machine slows down all of a round, and each a little by itself."""
    load = random.lognormal(0.0, 0.5, rounds)

    def noisy(seconds):
        return tuple(seconds * load * random.lognormal(0.0, spread, rounds))

    return summary(
        {name: Samples(1, noisy(0.01), noisy(0.01 + step)) for name, step in TRUE[kind].items()}
    )


PICKS = {
    "mixflow": (schema.MixFlowSpec(segment=4), 0.5, "as in the recipe"),
    "recomputed": (schema.MixFlowSpec(segment=4, save_gradients=False), 0.5, "mixflow"),
    "reverse": (schema.ReverseSpec(segment=4), 0.5, "mixflow"),
    "forward": (schema.ForwardSpec(segment=4), 0.1, "mixflow"),
}


@pytest.mark.parametrize(("spec", "spread", "pick"), cells(PICKS, {"recomputed", "reverse"}))
def test_the_same_pick_in_all_draws(spec, spread, pick, monkeypatch, tmp_path):
    """What is known by counting isn't turned round by noise that is as large as the differences."""

    def analysed(lower, tell):
        return {name: Program(name, name, None, 1000, 0.0) for name in lower}

    for module in (reverse_mode, forward_mode):
        monkeypatch.setattr(module, "analysed", analysed)
    outer = dataclasses.replace(RECIPE.outer, estimator=spec)
    training = prepare(dataclasses.replace(RECIPE, outer=outer))
    random, kept, measured = np.random.default_rng(0), {}, []
    cost = cost_model.cost(training, spec, tmp_path)

    def remembered(function, *, by):
        def call(*given):
            key = (function.__name__, given[by])
            return kept[key] if key in kept else kept.setdefault(key, function(*given))

        return call

    def noisy(training, folder, tell):
        measured.append(drawn(spec.kind, random, spread))
        return MeasuredWay(training, cost, measured[-1])

    monkeypatch.setattr(WAYS, "forward_may_fit", lambda training, few=True: few)
    monkeypatch.setattr(WAYS, "limit_bytes", lambda: 10**12)
    for name, by in (("_memory", 1), ("in_all", 1)):
        monkeypatch.setattr(counting, name, remembered(getattr(counting, name), by=by))
    monkeypatch.setattr(cost_model, "cost", remembered(cost_model.cost, by=1))
    monkeypatch.setattr(WAYS, "in_all", counting.in_all)
    monkeypatch.setattr(WAYS, "measured", noisy)
    picks = [plans.plan(training, folder=tmp_path).pick for _ in range(DRAWS)]
    assert {way.name for way in picks if way} == {pick}
    assert None not in picks
    assert len({str(timings) for timings in measured}) == DRAWS  # the noise was there


def way(name, carry, rounds, counted=False):
    pace = Pace(min(rounds), 1.0, 1.0, 1.0, 0.0, tuple(rounds))
    memory = Memory(1, carry, 0, 0, host=0, disk=0, recomputed_segments=0)
    return Alternative(name, (), memory, pace, counted=counted)


def test_what_is_as_fast_within_the_spread_is_decided_by_memory_then_by_order():
    """A busy machine slows down all that is timed in a round, and each a little by itself."""
    random = np.random.default_rng(1)

    def rounds(seconds):
        return seconds * load * random.lognormal(0.0, 0.03, 5)

    for _ in range(DRAWS):
        load = random.lognormal(0.0, 0.5, 5)
        large, small = way("large", 9, rounds(1.0)), way("small", 3, rounds(1.01))
        made = Plan((large, small), 100, "cpu")
        assert made.pick is small
        assert "as fast within the spread of the timings, and takes less memory" in made.why
        alike = way("alike", 9, rounds(1.0))
        assert Plan((large, alike), 100, "cpu").pick is large
        slow = way("slow", 3, rounds(1.3))
        assert Plan((large, slow), 100, "cpu").pick is large
        assert slower(slow, large) and not slower(large, slow)


def test_what_does_not_fit_is_not_picked_however_fast():
    fast, slow = way("fast", 200, [1.0]), way("slow", 3, [2.0])
    assert Plan((fast, slow), 100, "cpu").pick is slow
