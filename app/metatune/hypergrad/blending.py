"""Blends of two estimates of the same derivatives, by their inverse variances.

Source: Parmas, Rasmussen, Peters & Doya, PIPPS: Flexible Model-Based Policy Search Robust to the
Curse of Chaos, ICML 2018, section 3 (total propagation); Metz et al., 2019, section 3.2.
"""

from typing import Final

import numpy as np
from jaxtyping import Float

ENOUGH: Final = 8
"""Trainings that a blend is of, at least: of six, noise in the variances costs a fifth."""


def blend(
    exact: Float[np.ndarray, "..."], smoothed: Float[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """`w e + (1 - w) s` with `w = (var s - cov) / (var e + var s - 2 cov)`, of the means.

    The weight of least variance, which is that of inverse variances where errors are independent,
    kept within 0 and 1.

    Where both are unbiased for the smoothed objective, so is the blend if their errors are as
    often above as below: the weights are of the same trainings. Variances of means over M.

    Args:
        exact: derivatives of M trainings along n directions, [M, n]; what isn't finite has no
            weight.
        smoothed: of the same trainings along the same directions, [M, n].

    Returns:
        The mean over trainings, [n], and the weight of the exact ones, [n].

    Raises:
        ValueError: fewer than `ENOUGH` trainings, whose variances say too little.
    """
    if len(exact) < ENOUGH or exact.shape != smoothed.shape:
        raise ValueError(
            f"derivatives of shapes {exact.shape} and {smoothed.shape}: must be of {ENOUGH} "
            "trainings or more, and of the same directions"
        )
    one, other = (np.asarray(each, np.float64) for each in (exact, smoothed))
    usable = np.isfinite(one).all(axis=0)
    one = np.where(usable, one, 0.0)
    noise, other_noise = one.var(axis=0), other.var(axis=0)
    common = np.mean((one - one.mean(axis=0)) * (other - other.mean(axis=0)), axis=0)
    total = noise + other_noise - 2 * common
    weights = np.divide(other_noise - common, total, out=np.full_like(total, 0.5), where=total > 0)
    weights = np.where(usable, np.clip(weights, 0.0, 1.0), 0.0)
    return weights * one.mean(axis=0) + (1 - weights) * other.mean(axis=0), weights
