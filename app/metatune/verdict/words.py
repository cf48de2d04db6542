"""The words of a verdict: which of five things to do, and why, in a sentence."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from metatune.artefact.verdict import KEEP, PLAIN, UNKNOWN, USE, Word
from metatune.verdict.statistics import DEFAULT, TUNED, Outcome, PairedDifference, diverged


class Decision(NamedTuple):
    """What to do.

    Attributes:
        word: one of five.
        rival: that does as well; None where none does, or it doesn't matter.
        why: a sentence without its full stop.
        more: seeds that it would take to tell; zero where it is told.
    """

    word: Word
    rival: str | None
    why: str
    more: int = 0

    def sentence(self, named: Mapping[str, str]) -> str:
        """The decision in a line.

        Args:
            named: what rivals do, by name, of those of whom it can be said.
        """
        what = self.word
        if self.word == PLAIN and self.rival is not None:
            does = f" ({named[self.rival]})" if self.rival in named else ""
            what = f"{PLAIN}: {self.rival}{does}"
        if self.word == UNKNOWN:
            what = f"{UNKNOWN}: {self.more} more seeds would"
        return f"{what}; {self.why}"


def decide(outcome: Outcome) -> Decision:
    """What a contest comes to.

    What was tuned is to be used where it was shown to be better than the default and than each
    rival. Where a rival is better, or no worse than the resolution tells, it does as well; where
    nothing was shown, the defaults stay, if it is known that closely. Who diverges in half of the
    pairs or more is not to be used, whatever else is known; of fewer divergences the sentence says
    how many there were.

    Args:
        outcome: of the contest.
    """
    found = _decided(outcome)
    among = [TUNED, DEFAULT, *([found.rival] if found.rival else [])]
    told = [
        f"{name} diverged in {count} of {len(outcome.losses[name])} seeds"
        for name in among
        if (count := diverged(outcome.losses[name]))
    ]
    return found._replace(why="; ".join([found.why, *told]))


def _decided(outcome: Outcome) -> Decision:
    """The same, without a word on divergences."""
    gain, rivals = outcome.gain, {n: d for n, d in outcome.rivals.items() if n != DEFAULT}
    if gain.mean == -math.inf or math.isnan(gain.mean):
        return Decision(KEEP, None, "trainings by what was tuned diverge")
    if gain.better:
        return _of_a_gain(outcome, rivals)
    better = {name: each for name, each in outcome.over_default.items() if each.better}
    if better:
        best = max(better, key=lambda name: better[name].mean)
        why = f"it is better than your default by {_said(better[best])}, what was tuned isn't"
        return Decision(PLAIN, best, why)
    if gain.worse:
        return Decision(KEEP, None, f"what was tuned is worse: {_said(gain)}")
    if outcome.resolved(DEFAULT) and gain.mean < math.inf:
        return Decision(KEEP, None, f"there is no gain beyond noise: {_said(gain)}")
    why = f"until then keep your defaults: the gain so far is {_said(gain)}"
    return Decision(UNKNOWN, None, why, max(1, outcome.more))


def _of_a_gain(outcome: Outcome, rivals: Mapping[str, PairedDifference]) -> Decision:
    """Of what was shown to be better than the default."""
    gain = outcome.gain
    contenders = {
        name: each for name, each in rivals.items() if not each.better and each.mean < math.inf
    }
    if not contenders:
        why = f"better than your default by {_said(gain)}"
        if rivals:
            best = min(rivals, key=lambda name: rivals[name].mean)
            why += f", and than the best rival, {best}, by {_said(rivals[best])}"
        return Decision(USE, None, why)
    ahead = {name: each for name, each in contenders.items() if each.worse} or contenders
    best = min(ahead, key=lambda name: ahead[name].mean)
    close = ahead[best]
    if close.worse:
        why = f"its loss is {_said(_turned(close))} below that of what was tuned"
        return Decision(PLAIN, best, why)
    if outcome.resolved(best):
        why = (
            f"its loss is that of what was tuned to {outcome.resolution:.2g}: {_said(close)} above"
        )
        return Decision(PLAIN, best, why)
    why = f"the gain over your default is {_said(gain)}, that over {best} {_said(close)}"
    return Decision(UNKNOWN, best, why, max(1, outcome.more))


def _turned(found: PairedDifference) -> PairedDifference:
    return found._replace(mean=-found.mean, low=-found.high, high=-found.low)


def _said(found: PairedDifference) -> str:
    if math.isinf(found.mean):
        return "a divergence"
    middle = "a median of " if found.signs else ""
    return f"{middle}{found.mean:+.4f} ({_end(found.low)} to {_end(found.high)})"


def _end(value: float) -> str:
    """Of an interval; where so many diverged that it has none, a divergence."""
    return f"{value:+.4f}" if math.isfinite(value) else "a divergence"
