"""The certificate: all checks of a subject, the verdict, and the likeliest causes."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final, NamedTuple

from metatune.artefact import CERTIFICATE_FORMAT, CERTIFICATE_VERSION
from metatune.check.agreement import Agreement, check_agreement
from metatune.check.differences import (
    EPSILONS,
    Differences,
    check_differences,
    random_directions,
)
from metatune.check.horizons import FRACTIONS, Horizons, check_horizons
from metatune.check.levels import (
    EPS_ROOT,
    ESTIMATOR,
    GREEN,
    LEARNING_RATE,
    NOISE,
    Finding,
    Level,
    worst,
)
from metatune.check.metasmoothness import Metasmoothness, check_metasmoothness
from metatune.check.signal import Signal, check_signal
from metatune.check.subject import Held, Subject, samples
from metatune.check.training import Training, check_training

EXPLODED: Final = 3.0
"""Times the central differences beyond which derivatives have blown up."""


class Settings(NamedTuple):
    """How much is looked at.

    Attributes:
        seeds: hypergradients, of fresh starts and data; 2 or more.
        directions: random ones, and as many coordinates.
        step: of the metasmoothness, in units of log rate and of logits.
        seed: of the random directions.
    """

    seeds: int = 4
    directions: int = 4
    step: float = 0.1
    seed: int = 0


DEFAULT: Final = Settings()


@dataclass(frozen=True)
class Certificate:
    """What the checks came to; those that numbers which aren't finite leave no sense are None.

    Attributes:
        steps: the horizon.
        window: that is differentiated; None for all.
        estimator: its name.
        meta_parameters: how many, N.
        settings: how much was looked at.
        training: finite numbers, and an objective that falls.
        differences: against central differences.
        agreement: against another estimator.
        signal: over seeds.
        metasmoothness: of the training.
        horizons: signs over shorter ones.
    """

    steps: int
    window: int | None
    estimator: str
    meta_parameters: int
    settings: Settings
    training: Training
    differences: Differences | None
    agreement: Agreement | None
    signal: Signal | None
    metasmoothness: Metasmoothness | None
    horizons: Horizons | None

    @property
    def checks(self) -> dict[str, Any]:
        """The checks by name."""
        return {name: getattr(self, name) for name in CHECKS}

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
)


def certify(subject: Subject, settings: Settings = DEFAULT) -> Certificate:
    """Runs all checks.

    Args:
        subject: what to check.
        settings: how much to look at.
    """
    found = samples(subject, settings.seeds, "hypergradient")
    draw = subject.draw(0)
    held = Held(subject, draw)
    training = check_training(held.objective(held.evaluated(draw.state)), found)
    size = len(subject.flat)
    random = random_directions(size, settings.directions, settings.seed)
    differences = agreement = signal = metasmoothness = horizons = None
    if training.finite_losses:
        signs = random[0] * math.sqrt(size)
        metasmoothness = check_metasmoothness(held, signs, settings.step)
    if training.finite_losses and training.finite_gradients:
        differences = check_differences(subject, held, found[0], random)
        agreement = check_agreement(subject, draw, found[0], random)
        differences, agreement = explained(differences, agreement, metasmoothness)
        signal = check_signal(subject, found)
        horizons = check_horizons(subject, found)
    return Certificate(
        subject.steps,
        subject.window,
        type(subject.estimator).__name__,
        size,
        settings,
        training,
        differences,
        agreement,
        signal,
        metasmoothness,
        horizons,
    )


def explained(
    differences: Differences, agreement: Agreement, metasmoothness: Metasmoothness | None
) -> tuple[Differences, Agreement]:
    """The same with the causes that only all of them together tell.

    Two exact estimators that agree are right: what the differences don't follow then is the
    training. Where that is chaotic rounding is blown up too, and sets estimators apart.
    """
    if differences.finding.causes == (ESTIMATOR,) and agreement.finding is GREEN:
        smooth = metasmoothness is not None and metasmoothness.finding is GREEN
        cause = EPS_ROOT if smooth and differences.ratio > EXPLODED else LEARNING_RATE
        finding = Finding(differences.finding.level, (cause,))
        return replace(differences, finding=finding), agreement
    if differences.finding.causes == (LEARNING_RATE,) and ESTIMATOR in agreement.finding.causes:
        finding = Finding(agreement.finding.level, (LEARNING_RATE,))
        return differences, replace(agreement, finding=finding)
    return differences, agreement


def computations(subject: Subject, settings: Settings) -> int:
    """Trainings and hypergradients that `certify` takes of a subject whose numbers are finite."""
    coordinates = min(settings.directions, len(subject.flat))
    swept = 2 * 2 * len(EPSILONS)
    others = 2 * 2 * (settings.directions - 1 + coordinates - 1)
    shorter = [subject.steps // fraction for fraction in FRACTIONS]
    horizons = 1 if subject.whole else sum(bool(n and subject.shorter(n)) for n in shorter)
    before = bool(subject.window and subject.window < subject.steps)
    forward = 1
    smoothness = 3
    return settings.seeds * (1 + horizons) + before + swept + others + forward + smoothness


def as_json(certificate: Certificate, about: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate as plain values; a number that isn't finite is null.

    Args:
        certificate: what the checks came to.
        about: what else to say of what was checked.
    """
    rest = {
        name: plain(getattr(certificate, name))
        for name in ("steps", "window", "estimator", "meta_parameters", "settings")
    }
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
