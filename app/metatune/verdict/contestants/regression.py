"""A regression over random mixtures, as RegMix does: train on some, predict all others.

Mixtures are drawn from Dirichlet distributions around the mixture by size; a linear regression
predicts the loss, and the mean of the best hundred of many simulated mixtures is trained.

Source: Liu et al., RegMix: Data Mixture as Regression for Language Model Pre-training, ICLR 2025,
sections 3.1 to 3.3, with linear regression.
"""

from typing import Final

import numpy as np

from metatune.verdict.contestants.contestant import (
    BY_SIZE,
    DIVERGED,
    ContestSetting,
    Evaluate,
    fitting,
)
from metatune.verdict.points import Plain

SIMULATED: Final = 10_000
BEST: Final = 100
STRENGTHS: Final = (0.1, 5.0)
"""Between which the concentration of the Dirichlet distribution is drawn, log-uniformly, times the
number of domains."""

RIDGE: Final = 1e-3
FEWEST: Final = 4
"""Trainings that a regression needs at least, besides one for what it predicts."""

ROUNDS: Final = 2
"""Mixtures that are predicted, the second with the loss of the first."""


class Regression:
    """Mixtures alone; rates are the recipe's."""

    name = "regression"
    summary = "a regression over random mixtures, as RegMix does"

    def refusal(self, setting: ContestSetting) -> str | None:
        """It needs a mixture."""
        return None if setting.mixtures else "no mixture is tuned"

    def search(self, setting: ContestSetting, budget: int, evaluate: Evaluate, key: int) -> None:
        """See `Contestant`."""
        centre = np.asarray(setting.mixtures.get(BY_SIZE) or next(iter(setting.mixtures.values())))
        rounds = min(ROUNDS, max(0, budget - FEWEST))
        drawn = [
            _mixture(centre, np.random.default_rng((key, number)), setting.caps)
            for number in range(budget - rounds)
        ]
        known = [(shares, _loss(shares, evaluate)) for shares in drawn]
        simulated = np.random.default_rng((key, budget, SIMULATED))
        for _ in range(rounds):
            told = [(shares, loss) for shares, loss in known if loss < DIVERGED]
            if len(told) < FEWEST:
                return
            many = np.stack([_mixture(centre, simulated, setting.caps) for _ in range(SIMULATED)])
            seen = np.stack([shares for shares, _ in told])
            predicted = _predicted(seen, np.asarray([loss for _, loss in told]), many)
            best = many[np.argsort(predicted, kind="stable")[:BEST]].mean(axis=0)
            shares = fitting(tuple(map(float, best / best.sum())), setting.caps)
            known.append((np.asarray(shares), _loss(np.asarray(shares), evaluate)))


def _mixture(
    centre: np.ndarray, drawing: np.random.Generator, caps: tuple[float, ...]
) -> np.ndarray:
    strength = np.exp(drawing.uniform(*np.log(STRENGTHS)))
    drawn = drawing.dirichlet(np.maximum(centre, 1e-3) * len(centre) * strength)
    return np.asarray(fitting(tuple(map(float, drawn)), caps))


def _loss(shares: np.ndarray, evaluate: Evaluate) -> float:
    return evaluate(Plain(mixture="regression", shares=tuple(map(float, shares))))


def _predicted(mixtures: np.ndarray, losses: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A ridge regression in the shares and their logarithms, which losses bend with."""

    def features(shares: np.ndarray) -> np.ndarray:
        return np.concatenate([shares, np.log(shares + 0.01)], axis=1)

    rows = features(mixtures)
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-9
    rows = (rows - mean[None]) / scale[None]
    inner = rows.T @ rows + RIDGE * len(rows) * np.eye(rows.shape[1])
    slopes = np.linalg.solve(inner, rows.T @ (losses - losses.mean()))
    return losses.mean() + (features(others) - mean[None]) / scale[None] @ slopes
