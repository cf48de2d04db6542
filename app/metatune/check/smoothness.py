"""How steadily the trained parameters move: the number behind the metasmoothness.

From three trainings along a direction v, with A(η) = θ_T:

    Δ(η) = (A(η + hv) - A(η)) / h
    d    = |A(η + 2hv) - A(η)|
    S    = sign(Δ(η))ᵀ diag(d / |d|₁) sign(Δ(η + hv)),  from -1 to 1

the agreement of the parameters' directions before and after the step, each parameter counting for
as much as it moves. A trained parameter that moves on is 1, one that turns back is -1; chaos is
about 0. Here v has entries of ±1, and h is the step that a search takes.

A parameter that moves by no more than its own rounding has no direction, and is left out.

Source: Engstrom et al., Optimizing ML Training with Metagradient Descent, 2025, Definition 2,
arXiv 2503.13751.
"""

import numpy as np

from metatune.check.numbers import Moved


def moved(at: np.ndarray, beyond: np.ndarray, further: np.ndarray, *, eps: float = 0.0) -> Moved:
    """S of the parameters at η, η + hv and η + 2hv, `eps` being that of their number format.

    1 where none moves by more than its rounding, nan if one isn't finite.

    >>> moved(np.zeros(2), np.array([1.0, 1.0]), np.array([3.0, 1.0])).smoothness
    0.75
    """
    if not np.isfinite([at, beyond, further]).all():
        return Moved(float("nan"), 0.0)
    before, after, weight = beyond - at, further - beyond, np.abs(further - at)
    known = np.maximum(np.abs(before), np.abs(after)) > 2 * eps * np.abs(at)
    total, own = weight.sum(), weight[known].sum()
    agreement = np.sign(before[known]) * np.sign(after[known])
    if not own:
        # All of it turned back to the very place, or nothing moved.
        return Moved(-1.0 if agreement.any() else 1.0, float(known.any()))
    return Moved(float(agreement @ weight[known] / own), float(own / total))
