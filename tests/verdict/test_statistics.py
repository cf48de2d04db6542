"""The statistics of a verdict by simulation: nothing is trained, so what is true is known."""

import math

import numpy as np
import pytest
from scipy import stats

from metatune.verdict.statistics import (
    ALPHA,
    DEFAULT,
    TUNED,
    contest,
    difference,
    expected_seeds,
    looks,
    rejected,
)
from metatune.verdict.words import KEEP, PLAIN, UNKNOWN, USE, decide

RIVALS = ("grid", "random", "tpe", "regression")


def noisy(means, seed, spread=0.01):
    """Losses of contestants: what is true, noise of a seed that all share, and their own."""

    def loss(name, at):
        shared = np.random.default_rng((seed, at)).normal()
        own = np.random.default_rng((seed, at, sum(name.encode()))).normal()
        return means.get(name, 2.0) + 0.05 * shared + spread * own / math.sqrt(2)

    return loss


def judged(means, *, seed, resolution=0.004, most=100, spread=0.01):
    return decide(contest(noisy(means, seed, spread), RIVALS, resolution, most))


def test_looks_are_few_and_end_where_they_must():
    assert looks(40) == (5, 8, 12, 18, 27, 40)
    assert looks(5) == (5,)
    assert looks(3) == (3,)


def test_a_difference_is_student_s():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 9))
    found = difference(first, second, 0.01)
    told = stats.ttest_rel(first, second)
    assert found.mean == pytest.approx(np.mean(first - second))
    assert found.p == pytest.approx(told.pvalue)
    low, high = told.confidence_interval(0.99)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_same_trainings_differ_by_nothing():
    same = difference([1.0, 2.0], [1.0, 2.0], 0.05)
    assert (same.mean, same.half, same.p) == (0, 0, 1)


@pytest.mark.parametrize(("ones", "others"), [(1, 0), (0, 2), (3, 1), (5, 0)])
def test_with_divergences_pairs_are_counted_by_their_signs(ones, others):
    """Against scipy's binomial test and quantile intervals, at any number of a divergence."""
    generator = np.random.default_rng(2)
    apart = generator.normal(0.6, 1, size=12)
    second = generator.normal(size=12)
    first = second + apart
    first[:ones] = math.inf
    second[len(second) - others :] = math.inf
    found = difference(first.tolist(), second.tolist(), 0.05)
    assert found.signs
    large = np.where(np.isinf(first), 1e6, np.where(np.isinf(second), -1e6, first - second))
    assert found.mean == pytest.approx(np.median(large))
    wins = int((large > 0).sum())
    assert found.p == pytest.approx(stats.binomtest(wins, 12).pvalue)
    told = stats.quantile_test(large, p=0.5).confidence_interval(0.95)
    wanted = [v if abs(v) < 1e5 else math.copysign(math.inf, v) for v in (told.low, told.high)]
    assert [found.low, found.high] == pytest.approx(wanted)
    turned = difference(second.tolist(), first.tolist(), 0.05)
    assert (turned.mean, turned.low, turned.high) == pytest.approx(
        (-found.mean, -found.high, -found.low)
    )


def test_a_divergence_counts_as_a_lost_pair_and_a_draw_of_them_as_none():
    one = difference([1.1] * 11 + [math.inf], [1.0] * 12, 0.05)
    assert (one.mean, one.low) == pytest.approx((0.1, 0.1))
    assert one.p == pytest.approx(2 / 2**12)
    # Eleven are worse and one diverged with the other: that isn't decided by the one.
    other = difference([1.1] * 11 + [1.0], [1.0] * 11 + [math.inf], 0.05)
    assert other.mean == pytest.approx(0.1)
    assert other.p == pytest.approx(2 * 13 / 2**12)
    most = difference([math.inf] * 7 + [1.0] * 5, [1.1] * 12, 0.05)
    assert (most.mean, most.p) == (math.inf, pytest.approx(stats.binomtest(7, 12).pvalue))
    # Draws tell nothing.
    drawn = difference([math.inf, math.inf, 2.0], [math.inf, 1.0, 1.0], 0.05)
    assert (drawn.mean, drawn.p, drawn.seeds) == (math.inf, 0.5, 3)
    both = difference([math.inf, math.inf], [math.inf, math.inf], 0.05)
    assert math.isnan(both.mean)
    assert (both.p, both.half) == (1, 0)


def unsteady(means, seed, often, spread=0.01):
    """As `noisy`, but that trainings diverge, by contestant as often as is said."""
    base = noisy(means, seed, spread)

    def loss(name, at):
        drawn = np.random.default_rng((seed, at, 5, sum(name.encode()))).uniform()
        return math.inf if drawn < often.get(name, 0.0) else base(name, at)

    return loss


def test_divergences_make_no_gain_out_of_noise():
    """Both diverge now and then, or not: wrong claims about them stay below the level."""
    often = {TUNED: 0.08, DEFAULT: 0.08}
    words = [decide(contest(unsteady({}, seed, often), (), 1e-6, 27)).word for seed in range(500)]
    assert len(words) - words.count(UNKNOWN) <= 500 * ALPHA


def test_a_planted_gain_is_found_although_trainings_diverge_now_and_then():
    often = dict.fromkeys((TUNED, DEFAULT), 0.05)
    said = [
        decide(contest(unsteady({TUNED: 1.96}, seed, often), (), 0.004, 40)) for seed in range(50)
    ]
    assert [each.word for each in said].count(USE) >= 45
    told = [each.sentence({}) for each in said]
    assert any("tuned diverged in 1 of " in each for each in told)


def test_holm_is_holm():
    """Against the definition: adjusted probabilities that don't fall along their order."""
    generator = np.random.default_rng(1)
    for _ in range(200):
        p = {str(i): float(v) for i, v in enumerate(generator.beta(0.3, 3, size=6))}
        ordered = sorted(p, key=lambda name: p[name])
        adjusted = np.maximum.accumulate([p[n] * (6 - i) for i, n in enumerate(ordered)])
        wanted = {n for n, a in zip(ordered, adjusted, strict=True) if a <= ALPHA}
        assert rejected(p, ALPHA) == wanted


def test_null_problems_say_that_there_is_no_gain():
    """All alike: what was tuned is never recommended, and hardly anything else is."""
    said = [judged({}, seed=seed).word for seed in range(100)]
    assert USE not in said
    assert said.count(KEEP) >= 95
    assert said.count(PLAIN) <= 5


def test_looking_repeatedly_makes_no_gain_out_of_noise():
    """Without rivals the default is the only hurdle: its level is that of all looks together."""
    words = [
        decide(contest(noisy({}, seed), (), 1e-6, 60)).word
        for seed in range(1000)  # no interval is ever fine enough: all looks are taken
    ]
    wrong = len(words) - words.count(UNKNOWN)
    assert wrong <= 1000 * ALPHA


def test_a_planted_gain_of_ten_resolutions_is_found():
    said = [judged({TUNED: 1.96}, seed=seed).word for seed in range(100)]
    assert said.count(USE) >= 90


def test_a_rival_that_does_as_well_is_named():
    means = {TUNED: 1.96, "tpe": 1.96}
    found = [judged(means, seed=seed) for seed in range(50)]
    right = [each for each in found if (each.word, each.rival) == (PLAIN, "tpe")]
    assert len(right) >= 47


def test_a_rival_that_beats_a_tuning_without_gain_is_named():
    found = [judged({"grid": 1.95}, seed=seed) for seed in range(20)]
    assert {(each.word, each.rival) for each in found} == {(PLAIN, "grid")}


def test_a_rival_that_was_shown_to_be_better_goes_before_one_that_only_seems_so():
    base = noisy({TUNED: 1.9, "grid": 1.85}, 0)

    def loss(name, seed):
        wild = 0.5 * np.random.default_rng(seed).normal()
        return 1.7 + wild if name == "tpe" else base(name, seed)

    outcome = contest(loss, RIVALS, 0.004, 12)
    assert not outcome.rivals["tpe"].settled
    assert outcome.rivals["tpe"].mean < outcome.rivals["grid"].mean
    found = decide(outcome)
    assert (found.word, found.rival) == (PLAIN, "grid")
    assert found.sentence({}).startswith("a plain change does as well: grid; its loss is +0.05")
    assert found.sentence({"grid": "rate x2"}).startswith(f"{PLAIN}: grid (rate x2); ")


def test_what_noise_hides_is_not_told_and_more_seeds_would():
    """So many more as bring the interval to the resolution, by the law of the root."""
    found = judged({TUNED: 1.999}, seed=0, most=8, spread=0.05)
    assert found.word == UNKNOWN
    level = ALPHA / len(looks(8))
    needed = (stats.norm.ppf(1 - level / 2) * 0.05 / 0.004) ** 2
    assert 0.3 * needed < found.more < 3 * needed


@pytest.mark.parametrize("often", [0.5, 1.0])
def test_a_tuning_that_diverges_is_not_used(often):
    found = decide(contest(unsteady({TUNED: 1.0}, 1, {TUNED: often}), RIVALS, 0.004, 20))
    assert found.word == KEEP
    assert "tuned diverged in" in found.why


def test_one_divergence_decides_nothing_and_is_told():
    def of(whom):
        def loss(name, seed):
            return math.inf if name == whom and seed == 3 else noisy({TUNED: 1.0}, 0)(name, seed)

        return decide(contest(loss, RIVALS, 0.004, 20))

    for whom in (TUNED, DEFAULT):
        found = of(whom)
        assert found.word == USE
        assert f"; {whom} diverged in 1 of " in found.sentence({})
    assert "diverged" not in of(None).sentence({})


def test_who_always_diverges_is_no_rival():
    """Nor with as few seeds as a sign test tells nothing by."""
    base = noisy({TUNED: 1.9, "grid": 1.95}, 0)
    for most in (5, 20):
        outcome = contest(
            lambda name, seed: math.inf if name == "tpe" else base(name, seed),
            RIVALS,
            0.004,
            most,
        )
        assert decide(outcome).word == USE
    assert outcome.rivals["tpe"].better


def test_a_default_that_diverges_is_a_gain_where_that_is_shown():
    def loss(name, seed):
        return math.inf if name == DEFAULT else 1.0 + 0.001 * seed

    assert decide(contest(loss, (), 0.004, 20)).word == USE
    few = decide(contest(loss, (), 0.004, 5))
    assert (few.word, few.more) == (UNKNOWN, 5)


def test_who_is_settled_is_trained_no_further():
    asked = []
    base = noisy({TUNED: 1.9, "grid": 1.92, "random": 3.0}, 0)

    def loss(name, seed):
        asked.append((name, seed))
        return base(name, seed)

    outcome = contest(loss, RIVALS, 0.001, 27)
    counts = {name: sum(each == name for each, _ in asked) for name in outcome.losses}
    assert counts[TUNED] == counts[DEFAULT] == counts["grid"] == outcome.seeds > 5
    assert counts["random"] == 5
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("spread", [0.01, 0.1])
def test_seeds_are_foreseen(spread):
    """The look at which a contest of that spread ends, or one beside it."""
    plan = looks(200)
    expected = expected_seeds(spread, 0.005, 200)
    ends = [contest(noisy({}, s, spread), (), 0.005, 200).seeds for s in range(20)]
    apart = abs(plan.index(int(np.median(ends))) - plan.index(expected))
    assert apart <= 1
