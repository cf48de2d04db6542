"""The certificate: all checks of a subject, the verdict, and the likeliest causes."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final

from metatune.artefact import CERTIFICATE_FORMAT, CERTIFICATE_VERSION
from metatune.check.agreement import Agreement, judge_agreement
from metatune.check.choices import Choices, judge_choices
from metatune.check.differences import Differences, judge_differences
from metatune.check.growth import Dominance, judge_growth
from metatune.check.horizons import Horizons, judge_horizons
from metatune.check.levels import (
    EPS_ROOT,
    ESTIMATOR,
    GREEN,
    LEARNING_RATE,
    NOISE,
    ROUGH,
    Finding,
    Level,
    worst,
)
from metatune.check.limits import limits
from metatune.check.linearity import Linearity, judge_linearity
from metatune.check.measuring import measure
from metatune.check.metasmoothness import Metasmoothness, judge_metasmoothness
from metatune.check.numbers import DEFAULT, Numbers, Settings
from metatune.check.signal import SignalCheck, judge_signal
from metatune.check.subject import Subject
from metatune.check.training import Training, judge_training

EXPLODED: Final = 3.0
"""Times the central differences beyond which derivatives have blown up."""

MISLEADING: Final = 1.0
"""Relative error beyond noise at which a derivative tells less of trainings than 0 would."""


@dataclass(frozen=True)
class Certificate:
    """What the checks came to; those that numbers which aren't finite leave no sense are None.

    Attributes:
        steps: the horizon.
        window: that is differentiated; None for all.
        estimator: its name.
        meta_parameters: how many, N.
        settings: how much was looked at.
        limits: what a shortened check can't say.
        training: finite numbers, and an objective that falls.
        differences: against central differences.
        agreement: against another estimator.
        signal: over seeds.
        metasmoothness: of the training.
        horizons: signs over shorter ones.
        growth: of the adjoint behind each window.
        linearity: over the step that a search takes.
        choices: of experts, over that step; of a model with experts.
    """

    steps: int
    window: int | None
    estimator: str
    meta_parameters: int
    settings: Settings
    limits: tuple[str, ...]
    training: Training
    differences: Differences | None
    agreement: Agreement | None
    signal: SignalCheck | None
    metasmoothness: Metasmoothness | None
    horizons: Horizons | None
    growth: Dominance
    linearity: Linearity | None
    choices: Choices | None

    @property
    def checks(self) -> dict[str, Any]:
        """The checks by name; no `choices` where there are none."""
        found = {name: getattr(self, name) for name in CHECKS}
        return found if self.choices is None else {**found, "choices": self.choices}

    @property
    def verdict(self) -> Level:
        """The worst level of the checks."""
        return worst(self._findings()).level

    @property
    def causes(self) -> tuple[str, ...]:
        """The likely causes of the verdict."""
        level = self.verdict
        named = [cause for f in self._findings() if f.level == level for cause in f.causes]
        # Where trainings are chaotic no number of seeds agrees.
        hidden = {NOISE} if LEARNING_RATE in named else set()
        return tuple(cause for cause in dict.fromkeys(named) if cause not in hidden)

    def _findings(self) -> Iterator[Finding]:
        return (check.finding for check in self.checks.values() if check is not None)


CHECKS: Final = (
    "training",
    "differences",
    "agreement",
    "signal",
    "metasmoothness",
    "horizons",
    "growth",
    "linearity",
)


def certify(subject: Subject, settings: Settings = DEFAULT) -> Certificate:
    """Runs all checks.

    Args:
        subject: what to check.
        settings: how much to look at.
    """
    return judge(measure(subject, settings))


def judge(numbers: Numbers) -> Certificate:
    """The certificate that follows from what was measured."""
    training = judge_training(numbers)
    differences = agreement = signal = metasmoothness = horizons = None
    if numbers.moved is not None:
        metasmoothness = judge_metasmoothness(numbers, numbers.moved)
    if numbers.compared is not None:
        differences = judge_differences(numbers)
        agreement = judge_agreement(numbers, numbers.compared)
        differences, agreement = explained(differences, agreement, metasmoothness)
        signal = judge_signal(numbers)
        horizons = judge_horizons(numbers)
    steps, differentiated, _ = numbers.horizon
    return Certificate(
        steps,
        differentiated if differentiated < steps else None,
        numbers.estimator,
        sum(math.prod(shape) for shape in numbers.shapes.values()),
        numbers.settings,
        limits(numbers.horizon, numbers.own),
        training,
        differences,
        agreement,
        signal,
        metasmoothness,
        horizons,
        judge_growth(numbers),
        judge_linearity(numbers),
        judge_choices(numbers),
    )


def explained(
    differences: Differences, agreement: Agreement, metasmoothness: Metasmoothness | None
) -> tuple[Differences, Agreement]:
    """The same with what only all of them together tell.

    Two exact estimators that agree are right: what the differences don't follow then is the
    training. That is red where derivatives tell less of it than 0 would, and amber up to there.
    Where a training is chaotic rounding is blown up too, and sets estimators apart.
    """
    smooth = metasmoothness is not None and metasmoothness.finding.level == "green"
    exploded = differences.ratio > EXPLODED
    off = ESTIMATOR in differences.finding.causes
    if off and agreement.finding == GREEN:
        finding = Finding("amber", (ROUGH,))
        if differences.excess > MISLEADING:
            finding = Finding("red", (EPS_ROOT if smooth and exploded else LEARNING_RATE,))
        return replace(differences, finding=finding), agreement
    chaotic = differences.finding.causes == (LEARNING_RATE,) or (off and exploded and not smooth)
    if chaotic and ESTIMATOR in agreement.finding.causes:
        causes = (LEARNING_RATE,)
        return (
            replace(differences, finding=differences.finding._replace(causes=causes)),
            replace(agreement, finding=agreement.finding._replace(causes=causes)),
        )
    return differences, agreement


ABOUT: Final = (
    "steps",
    "window",
    "estimator",
    "meta_parameters",
    "settings",
    "limits",
)


def as_json(certificate: Certificate, about: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate as plain values; a number that isn't finite is null.

    Args:
        certificate: what the checks came to.
        about: what else to say of what was checked.
    """
    rest = {name: plain(getattr(certificate, name)) for name in ABOUT}
    return {
        "format": CERTIFICATE_FORMAT,
        "version": CERTIFICATE_VERSION,
        "verdict": certificate.verdict,
        "causes": list(certificate.causes),
        **plain(about),
        **rest,
        "checks": plain(certificate.checks),
    }


def plain(value: Any) -> Any:
    """Dicts, lists and plain values; a finding's level and causes stand beside the numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        tree = {field.name: getattr(value, field.name) for field in fields(value)}
        finding = tree.pop("finding", GREEN)
        return plain(finding._asdict()) | plain(tree)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value
