"""Verdicts from numbers alone: written by hand, and recorded of the quickstart."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metatune.check import Settings, as_record, certificate, from_record
from metatune.check.agreement import judge_agreement
from metatune.check.certificate import explained
from metatune.check.horizons import Flipped, judged
from metatune.check.horizons import HorizonRow as Shorter
from metatune.check.levels import (
    CHAOS,
    DAMPED,
    EPS_ROOT,
    ESTIMATOR,
    GREEN,
    HORIZON,
    LEARNING_RATE,
    LONGER,
    NOISE,
    ROUGH,
    ROUNDING,
    SAMPLING,
    SHORTENED,
    STRIDE,
    UNSETTLED,
    WRINKLED,
    Finding,
    unresolved,
)
from metatune.check.limits import limits
from metatune.check.linearity import judge_linearity
from metatune.check.metasmoothness import judge_metasmoothness
from metatune.check.numbers import (
    AtHorizon,
    CheckedHorizon,
    Compared,
    Moved,
    Numbers,
    Sample,
    Sides,
)
from metatune.check.signal import judge_signal, least
from metatune.check.slopes import EPSILONS

RECORDS = Path(__file__).parent / "records"
EPS = float(np.finfo(np.float32).eps)
OWN, QUARTER = CheckedHorizon(100, 100, 100), CheckedHorizon(25, 25, 25)


def sampled(gradient, value=3.0):
    return Sample(value, np.array(gradient, float), np.zeros(len(gradient)), True)


def smooth(derivative, value=3.0):
    """The objective `value + derivative x + x³` on either side."""
    return {
        e: (value + derivative * e + e**3, value - derivative * e - e**3) for e in EPSILONS[4:6]
    }


def numbers(horizon=OWN, seeds=4, scale=0.1, spread=0.01, **changes):
    """A sound training of two coordinates, one window."""
    rng = np.random.default_rng(0)
    samples = tuple(sampled([scale, -scale] + spread * rng.normal(size=2)) for _ in range(seeds))
    gradient = samples[0].gradient
    own = Numbers(
        horizon=horizon,
        own=OWN,
        estimator="MixFlow",
        eps=EPS,
        shapes={"mixture": (1, 2)},
        settings=Settings(seeds, 1, 0.2),
        before=5.0,
        samples=samples,
        slopes=tuple(
            Sides(f"mixture[0,{i}]", "coordinate", d, 0.0, smooth(d))
            for i, d in enumerate(gradient)
        ),
        compared=Compared("Forward", gradient, gradient, np.zeros(2), ""),
        moved=Moved(0.95, 1.0),
        stretches=(AtHorizon("1/2 of the steps", horizon.steps // 2, samples),),
        whole=None,
    )
    return replace(own, **changes)


def judge(numbers) -> Any:
    """The certificate, its checks taken to be made."""
    return certificate.judge(numbers)


def levels(certificate):
    return {name: its.finding for name, its in certificate.checks.items() if its is not None}


def recorded(name):
    return from_record(json.loads((RECORDS / f"{name}.json").read_text()))


def test_a_sound_training_is_green_at_any_horizon():
    for horizon in (OWN, QUARTER):
        certificate = judge(numbers(horizon))
        assert set(levels(certificate).values()) == {GREEN}
        assert certificate.causes == ()


def test_a_record_is_judged_as_the_numbers_are():
    own = numbers(QUARTER)
    again = from_record(json.loads(json.dumps(as_record(own, digits=17))))
    assert as_record(again, digits=17) == as_record(own, digits=17)
    assert judge(again) == judge(own)
    stretch = replace(own, whole=own.stretches[0], moved=None, compared=None, slopes=())
    again = from_record(json.loads(json.dumps(as_record(stretch))))
    assert again.moved is again.compared is None
    assert again.whole is not None
    assert again.whole.steps == 12


def test_what_is_not_finite_comes_back():
    broken = numbers(samples=(sampled([np.nan, np.inf], np.inf)._replace(finite_losses=False),))
    again = from_record(json.loads(json.dumps(as_record(broken))))
    np.testing.assert_array_equal(again.samples[0].gradient, [np.nan, np.inf])
    assert again.rounding == 0
    assert judge(replace(broken, moved=None, compared=None)).causes == (LEARNING_RATE,)


# Growth.


def test_growth_is_amber_where_half_of_the_seeds_have_it():
    """The median over seeds, and the origin of the seed with the most."""
    born = {"before": 40, "steepest": [5, 10]}
    own = numbers(seeds=3)
    grown = [[9.0, 1.0], [11.0, 2.0], [np.inf, 3.0]]
    samples = tuple(
        sample._replace(grown=np.array(times), origin={**born, "seed": number})
        for number, (sample, times) in enumerate(zip(own.samples, grown, strict=True))
    )
    blocks = ("mixture window 1", "mixture window 2")
    found = judge(replace(own, samples=samples, blocks=blocks))
    assert found.growth.windows == {"mixture window 1": 11.0, "mixture window 2": 2.0}
    assert found.growth.dominated == ("mixture window 1",)
    assert found.growth.origin == {**born, "seed": 2}
    assert found.verdict == "amber"
    assert found.causes == (CHAOS,)
    calm = tuple(sample._replace(grown=np.minimum(sample.grown, 9.9)) for sample in samples)
    found = judge(replace(own, samples=calm, blocks=blocks))
    assert found.verdict == "green"
    assert found.growth.dominated == ()


def test_a_cap_in_force_is_no_fault_of_the_estimator():
    """What it takes away, an exact estimator has; without it the same numbers are red."""
    own = numbers()
    assert own.compared is not None
    off = replace(own, compared=own.compared._replace(derivatives=own.compared.exact / 2))
    assert judge(off).agreement.finding.causes == (ESTIMATOR,)
    capped = (own.samples[0]._replace(damped=0.5), *own.samples[1:])
    finding = judge(replace(off, samples=capped)).agreement.finding
    assert finding == unresolved(DAMPED)


# The training.


@pytest.mark.parametrize(
    ("rise", "level"), [(-0.1, "green"), (EPS, "green"), (0.01, "amber"), (0.2, "red")]
)
def test_a_rise_within_rounding_is_none(rise, level):
    assert judge(numbers(before=3.0 / (1 + rise))).training.finding.level == level


# All together.


def test_only_all_checks_together_tell_a_rough_training_from_a_wrong_derivative():
    sound = judge(numbers())
    off = replace(sound.differences, finding=Finding("red", (ESTIMATOR,)), ratio=50.0, excess=50.0)
    rough = replace(sound.metasmoothness, finding=Finding("red", (LEARNING_RATE,)))
    wrong = replace(sound.agreement, finding=Finding("red", (ESTIMATOR,)))

    def told(differences, agreement, metasmoothness):
        one, other = explained(differences, agreement, metasmoothness)
        return one.finding, other.finding

    assert told(off, sound.agreement, sound.metasmoothness)[0] == Finding("red", (EPS_ROOT,))
    assert told(off, sound.agreement, rough)[0] == Finding("red", (LEARNING_RATE,))
    less = replace(off, excess=0.9, ratio=1.4)
    assert told(less, sound.agreement, sound.metasmoothness)[0] == Finding("amber", (ROUGH,))
    # Rounding that chaos blows up sets exact estimators apart.
    chaotic = Finding("red", (LEARNING_RATE,))
    assert told(off, wrong, rough) == (chaotic, chaotic)
    assert told(off, wrong, sound.metasmoothness) == (off.finding, wrong.finding)
    assert told(replace(off, ratio=1.5), wrong, rough) == (off.finding, wrong.finding)


# The other estimator.


def agreement(derivatives, exact, errors=(0.0, 0.0), **changes):
    one, other, error = (np.array(values, float) for values in (derivatives, exact, errors))
    return judge_agreement(numbers(**changes), Compared("Forward", one, other, error, ""))


def test_estimators_are_compared_beyond_rounding():
    assert agreement([1, 1], [1, 1.0001]).finding == GREEN
    assert agreement([1, 1], [1, 1.05]).finding == Finding("amber", (ESTIMATOR,))
    assert agreement([1, 1], [1, 1.5]).finding == Finding("red", (ESTIMATOR,))
    tiny = 2 * EPS
    assert agreement([tiny, 0], [0, tiny]).finding == unresolved(ROUNDING)
    assert agreement([0, 0], [0, 0]).finding == unresolved(ROUNDING)
    assert agreement([0, 0], [0, 0]).relative_error is None
    assert agreement([1e-3, 0], [0, 0]).finding == Finding("red", (ESTIMATOR,))
    assert agreement([1, 1], [1, 1.5], [1, 1]).finding == unresolved(SAMPLING)


# Metasmoothness.


@pytest.mark.parametrize(
    ("value", "horizon", "finding"),
    [
        (0.65, OWN, GREEN),
        (0.59, OWN, Finding("amber", (LEARNING_RATE,))),
        (0.29, OWN, Finding("red", (LEARNING_RATE,))),
        (0.91, QUARTER, GREEN),
        (0.89, QUARTER, unresolved(LONGER)),
        (0.59, QUARTER, Finding("amber", (LEARNING_RATE,))),
        (0.29, QUARTER, Finding("red", (LEARNING_RATE,))),
        (float("nan"), QUARTER, Finding("red", (LEARNING_RATE,))),
    ],
)
def test_roughness_is_foreseen_to_grow_with_the_steps(value, horizon, finding):
    found = judge_metasmoothness(numbers(horizon), Moved(value, 1.0))
    assert found.finding == finding
    if horizon == OWN:
        assert found.foreseen == value or np.isnan(value)
    elif value > 0.8:
        assert found.foreseen == pytest.approx(1 - 4 * (1 - value))


def test_parameters_that_move_by_rounding_alone_tell_nothing():
    assert judge_metasmoothness(numbers(), Moved(-1.0, 0.0)).finding == unresolved(ROUNDING)


# Signal.


def test_thresholds_of_the_signal_fall_with_the_horizon():
    assert least(3.0, 1.0) == 3.0
    assert least(3.0, 0.25) == pytest.approx(3**0.5)
    assert least(1.5, 0.25) == pytest.approx((1 + 1.25 / 4) ** 0.5)


@pytest.mark.parametrize(
    ("norm", "seeds", "horizon", "finding"),
    [
        (3.1, 4, OWN, GREEN),
        (2.0, 4, OWN, Finding("amber", (NOISE,))),
        (1.2, 4, OWN, Finding("red", (NOISE,))),
        (1.2, 2, OWN, unresolved(NOISE)),
        (2.0, 4, QUARTER, GREEN),
        (1.5, 4, QUARTER, Finding("amber", (NOISE,))),
        (0.9, 4, QUARTER, unresolved(NOISE)),
    ],
)
def test_signal_is_judged_by_seeds_and_horizon(norm, seeds, horizon, finding):
    spread = np.array([1.0, -1.0] * (seeds // 2))
    mean = norm * spread.std(ddof=1) / seeds**0.5
    samples = tuple(sampled([mean + one, mean + one]) for one in spread)
    signal = judge_signal(numbers(horizon, samples=samples))
    assert signal.tunables["mixture"].whole.norm == pytest.approx(norm)
    assert signal.finding == finding


def test_a_hypergradient_of_rounding_has_no_signal_to_judge():
    for scale in (0.0, EPS):
        own = numbers(samples=(sampled([scale, 0.0]), sampled([-scale, scale])))
        assert judge_signal(own).finding == unresolved(ROUNDING)


# Horizons.


def flipped(share, clear, size=60):
    its = Flipped(0.5, clear, share if clear else None, size)
    return [Shorter("1/2", 12, {"mixture": its})]


def test_signs_are_judged_by_those_that_are_clear():
    assert judged([]) == GREEN
    assert judged(flipped(0.5, 0)) == unresolved(NOISE)
    assert judged(flipped(0.0, 10)) == unresolved(NOISE)
    assert judged(flipped(0.0, 11)) == GREEN
    assert judged(flipped(0.0, 2, size=4)) == GREEN
    assert judged(flipped(0.0, 1, size=4)) == unresolved(NOISE)
    assert judged(flipped(0.05, 40)) == GREEN
    assert judged(flipped(0.2, 40)) == Finding("amber", (HORIZON,))
    assert judged(flipped(0.5, 40)) == Finding("red", (HORIZON,))
    # One of three is no share to condemn by.
    assert judged(flipped(1 / 3, 3)) == Finding("amber", (HORIZON,))
    assert judged(flipped(0.5, 40), shortened=True) == unresolved(SHORTENED)
    assert judged(flipped(0.05, 40), shortened=True) == GREEN


@pytest.mark.parametrize(("seeds", "clear"), [(2, 0), (4, 2)])
def test_two_seeds_are_certain_of_no_sign_that_four_are_of(seeds, clear):
    # The mean is eight standard errors: beyond 3.18 of four seeds, below 12.7 of two.
    spread = np.array([1.0, -1.0] * (seeds // 2))
    mean = 8 * spread.std(ddof=1) / seeds**0.5
    samples = tuple(sampled([mean + one, -mean + one]) for one in spread)
    own = numbers(samples=samples, stretches=(AtHorizon("1/2", 50, samples),))
    row = judge(own).horizons.rows[0]
    assert row.tunables["mixture"].clear == clear


# What a shortened check can't say.


def test_limits_are_told_of_a_shortened_check_alone():
    assert limits(OWN, OWN) == judge(numbers()).limits == ()
    told = limits(QUARTER, OWN)
    assert judge(numbers(QUARTER)).limits == told
    assert told[0].startswith("25 of 100 inner steps")
    assert any("metasmoothness" in line for line in told)
    # Of a stretch the whole is what is shortened.
    assert limits(CheckedHorizon(4, 4, 25), CheckedHorizon(4, 4, 100)) == told
    assert numbers(CheckedHorizon(4, 4, 25), own=CheckedHorizon(4, 4, 100)).fraction == 1


# Recorded by scripts/measure_check.py.


@pytest.mark.parametrize(
    ("steps", "smoothness", "ratio", "estimators"),
    [
        # Two exact estimators still agree about derivatives of 1e15 ...
        (25, 0.067, 1e14, GREEN),
        # ... and no longer about those of 1e28.
        (40, 0.135, 1e26, Finding("red", (LEARNING_RATE,))),
    ],
)
def test_a_chaotic_quickstart_is_red_and_says_why(steps, smoothness, ratio, estimators):
    """At a learning rate of 0.3; two seeds, two directions."""
    certificate = judge(recorded(f"quickstart_chaotic_{steps}"))
    assert certificate.verdict == "red"
    assert certificate.causes == (LEARNING_RATE,)
    red = Finding("red", (LEARNING_RATE,))
    assert certificate.differences.finding == certificate.metasmoothness.finding == red
    assert certificate.agreement.finding == estimators
    assert certificate.metasmoothness.value == pytest.approx(smoothness, abs=1e-3)
    assert certificate.differences.ratio > ratio
    assert certificate.training.finding == GREEN
    assert certificate.signal.finding == unresolved(NOISE)


def linearity(numbers) -> Any:
    return judge_linearity(numbers)


def over_step(*pairs, step=0.1):
    """Directions of given derivatives and slopes over the step."""
    found = [
        Sides(
            f"random {i + 1}",
            "random",
            derivative,
            0.0,
            {step: (3 + slope * step, 3 - slope * step)},
        )
        for i, (derivative, slope) in enumerate(pairs)
    ]
    return tuple(found)


STRAIGHT = over_step((-0.0099, -0.0036), (-0.0132, -0.0135))  # six domains, all of its 100 steps
ROUGH_START = over_step((0.0318, -0.0144), (0.0223, -0.0035))  # over 25, the warmup's a single one


def test_a_derivative_of_a_wrinkle_is_amber_and_named():
    found = linearity(numbers(compared=None, over_step=ROUGH_START))
    assert found.left == pytest.approx((0.0318 * -0.0144 + 0.0223 * -0.0035) / 0.00150853)
    assert found.finding == Finding("amber", (WRINKLED,))
    assert linearity(numbers(compared=None, over_step=STRAIGHT)).finding == GREEN
    assert judge(numbers()).linearity is None  # of a record of before


def test_a_wrong_estimator_makes_no_wrinkle():
    wrong = tuple(each._replace(derivative=-each.derivative) for each in STRAIGHT)
    exact = np.array([each.derivative for each in STRAIGHT])
    compared = Compared("Forward", -exact, exact, np.zeros(2), "")
    assert linearity(numbers(compared=compared, over_step=wrong)).finding == GREEN


def test_a_shortened_check_leaves_wrinkles_unresolved():
    found = linearity(numbers(QUARTER, own=OWN, compared=None, over_step=ROUGH_START))
    assert found.finding == unresolved(STRIDE)


def test_a_step_on_which_training_diverges_is_amber():
    found = linearity(numbers(compared=None, over_step=over_step((0.03, np.inf))))
    assert found.finding == Finding("amber", (LEARNING_RATE,))


def test_random_estimates_that_tell_nothing_leave_it_unresolved():
    noisy = tuple(each._replace(error=0.1) for each in ROUGH_START)
    assert linearity(numbers(compared=None, over_step=noisy)).finding == unresolved(SAMPLING)


def test_a_quickstart_of_a_quarter_of_its_steps_is_green():
    certificate = judge(recorded("quickstart_25"))
    assert certificate.verdict == "green"
    assert certificate.causes == ()
    assert certificate.differences.sign_agreement == 1
    assert certificate.agreement.relative_error < 1e-6
    assert certificate.metasmoothness.value == pytest.approx(0.916, abs=1e-3)
    assert certificate.metasmoothness.foreseen == pytest.approx(0.665, abs=2e-3)


def test_a_quickstart_whose_slopes_do_not_settle_is_not_red():
    """Its slopes along `mixture[0,2]` differ by twice their size at coarse steps."""
    own = recorded("quickstart_25")
    coarse = tuple(
        slope._replace(values={e: slope.values[e] for e in EPSILONS[3:5]})
        for slope in own.slopes
        if slope.name == "mixture[0,2]"
    )
    certificate = judge(replace(own, slopes=coarse))
    assert certificate.differences.relative_noise > 0.5
    assert certificate.differences.finding == unresolved(UNSETTLED)
    assert certificate.verdict == "amber"


@pytest.mark.parametrize("factor", [-1.0, 1.5])
def test_a_wrong_hypergradient_of_the_quickstart_is_red(factor):
    own = recorded("quickstart_25")
    slopes = tuple(slope._replace(derivative=factor * slope.derivative) for slope in own.slopes)
    compared = own.compared
    assert compared is not None
    wrong = compared._replace(derivatives=factor * compared.derivatives)
    certificate = judge(replace(own, slopes=slopes, compared=wrong))
    assert certificate.verdict == "red"
    assert certificate.causes == (ESTIMATOR,)
    assert certificate.differences.finding == certificate.agreement.finding
