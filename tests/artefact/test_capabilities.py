import dataclasses

import numpy as np
import pytest

from metatune.artefact import ArtefactError, LearningRates, Mixture, Multipliers
from metatune.artefact.capabilities import able, asked, dropped
from metatune.artefact.exporters import EXPORTERS, export
from metatune.artefact.exporters.base import Production
from metatune.artefact.exporters.base_schedule import described
from metatune.artefact.exporters.one_rate import one_curve, one_rate
from metatune.artefact.exporters.stages import averaged, staged
from metatune.artefact.exporters.static_rates import static_rates

NAMES = ("a.weight", "b.weight")


def with_multipliers(make, knots, groups):
    base = np.array([1e-3, 2e-3, 1e-3, 0.5e-3])
    at = np.array([0.0, 0.25, 0.5, 0.75])
    window = np.searchsorted(knots, at, side="right") - 1
    rates = LearningRates(
        tuple(at.tolist()),
        "constant",
        {name: base * np.array(groups[name])[window] for name in groups},
        Multipliers(knots, groups, {name: (name,) for name in groups}),
    )
    return make(tuple(groups), 100, learning_rates=rates, mixture=None, loss_weights=None)


def test_what_is_asked_for(make):
    everything = make()
    assert asked(everything) == {
        "curves": "rates that move over 2 windows",
        "mixture": "shares of 3 domains",
        "moving_mixture": "shares that change at 4 knots",
        "loss_weights": "loss weights of 3 domains",
        "moving_loss_weights": "loss weights that change at 2 knots",
    }
    one = with_multipliers(make, (0.0,), {"a.weight": (2.0,), "b.weight": (2.0,)})
    assert asked(one) == {}
    two = with_multipliers(make, (0.0,), {"a.weight": (2.0,), "b.weight": (1.0,)})
    assert asked(two) == {"rates": "learning rates of 2 groups of parameters"}
    untuned = dataclasses.replace(
        two, learning_rates=dataclasses.replace(two.learning_rates, multipliers=None)
    )
    assert asked(untuned) == {}


def test_what_is_dropped(make):
    target = able(rates="exact", curves="fitted", mixture="quantised")
    assert list(dropped(make(), target)) == [
        "moving_mixture",
        "loss_weights",
        "moving_loss_weights",
    ]


@pytest.mark.parametrize("target", EXPORTERS)
def test_what_can_not_be_expressed_is_refused_and_listed(make, tmp_path, target):
    artefact = make()
    without = dropped(artefact, EXPORTERS[target].capabilities)
    if not without:
        assert export(artefact, target, tmp_path / "out", sequences_per_step=2048).dropped == ()
        return
    with pytest.raises(ArtefactError) as caught:
        export(artefact, target, tmp_path / "out", sequences_per_step=2048)
    assert [str(fault).split(" = ")[0] for fault in caught.value.faults] == list(without)
    for what in without.values():
        assert f"{target} can't express it: {what}; go on without it (`lossy`)" in str(caught.value)
    assert not (tmp_path / "out").exists()
    done = export(artefact, target, tmp_path / "out", lossy=True, sequences_per_step=2048)
    assert done.dropped == tuple(without.values())
    lost = (tmp_path / "out" / "README.md").read_text().split("## What is lost")[1]
    for what in without.values():
        assert f"- **dropped**: {what}\n" in lost


def test_rates_that_stay_are_exact(make):
    artefact = with_multipliers(make, (0.0,), {"a.weight": (0.1,), "b.weight": (3.0,)})
    rates = static_rates(artefact)
    assert rates.parameters == pytest.approx({"a.weight": 2e-4, "b.weight": 6e-3}, rel=1e-12)
    assert (rates.peak, rates.last) == pytest.approx((2e-3, 0.5e-3), rel=1e-12)
    assert rates.deviation == 0


def test_rates_that_move_have_a_geometric_mean_and_say_how_far_off(make):
    groups = {"a.weight": (1.0, 4.0), "b.weight": (3.0, 3.0)}
    rates = static_rates(with_multipliers(make, (0.0, 0.5), groups))
    assert rates.parameters == pytest.approx({"a.weight": 4e-3, "b.weight": 6e-3}, rel=1e-12)
    assert rates.deviation == pytest.approx(1.0)


def test_one_curve_for_all_is_the_mean_by_size(make):
    groups = {"a.weight": (1.0, 4.0), "b.weight": (1.0, 1.0), "c.weight": (3.0, 1.0)}
    artefact = with_multipliers(make, (0.0, 0.25), groups)
    sizes = {"a.weight": 300, "b.weight": 100, "c.weight": 0}
    production = Production(artefact, 20, 512, None, "fraction", sizes=sizes)
    curve, deviation = one_curve(production)
    rates = artefact.learning_rates.parameters
    expected = np.exp(0.75 * np.log(rates["a.weight"]) + 0.25 * np.log(rates["b.weight"]))
    np.testing.assert_allclose(curve, expected, rtol=1e-12)
    worst = max(np.abs(curve / own - 1).max() for own in rates.values())
    assert deviation == pytest.approx(worst, rel=1e-12)
    text = one_rate(production)
    assert "fitted, the geometric mean" in text and "weighted by their sizes" in text
    assert f"Its peak is {float(curve.max())!r}" in text
    assert "each alike: sizes aren't known" in one_rate(production._replace(sizes=None))


def test_one_rate_that_all_have_is_exact(make):
    artefact = with_multipliers(make, (0.0,), {"a.weight": (2.0,), "b.weight": (2.0,)})
    production = Production(artefact, 20, 512, None, "fraction")
    curve, deviation = one_curve(production)
    assert deviation == 0
    np.testing.assert_array_equal(curve, artefact.learning_rates.parameters["a.weight"])
    assert "the tuned one, which all have" in one_rate(production)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_a_schedule_is_told_in_the_words_of_trainers(kind):
    steps, warmup, peak, last = 200, 10, 3e-3, 0.1
    t = np.arange(warmup, steps) / 1.0
    along = (t - warmup) / (steps - warmup)
    shape = {"constant": 1, "linear": 1 - along, "cosine": 0.5 * (1 + np.cos(np.pi * along))}[kind]
    falling = shape * np.ones_like(t) if kind == "constant" else last + (1 - last) * shape
    curve = peak * np.concatenate([(np.arange(warmup) + 1) / (warmup + 1), falling])
    found = described(curve)
    assert (found.kind, found.warmup) == (kind, warmup)
    assert found.peak == pytest.approx(peak) and found.deviation < 1e-9
    assert found.last == pytest.approx(1.0 if kind == "constant" else last, abs=1e-9)
    end = "" if kind == "constant" else ", to 10 % of the peak"
    assert found.words(steps) == f"{kind} after a linear warmup of 10 updates (5 %){end}"
    bent = described(curve * np.where(np.arange(steps) == 100, 0.5, 1.0))
    assert "off by up to" in bent.words(steps) and bent.deviation > 0.1


def test_stages_of_a_constant_schedule_are_exact():
    shares = np.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9], [1.0, 0.0]])
    mixture = Mixture((0.0, 0.2, 1 / 3, 0.999), "constant", ("x", "y"), shares)
    cut = staged(mixture, 30)
    # Equal neighbours are one; the last begins after the last update.
    assert [(stage.start, stage.values["x"]) for stage in cut.stages] == [(0, 0.5), (10, 0.1)]
    assert cut.deviation == 0
    assert averaged(mixture, 30) == pytest.approx({"x": 7 / 30, "y": 23 / 30})


def test_stages_of_a_line_say_how_far_off_they_are(make):
    shares = np.array([[0.0, 1.0], [0.8, 0.2]])
    mixture = Mixture((0.0, 0.5), "linear", ("x", "y"), shares)
    artefact, steps = make(mixture=mixture), 160
    cut = staged(mixture, steps)
    assert len(cut.stages) == 9
    worst = 0.0
    for step in range(steps):
        stage = [stage for stage in cut.stages if stage.start <= step][-1]
        worst = max(worst, abs(stage.values["x"] - artefact.mixture_at(step, steps)["x"]))
    assert cut.deviation == pytest.approx(worst, rel=1e-9)
    assert 0.04 < worst < 0.06
