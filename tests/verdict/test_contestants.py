"""Contestants on functions whose least value is known: nothing is trained."""

import dataclasses
import json
import math

import numpy as np
import pytest

from metatune.verdict.contestants import CONTESTANTS, DIVERGED, ContestSetting, chosen
from metatune.verdict.contestants.contestant import PROXY, fitting
from metatune.verdict.points import Coordinates, Plain, as_json

SETTING = ContestSetting(
    mixtures={
        "recipe": (1 / 3, 1 / 3, 1 / 3),
        "by size": (0.5, 0.3, 0.2),
        "target": (1.0, 0.0, 0.0),
    },
    target=(1.0, 0.0, 0.0),
    coordinates=3,
)
BEST_RATE, BEST_SHARE = 4.0, 0.7


def valley(point):
    """The square of how far the rate is from the best in octaves, and the first share from 0.7."""
    if isinstance(point, Coordinates):
        return sum((offset - 0.5) ** 2 for offset in point.offsets)
    share = point.shares[0] if point.shares else 1 / 3
    loss = math.log2(point.rate / BEST_RATE) ** 2 / 9 + (share - BEST_SHARE) ** 2
    return loss if math.isfinite(loss) else DIVERGED


class Evaluation:
    """Evaluates a function in the place of trainings; proxies come nearer to 0.7 as they may go."""

    def __init__(self, function):
        self.function, self.taken = function, []

    def __call__(self, point, share=1.0):
        self.taken.append((point, self.function(point), share))
        return self.taken[-1][1]

    def aligned(self, reach):
        self.taken.append((Plain(mixture="proxy", rate=reach), math.inf, PROXY))
        share = 1 / 3 + (BEST_SHARE - 1 / 3) * min(1.0, reach / 4)
        return (share, 1 - share, 0.0)


def searched(name, budget, function=valley, setting=SETTING, key=7):
    """What a search evaluates, in its order, with the losses, and the shares of the training."""
    evaluate = Evaluation(function)
    CONTESTANTS[name].search(setting, budget, evaluate, key)
    return evaluate.taken


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("budget", [1, 5, 26])
def test_a_search_keeps_to_its_budget(name, budget):
    taken = searched(name, budget)
    assert 0 < sum(share for _, _, share in taken) <= budget + 1e-9
    for point, _, _ in taken:
        json.dumps(as_json(point))
        assert point.words(1e-3, ("a", "b", "c"))


@pytest.mark.parametrize("name", CONTESTANTS)
def test_a_search_comes_to_the_same_again(name):
    assert searched(name, 12) == searched(name, 12)


@pytest.mark.parametrize("name", [n for n in CONTESTANTS if n not in ("halving", "regression")])
def test_a_larger_budget_goes_on_from_a_smaller_one(name):
    shorter = searched(name, 12)
    assert searched(name, 20)[: len(shorter)] == shorter


@pytest.mark.parametrize("name", ["random", "tpe", "random-all", "tpe-all"])
def test_no_point_is_asked_for_twice(name):
    points = [point for point, _, _ in searched(name, 26)]
    assert len(set(points)) == len(points)
    other = [point for point, _, _ in searched(name, 26, key=8)]
    assert len(set(points) & set(other)) == 1  # the recipe's own


def test_random_search_begins_with_the_recipe_and_covers_its_ranges():
    points = [point for point, _, _ in searched("random", 200)]
    assert points[0].rate == 1
    logs = np.log2([point.rate for point in points[1:]])
    # Uniform from -4 to 4: mean 0 and standard deviation 8 / √12, each to five errors.
    assert abs(logs.mean()) < 5 * 8 / math.sqrt(12 * 199)
    assert abs(logs.std() - 8 / math.sqrt(12)) < 0.4
    assert all(point.warmup + point.decay <= 1 for point in points)


@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("grid", 0.15),
        ("tpe", 0.05),
        ("halving", 0.15),
        ("schedule-free", 0.12),
        ("tpe-all", 0.3),
        ("alignment", 0.01),
    ],
)
def test_a_search_finds_the_valley(name, within):
    assert min(loss for _, loss, _ in searched(name, 60)) < within


def test_tpe_is_better_than_random_search():
    """In the median over keys of the best of 60."""
    best = {
        name: np.median([min(v for _, v, _ in searched(name, 60, key=key)) for key in range(7)])
        for name in ("random", "tpe")
    }
    assert best["tpe"] < best["random"]


def test_tpe_leaves_where_trainings_diverge():
    """Half of the rates do; a sampler that forgets these trials comes back most of the time."""

    def cliff(point):
        return DIVERGED if point.rate > 1 else math.log2(4 * point.rate) ** 2

    late = searched("tpe", 60, cliff)[20:]
    assert sum(loss == DIVERGED for _, loss, _ in late) < len(late) / 4


def test_halving_trains_the_better_third_for_longer():
    taken = searched("halving", 27)
    rungs = {share: [p for p, _, s in taken if s == share] for _, _, share in taken}
    shares = sorted(rungs)
    assert [len(rungs[share]) for share in shares] == [81, 27, 9]
    for shorter, longer in zip(shares, shares[1:], strict=False):
        losses = sorted(valley(point) for point in rungs[shorter])
        assert sorted(map(valley, rungs[longer])) == losses[: len(rungs[longer])]


def test_a_regression_predicts_a_mixture_better_than_those_it_has_seen():
    """Of a loss that bends with the shares as losses do, the least is at (0.6, 0.3, 0.1)."""

    def bent(point):
        best = np.asarray([0.6, 0.3, 0.1])
        return float(-np.sum(best * np.log(np.asarray(point.shares) + 0.01)))

    taken = searched("regression", 26, bent)
    *seen, first, second = [loss for _, loss, _ in taken]
    assert min(first, second) < np.median(seen)
    assert np.abs(np.asarray(taken[-1][0].shares) - [0.6, 0.3, 0.1]).max() < 0.2
    assert all(abs(sum(point.shares) - 1) < 1e-9 for point, _, _ in taken)


def test_alignment_takes_a_proxy_for_each_mixture():
    """And none where there is no room for the training that uses it."""
    assert [share for _, _, share in searched("alignment", 2)] == [1.0, 1.0]
    assert [share for _, _, share in searched("alignment", 3)] == [PROXY, 1.0]
    taken = searched("alignment", 12)
    assert [share for _, _, share in taken[:6]] == [PROXY, 1.0] * 3
    assert {point.shares for point, _, share in taken if share == 1} == {
        point.shares for point, _, _ in (taken[1], taken[3], taken[5])
    }
    capped = searched("alignment", 12, setting=dataclasses.replace(SETTING, caps=(0.5, 1.0, 1.0)))
    assert max(point.shares[0] for point, _, share in capped if share == 1) == 0.5


def test_who_has_no_place_says_why():
    def refusals(**changes):
        setting = ContestSetting(**changes)
        found = {name: each.refusal(setting) for name, each in CONTESTANTS.items()}
        return {name: why for name, why in found.items() if why}

    assert refusals() == dict.fromkeys(("regression", "alignment"), "no mixture is tuned")
    frozen = refusals(mixtures=SETTING.mixtures, unaligned="the head is frozen")
    assert frozen == {"alignment": "the head is frozen"}
    assert refusals(mixtures=SETTING.mixtures) == {}
    lion = refusals(mixtures=SETTING.mixtures, optimizer="lion")
    assert set(lion) == {"schedule-free", "prodigy"}
    assert "trains by lion" in lion["prodigy"]
    assert set(refusals(mixtures=SETTING.mixtures, plain=False)) == {
        "schedule-free",
        "prodigy",
        "online",
    }
    assert "1,001 meta-parameters" in refusals(coordinates=1001)["tpe-all"]
    assert "halving" in refusals(steps=6)
    assert "layer-wise" in refusals(layers=1)


@pytest.mark.parametrize(
    ("shares", "caps", "wanted"),
    [
        ((0.2, 0.8), (), (0.2, 0.8)),
        ((0.2, 0.8), (1.0, 0.6), (0.4, 0.6)),
        ((0.1, 0.3, 0.6), (0.15, 1.0, 0.4), (0.15, 0.45, 0.4)),
    ],
)
def test_shares_are_brought_under_caps(shares, caps, wanted):
    """What is too much goes to the others in proportion; what that lifts over its cap, too."""
    assert fitting(shares, caps) == pytest.approx(wanted)


def test_contestants_are_chosen_by_name():
    assert [each.name for each in chosen(["tpe", "grid"])] == ["grid", "tpe"]
    with pytest.raises(Exception, match=r"did you mean grid\?"):
        chosen(["gird"])


def test_a_plain_change_is_said_in_words():
    point = Plain(
        rate=2.0, schedule="wsd", warmup=0.1, decay=0.25, mixture="target", shares=(1.0, 0.0)
    )
    assert point.words(1e-3, ("code", "drama")) == (
        "wsd, rate x2 (0.002), warmup 0.1, decay over the last 0.25, mixture target "
        "(code 100% drama 0%)"
    )
    assert Plain().words(1e-3, ()) == "nothing is changed"
