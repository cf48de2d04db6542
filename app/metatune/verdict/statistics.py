"""Who is better, seed by seed: a fixed plan of looks, each at a level that allows for the others.

What was tuned is held against each rival in pairs of trainings of the same seed. Looking at the
numbers after every seed, and stopping when they please, finds differences where there are none. So
it is known before the first training when they will be looked at, and a look k of K tests at level
`α / K`: that any of them errs has a probability of α at most (Bonferroni), however the looks depend
on each other. At a look Holm's procedure allows for the number of rivals; the two together hold the
probability of any wrong claim about any rival, at any look, below α. Intervals are Student's at the
look's level, wider than at 95 %, and hold at all looks together.

Who is settled needs no further trainings, but for the default and the best rival, whose differences
are measured to the resolution.

A training that diverged has no loss, and any number in its place would decide a mean and its error
by itself. So where one of two contestants has diverged with any seed, the two are compared by what
needs no number: a divergence loses against any loss, as a draw of two divergences is left out, the
middle is the median of the pairs, its interval and p are those of the sign test, which are exact.
Whether it comes to that depends on the pairs, but not on who of a pair is who: where both are alike
the two tests together err as rarely as either. That a seed of twelve diverged moves a median by a
place; that a half did makes it infinite.

Sources: Dixon & Mood, The statistical sign test, JASA 1946 (also with the interval of the median);
Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 1979.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.special import bdtr, stdtr, stdtrit

ALPHA: Final = 0.05
FIRST_LOOK: Final = 5
"""Seeds; of fewer pairs hardly anything can be told."""

STRIDE: Final = 1.5
"""Seeds of a look in those of the one before."""

FURTHEST: Final = 100_000
"""Seeds beyond which nobody goes."""

TUNED: Final = "tuned"
DEFAULT: Final = "default"

Loss = Callable[[str, int], float]
"""The held-out loss of a contestant by its name, trained with a seed; infinite if it diverged."""


class PairedDifference(NamedTuple):
    """Between two contestants, paired by seed: the first one's loss minus the second one's.

    Attributes:
        mean: positive where the second is better; with `signs` the median, infinite where one of
            them diverged in half of the pairs, nan where both did in all.
        error: its standard error; nan with `signs`.
        low: lower end of the interval at the level of its look.
        high: upper end.
        p: of no difference, two-sided, of Student's t, or of the sign test.
        seeds: pairs.
        settled: whether Holm's procedure tells it from zero, at this look, or at one before that
            the interval of this one doesn't take back.
        signs: whether one of them diverged with any seed, so that pairs are counted by their signs.
    """

    mean: float
    error: float
    low: float
    high: float
    p: float
    seeds: int
    settled: bool = False
    signs: bool = False

    @property
    def half(self) -> float:
        """Half the width of the interval; zero where no pair says anything."""
        if math.isnan(self.mean) or self.low == self.high:
            return 0.0
        return (self.high - self.low) / 2

    @property
    def better(self) -> bool:
        """Whether the second was shown to be better."""
        return self.settled and self.mean > 0

    @property
    def worse(self) -> bool:
        """Whether the second was shown to be worse."""
        return self.settled and self.mean < 0


class Outcome(NamedTuple):
    """A contest.

    Attributes:
        rivals: each rival's loss minus that of what was tuned, the default's first.
        over_default: the default's loss minus each rival's, of those that aren't the default.
        losses: of each contestant over its seeds.
        plan: seeds at which was to be looked.
        seeds: at the last look that was taken.
        resolution: half-width of an interval that is fine enough.
        more: seeds that it would take further to settle what isn't; zero where all is.
    """

    rivals: Mapping[str, PairedDifference]
    over_default: Mapping[str, PairedDifference]
    losses: Mapping[str, Sequence[float]]
    plan: tuple[int, ...]
    seeds: int
    resolution: float
    more: int

    @property
    def gain(self) -> PairedDifference:
        """The default's loss minus that of what was tuned."""
        return self.rivals[DEFAULT]

    def resolved(self, rival: str) -> bool:
        """Whether a rival is told from what was tuned, or as close as the resolution."""
        found = self.rivals[rival]
        return found.settled or found.half <= self.resolution


def looks(most: int) -> tuple[int, ...]:
    """How many seeds there are at each look.

    >>> looks(20)
    (5, 8, 12, 18, 20)

    Args:
        most: seeds at the last.
    """
    found, at = [], FIRST_LOOK
    while at < most:
        found.append(at)
        at = math.ceil(at * STRIDE)
    return (*found, most)


def difference(first: Sequence[float], second: Sequence[float], level: float) -> PairedDifference:
    """The first's losses minus the second's, with the interval of confidence `1 - level`.

    Student's, or where any of these trainings diverged, the sign test's.

    Args:
        first: losses by seed, of which as many count as both have.
        second: likewise, of the same seeds.
        level: probability with which the interval misses the truth.
    """
    count = min(len(first), len(second))
    ones, others = (np.asarray(each[:count], np.float64) for each in (first, second))
    if not (np.isfinite(ones).all() and np.isfinite(others).all()):
        return _by_signs(ones, others, level)
    apart = ones - others
    mean = float(apart.mean())
    if (apart == apart[0]).all():  # of the same trainings: as sure as can be
        return PairedDifference(mean, 0.0, mean, mean, 1.0 if mean == 0 else 0.0, count)
    error = float(apart.std(ddof=1) / math.sqrt(count))
    half = quantile(count, level) * error
    p = 2 * float(stdtr(count - 1, -abs(mean) / error))
    return PairedDifference(mean, error, mean - half, mean + half, p, count)


def _by_signs(ones: np.ndarray, others: np.ndarray, level: float) -> PairedDifference:
    """As `difference`, of losses some of which are infinite."""
    told = np.isfinite(ones) | np.isfinite(others)
    apart = np.sort(ones[told] - others[told])
    pairs, count = len(apart), len(ones)
    if not pairs:
        return PairedDifference(math.nan, math.nan, -math.inf, math.inf, 1.0, count, signs=True)
    # As many pairs at least as lie on the other side of zero, or on it.
    fewer = pairs - max(int((apart > 0).sum()), int((apart < 0).sum()))
    p = min(1.0, 2 * float(bdtr(fewer, pairs, 0.5)))
    # The interval leaves out as many pairs at either end as happens with a probability of level/2.
    left_out = 0
    while 2 * left_out < pairs and 2 * bdtr(left_out, pairs, 0.5) <= level:
        left_out += 1
    low = float(apart[left_out - 1]) if left_out else -math.inf
    high = float(apart[pairs - left_out]) if left_out else math.inf
    lower, upper = float(apart[(pairs - 1) // 2]), float(apart[pairs // 2])
    if lower == upper:
        middle = lower
    else:  # of as many divergences of the one as of the other, neither is ahead
        middle = 0.0 if (lower, upper) == (-math.inf, math.inf) else (lower + upper) / 2
    return PairedDifference(middle, math.nan, low, high, p, count, signs=True)


def diverged(losses: Sequence[float]) -> int:
    """How many of these trainings did."""
    return sum(not math.isfinite(loss) for loss in losses)


def quantile(count: int, level: float) -> float:
    """Of Student's t over so many pairs: beyond it on either side lies a probability of `level`."""
    return float(stdtrit(count - 1, 1 - level / 2))


def rejected(p: Mapping[str, float], level: float) -> set[str]:
    """The hypotheses that Holm's procedure rejects at a level, by their probabilities.

    >>> sorted(rejected({"a": 0.01, "b": 0.02, "c": 0.04}, 0.05))
    ['a', 'b', 'c']
    >>> sorted(rejected({"a": 0.01, "b": 0.03, "c": 0.04}, 0.05))
    ['a']
    """
    found: set[str] = set()
    for left, name in zip(range(len(p), 0, -1), sorted(p, key=lambda name: p[name]), strict=True):
        if p[name] > level / left:
            break
        found.add(name)
    return found


def expected_seeds(spread: float, resolution: float, most: int) -> int:
    """Seeds of the first look at which an interval is about as fine as the resolution.

    Args:
        spread: standard deviation of a pair's difference.
        resolution: half-width of the interval that is fine enough.
        most: seeds at the last look.

    Returns:
        That of the last look where none is fine enough.
    """
    plan = looks(most)
    level = ALPHA / len(plan)
    enough = (n for n in plan if quantile(n, level) * spread / math.sqrt(n) <= resolution)
    return next(enough, most)


def contest(
    loss: Loss,
    rivals: Sequence[str],
    resolution: float,
    most: int,
    tell: Callable[[Outcome], None] = lambda outcome: None,
    ahead: Callable[[Sequence[tuple[str, int]]], object] = lambda asked: None,
) -> Outcome:
    """Measures until the default, the best rival and all that are undecided are fine enough.

    Args:
        loss: of a contestant and a seed, 0, 1, ...
        rivals: names, without `TUNED` and `DEFAULT`.
        resolution: half-width of an interval that is fine enough.
        most: seeds at the last look.
        tell: is told of each look.
        ahead: is told before each look of all that `loss` will be asked, by contestant and seed.
    """
    plan = looks(most)
    level = ALPHA / len(plan)
    losses: dict[str, list[float]] = {name: [] for name in (TUNED, DEFAULT, *rivals)}
    settled: dict[str, set[str]] = {TUNED: set(), DEFAULT: set()}
    going, outcome = list(losses), None
    for seeds in plan:
        asked = [(n, seed) for seed in range(seeds) for n in going if len(losses[n]) <= seed]
        ahead(asked)
        for name, seed in asked:
            losses[name].append(loss(name, seed))
        found = {
            name: difference(losses[name], losses[TUNED], level) for name in (DEFAULT, *rivals)
        }
        over = {name: difference(losses[DEFAULT], losses[name], level) for name in rivals}
        for whom, family in ((TUNED, found), (DEFAULT, over)):
            left = {name: each.p for name, each in family.items() if name not in settled[whom]}
            settled[whom] |= rejected(left, level)
        outcome = Outcome(
            _settled(found, settled[TUNED]),
            _settled(over, settled[DEFAULT]),
            losses,
            plan,
            seeds,
            resolution,
            0,
        )
        undecided = [name for name in found if not outcome.resolved(name)]
        best = min(found, key=lambda name: _rank(found[name]))
        coarse = [
            name
            for name in {*undecided, DEFAULT, best}
            if resolution < found[name].half < math.inf or name in undecided
        ]
        outcome = outcome._replace(more=_more(outcome, undecided))
        tell(outcome)
        if not coarse:
            break
        going = [TUNED, DEFAULT, *(name for name in rivals if name in {*undecided, best})]
    assert outcome is not None  # a plan has a look
    return outcome


def _settled(found: Mapping[str, PairedDifference], told: set[str]) -> dict[str, PairedDifference]:
    """Differences that were told from zero at some look, and that no later one takes back."""
    return {
        name: each._replace(settled=name in told and (each.low > 0 or each.high < 0 or not each.p))
        for name, each in found.items()
    }


def _rank(found: PairedDifference) -> float:
    """Rivals by how little they lose."""
    return found.mean if not math.isnan(found.mean) else math.inf


def _more(outcome: Outcome, undecided: Sequence[str]) -> int:
    """Seeds that it takes further, at the spread that was seen, until all is fine enough."""
    level, needed = ALPHA / len(outcome.plan), outcome.seeds
    for name in undecided:
        found = outcome.rivals[name]
        if not math.isfinite(found.error):  # by signs: as many again
            needed = max(needed, 2 * found.seeds)
            continue
        spread = found.error * math.sqrt(found.seeds)
        # With many pairs Student's t is hardly wider than it is with those that there are.
        count = max(found.seeds, 2)
        while (
            quantile(count, level) * spread / math.sqrt(count) > outcome.resolution
            and count < FURTHEST
        ):
            count = math.ceil(count * 1.1)
        needed = max(needed, count)
    return needed - outcome.seeds
