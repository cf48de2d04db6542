"""What losses come to, by hand."""

import numpy as np
import pytest
from scipy.stats import t as student

from metatune.ladder.candidates import Candidate, further
from metatune.ladder.document import Measured, verdict
from metatune.ladder.judging import as_json, difference, judge
from metatune.transfer.rung import PROXY, Rung

PROXY_LOSSES = {
    "default": [3.0, 3.2],
    "tuned": [2.8, 2.98],
    "default x0.5": [3.4, 3.5],
    "tuned x0.5": [3.0, 3.1],
    "default x2": [2.9, 3.0],
    "tuned x2": [2.9, 3.1],
}


def scaled(gain, level=0.0):
    """Another rung: the tuned ones so far below the default ones, which keep their order."""
    found = {name: list(values) for name, values in PROXY_LOSSES.items()}
    for name in found:
        if name.startswith("tuned"):
            default = found[name.replace("tuned", "default")]
            found[name] = [default[0] - gain - 0.01, default[1] - gain + 0.01]
    found["tuned x0.5"] = [value - level for value in found["tuned x0.5"]]
    return found


def test_a_difference_is_student_s():
    found = difference([3.0, 3.2, 3.1], [2.8, 2.9, 2.9])
    apart = np.array([0.2, 0.3, 0.2])
    assert found.mean == pytest.approx(apart.mean())
    assert found.error == pytest.approx(apart.std(ddof=1) / 3**0.5)
    half = student.ppf(0.975, 2) * found.error
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))


def test_what_diverged_has_no_interval():
    assert difference([3.0, 3.2], [2.8, np.inf]).mean == -np.inf
    assert difference([3.0, np.inf], [2.8, 2.9]).mean == np.inf
    assert as_json(difference([3.0, np.inf], [2.8, 2.9]))["mean"] is None


def test_a_proxy_keeps_all_of_its_own():
    found = judge(PROXY_LOSSES, None, 0.1)
    assert found.gain.mean == pytest.approx(0.21)
    assert found.retention == pytest.approx(1.0)
    assert found.best == "default x2"
    assert found.over_best.mean == pytest.approx(2.95 - 2.89)
    assert found.level == 1.0
    assert found.order is None
    assert found.low_gain is None


def test_the_target_s_text_alone_is_a_baseline():
    found = judge(PROXY_LOSSES | {"target": [2.9, 3.1], "target x0.5": [2.8, 3.0]}, None, 0.1)
    assert found.best == "target x0.5"
    assert found.over_best.mean == pytest.approx(0.01)


def test_a_baseline_is_swept_to_where_it_turns():
    """On to twice the largest level while that is the best, and down likewise; not the tuned."""
    losses = {"default x0.5": [3.0], "default": [2.0], "default x2": [1.0], "tuned x2": [0.1]}
    assert further(losses) == (Candidate("default", 4.0),)
    losses["default x4"] = [1.5]
    assert further(losses) == ()
    down = {"target x0.5": [1.0], "target": [2.0], "target x2": [np.inf]}
    assert further(losses | down) == (Candidate("target", 0.25),)
    ends = {f"default x{level:g}": [-level] for level in (0.5, 2, 4, 8, 16)}
    assert further(ends | {"default": [0.0]}) == ()


def test_a_rung_is_held_against_the_proxy():
    losses = scaled(0.105, level=1.0) | {"default x0.1": [4.0, 4.1], "tuned x0.1": [3.7, 3.8]}
    proxy = PROXY_LOSSES | {"default x0.1": [4.0, 4.1], "tuned x0.1": [3.9, 4.0]}
    found = judge(losses, proxy, 0.1)
    assert found.retention == pytest.approx(0.105 / 0.21)
    assert found.level == 0.5
    # By hand of the ranks, means in the order of the names: 3.1 3.45 2.95 4.05 2.995 ... and so on.
    names = sorted(losses)
    ranks = [
        np.argsort(np.argsort([np.mean(each[name]) for name in names])) for each in (losses, proxy)
    ]
    apart = ranks[0] - ranks[1]
    assert found.order == pytest.approx(1 - 6 * np.sum(apart**2) / (8 * 63))
    assert found.low_gain is not None
    assert found.low_gain.mean == pytest.approx(0.3)


def measured(rung, losses):
    return Measured(rung, 1000, 10, 1.0, 2, losses, judge(losses, PROXY_LOSSES, 0.1))


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (scaled(1.0), "the gain survives at the largest rung, all x2 (1,000 parameters): 1.0000"),
        (scaled(0.0), "no gain is left that noise doesn't hide"),
        (scaled(-1.0), "it does harm at the largest rung, all x2 (1,000 parameters): 1.0000 worse"),
        (
            scaled(1.0) | {"default x2": [0.1, 0.1]},
            "but the baseline default x2 is better there, by 2.",
        ),
        (
            scaled(1.0) | {"default x2": [2.0, 2.2]},
            "but the baseline default x2 comes as far there",
        ),
    ],
)
def test_the_verdict_is_that_of_the_largest_rung(losses, said):
    proxy = measured(PROXY, PROXY_LOSSES)
    assert said in verdict([proxy, measured(Rung(2, 2, 2), losses)])
    assert "no rung above" in verdict([proxy])
