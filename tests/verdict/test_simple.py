"""Parts and simple schedules by arithmetic on artefacts; losses are a function of schedules."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from recipes import prepared, tiny

from metatune import artefact
from metatune.artefact.files import SIMPLE
from metatune.fit.making import artefact_of
from metatune.report.artefact_readme import readme
from metatune.train.matching import refuse_misfit
from metatune.verdict import parts, simple
from metatune.verdict.aftermath import FRESH
from metatune.verdict.statistics import DEFAULT, TUNED, contest
from metatune.verdict.structure import Structure, best
from metatune.verdict.surgery import (
    kinds,
    rate_table,
    rates_back,
    rounded,
    share_table,
    shares_back,
    simpler_shares,
    structured_rates,
    window_logs,
    windows_of,
)

RESULT = {"status": "unfinished", "unit": "nats per byte", "best_outer_step": 1, "outer_steps": 1}
RESULT |= dict.fromkeys(("objective_before", "objective_after", "difference", "standard_error"))
RESULT |= {"held_out_seeds": [], "before": [], "after": []}


@pytest.fixture(scope="module")
def training():
    return prepared(tiny())


@pytest.fixture(scope="module")
def default(training):
    return artefact_of(training, training.initial_eta(), RESULT)


@pytest.fixture(scope="module")
def tuned(training):
    """Rates of the layer 4, 6 and 9 times as fast, all others as they were; other shares."""
    eta: Any = {key: np.array(leaf) for key, leaf in training.initial_eta().items()}
    labels = next(each for each in training.tunables if each.key == "learning_rates").cells.labels
    eta["learning_rates"][:, labels.index("model.layers.0")] = np.log([4.0, 6.0, 9.0])
    eta["mixture"][:, 0] += [1.0, 2.0]
    return artefact_of(training, eta, RESULT)


def multipliers_of(found):
    assert found.learning_rates.multipliers is not None
    return found.learning_rates.multipliers


def rows(found):
    return dict(zip(found.learning_rates.parameters, rate_table(found).T, strict=True))


def shares(found):
    assert found.mixture is not None
    return share_table(found.mixture, found.horizon_steps)


def test_what_is_set_back_is_the_recipe_s_own_and_nothing_else_is(default, tuned):
    steps = default.horizon_steps
    last = windows_of(steps, 3) == 2
    back = rate_table(rates_back(default, tuned, last[:, None]))
    assert (back[last] == rate_table(default)[last]).all()
    assert (back[~last] == rate_table(tuned)[~last]).all()
    assert not (back == rate_table(tuned)).all()
    first = windows_of(steps, 2) == 0
    back, own, theirs = map(shares, (shares_back(default, tuned, first), default, tuned))
    assert (back[first] == own[first]).all()
    assert (back[~first] == theirs[~first]).all()


def test_variants_are_each_tunable_alone_and_each_part_set_back(training, default, tuned):
    found = parts.variants(training, default, tuned)
    assert list(found) == [
        "learning_rates alone",
        "mixture alone",
        *(f"learning_rates, window {i} of 3 set back" for i in (1, 2, 3)),
        *(f"mixture, window {i} of 2 set back" for i in (1, 2)),
        *(f"learning_rates of {kind} set back" for kind in kinds(tuned)),
    ]
    assert found["mixture alone"].mixture is tuned.mixture
    assert (rate_table(found["mixture alone"]) == rate_table(default)).all()
    back = rows(found["learning_rates of mlp set back"])
    for name, row in back.items():
        assert (row == rows(default if ".mlp." in name else tuned)[name]).all()
    for source, each in found.items():
        refuse_misfit(each, training, source)


def test_a_part_s_loss_is_told_with_its_error(training, default, tuned):
    """Of a loss whose parts are known: a tenth for each window of rates that is fast."""

    def losses(name, schedules):
        fast = rate_table(schedules) > 2 * rate_table(default)
        windows = [fast[windows_of(len(fast), 3) == at].any() for at in range(3)]
        return [1 - 0.1 * sum(windows) + 0.001 * seed * len(name) for seed in range(5)]

    found = parts.variants(training, default, tuned)
    gain, told = parts.ablation(found, losses, tuned, default)
    assert gain.mean == pytest.approx(0.3 + 0.002 * (len("default") - len("tuned")))
    lost = {each.name: each for each in told}
    window = lost["learning_rates, window 2 of 3 set back"]
    assert window.lost.mean == pytest.approx(0.1, abs=0.1)
    assert window.share == pytest.approx(window.lost.mean / gain.mean)
    assert window.lost.low < window.lost.mean < window.lost.high


def test_a_factor_is_the_mean_of_logarithms_over_cluster_and_stretch(default, tuned):
    count, logs = len(tuned.learning_rates.parameters), np.log([4.0, 6.0, 9.0])
    one = Structure(np.zeros(count, int), np.zeros(3, int), False)
    found = structured_rates(default, tuned, one, 6)
    layer = multipliers_of(tuned).members["model.layers.0"]
    mean = len(layer) / count * logs.mean()
    factor = rate_table(found) / rate_table(default)
    assert factor == pytest.approx(np.full_like(factor, float(f"{np.exp(mean):.6g}")))
    assert multipliers_of(found).groups == {"all": (float(f"{np.exp(mean):.6g}"),)}
    fast = np.asarray([int("layers.0" in name) for name in tuned.learning_rates.parameters])
    table = Structure(fast, np.arange(3), False)
    same = structured_rates(default, tuned, table, 9)
    assert rate_table(same) == pytest.approx(rate_table(tuned), rel=1e-6)
    multipliers = multipliers_of(same)
    assert multipliers.groups["rates 2"] == pytest.approx((4, 6, 9))
    assert set(multipliers.members["rates 2"]) == set(layer)
    assert multipliers.knots == pytest.approx((0, 2 / 6, 4 / 6))


def test_of_a_product_each_number_is_rounded(default, tuned):
    """Two stretches and two clusters are three numbers, of two digits each."""
    fast = np.asarray([int("layers.0" in name) for name in tuned.learning_rates.parameters])
    found = structured_rates(default, tuned, Structure(fast, np.asarray([0, 0, 1]), True), 2)
    groups = multipliers_of(found).groups
    assert multipliers_of(found).knots == pytest.approx((0, 4 / 6))
    slow, quick = groups["rates 1"], groups["rates 2"]
    ratio = quick[0] / slow[0]
    assert quick[1] / slow[1] == pytest.approx(ratio)
    assert ratio == pytest.approx(np.exp(np.log([4.0, 6.0, 9.0]).mean()), rel=0.05)
    for number in (*slow, ratio):
        assert float(f"{number:.2g}") == pytest.approx(number, rel=1e-12)
    factor = rate_table(found) / rate_table(default)
    assert factor[0] == pytest.approx(np.where(fast, quick[0], slow[0]))


@pytest.mark.parametrize(
    ("given", "grain", "wanted"),
    [
        ([0.63, 0.36, 0.01], 0.05, [0.65, 0.35, 0.0]),
        ([1 / 3, 1 / 3, 1 / 3], 0.05, [0.35, 0.35, 0.3]),
        ([0.5, 0.25, 0.25], 0.0, [0.5, 0.25, 0.25]),
    ],
)
def test_rounded_shares_sum_to_one(given, grain, wanted):
    found = rounded(np.asarray(given), grain)
    assert found.tolist() == pytest.approx(wanted)
    assert found.sum() == pytest.approx(1, abs=1e-12)


def test_one_mixture_is_the_mean_over_training(tuned):
    mean = shares(tuned).mean(axis=0)
    assert shares(simpler_shares(tuned, 1, 0.0)) == pytest.approx(np.tile(mean, (6, 1)))


def fake(default, wanted):
    """A loss that falls by as much of 0.1 as `wanted` says of some schedules; noise is shared."""

    def losses(name, schedules):
        share = {"default": 0.0, "tuned": 1.0}.get(name)
        share = wanted(schedules) if share is None else share
        return [1 - 0.1 * share + 0.01 * seed for seed in range(3)]

    return losses


def test_the_simplest_that_keeps_the_gain_is_taken(training, default, tuned):
    """The gain is of the layer's rates: one factor for all loses it, one for each keeps it."""

    def wanted(schedules):
        return 0.95 if len(schedules.learning_rates.multipliers.groups) > 1 else 0.5

    asked = []

    def losses(name, schedules):
        asked.append(name)
        return fake(default, wanted)(name, schedules)

    windows = {each.key: each.windows for each in training.tunables}
    found = simple.simplest(default, tuned, windows, losses)
    assert found is not None
    assert found.kept == pytest.approx(0.95)
    multipliers = found.artefact.learning_rates.multipliers
    assert multipliers is not None
    assert [len(members) for members in multipliers.members.values()] == [3, 9]
    assert len(multipliers.knots) == 1
    assert found.artefact.mixture is not None
    assert len(found.artefact.mixture.weights) == 1
    assert all(round(20 * share) / 20 == share for share in found.artefact.mixture.weights[0])
    assert found.words == (
        "2 factors of the base schedule (one for each of 2 clusters of parameters); one mixture, "
        "shares in steps of 5%"
    )
    assert len(set(asked)) <= 2 + simple.TRIED
    refuse_misfit(found.artefact, training, "simple")


def test_nothing_simpler_or_no_gain_is_none(default, tuned):
    windows = {"learning_rates": 3, "mixture": 2}
    assert simple.simplest(default, tuned, windows, fake(default, lambda _: 0.5)) is None

    def no_gain(name, schedules):
        return [1.0, 1.0]

    assert simple.simplest(default, tuned, windows, no_gain) is None


def outcome(simple_at, rival=0.97):
    """A contest with the gain 0.1, a rival, and the simple schedules' losses."""
    means = {TUNED: 0.9, DEFAULT: 1.0, "grid": rival}

    def loss(name, seed):
        return means[name] + 0.0001 * ((seed * (1 + len(name))) % 7)

    found = contest(loss, ["grid"], 0.01, 5)
    return found, [simple_at + 0.0001 * (3 * seed % 7) for seed in range(found.seeds)]


@pytest.mark.parametrize(
    ("at", "rival", "used"), [(0.905, 0.97, True), (0.915, 0.97, False), (0.905, 0.904, False)]
)
def test_the_simple_ones_ship_where_they_do_as_well(at, rival, used):
    """With nine tenths of the gain, and ahead of every rival."""
    found, losses = outcome(at, rival)
    ships, behind = simple.ships(found, losses)
    assert ships == used
    assert behind.mean == pytest.approx(at - 0.9, abs=1e-3)


def test_simple_schedules_are_an_artefact_like_any_other(training, default, tuned, tmp_path):
    """Written, read to the last bit, shown with a result of its own, carried by every reader."""
    structure = best(window_logs(default, tuned, 3), 4)
    made = simpler_shares(structured_rates(default, tuned, structure, 2), 1, 0.05)
    before, after = [2.0, 2.1, 2.05, 2.0, 2.1], [1.9, 2.0, 1.96, 1.91, 2.0]
    own = simple.measured(
        dataclasses.replace(made, result={**RESULT, "status": "complete"}), before, after, FRESH
    )
    artefact.write(tmp_path / SIMPLE, own, readme(own))
    read = artefact.load(tmp_path / SIMPLE)
    assert read.result["held_out_seeds"] == [FRESH + i for i in range(5)]
    assert "better than the default by" in (tmp_path / SIMPLE / "README.md").read_text()
    assert (rate_table(read) == rate_table(made)).all()
    assert (shares(read) == shares(made)).all()
    refuse_misfit(read, training, "simple")
    # Of a default that diverged with a seed, the pairs that there are.
    unsteady = [before[0], math.inf, *before[2:]]
    found = simple.measured(own, unsteady, after, FRESH).result
    assert found["held_out_seeds"] == [FRESH + i for i in (0, 2, 3, 4)]
    assert found["objective_after"] == pytest.approx(np.mean([1.9, 1.96, 1.91, 2.0]))
    assert (read.certificate, read.transfer, read.verdict, read.origin) == (None,) * 4
