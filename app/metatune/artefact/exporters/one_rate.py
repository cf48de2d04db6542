"""What an export says where the trainer has one learning rate for all parameters."""

import numpy as np

from metatune.artefact.exporters.base import Production
from metatune.artefact.exporters.base_schedule import described, over

SAID = """
One learning rate stands for all parameters there: {which}. Its peak is {peak!r}; over training it
is {words}.
"""


def one_curve(production: Production) -> tuple[np.ndarray, float]:
    """The curve that is nearest to those of all parameters, and how far off it is.

    The geometric mean of their rates at each knot, weighted by their sizes where these are known.

    Returns:
        float64 [knots], and the largest deviation from a parameter's rate, relative to that.
    """
    parameters, sizes = production.artefact.learning_rates.parameters, production.sizes or {}
    curves = np.stack(list(parameters.values()))
    if np.all(curves == curves[0]):
        return curves[0], 0.0
    weights = np.array([float(sizes.get(name, 1)) for name in parameters])
    with np.errstate(divide="ignore", invalid="ignore"):  # a rate of 0 makes a mean of 0
        fitted = np.exp(weights @ np.log(curves) / weights.sum())
        off = np.where(fitted == curves, 0.0, np.abs(fitted / curves - 1))
    return fitted, float(off.max())


def one_rate(production: Production) -> str:
    """The learning rate in words: the one that all have, or the one that is fitted to all."""
    curve, deviation = one_curve(production)
    which = "the tuned one, which all have"
    if deviation:
        weighted = "by their sizes" if production.sizes else "each alike: sizes aren't known here"
        which = (
            "fitted, the geometric mean over the tuned ones at each update, weighted "
            f"{weighted}; a parameter's own is up to {100 * deviation:.3g} % away"
        )
    one = described(over(curve, production.artefact.learning_rates, production.steps))
    return SAID.format(which=which, peak=one.peak, words=one.words(production.steps))
