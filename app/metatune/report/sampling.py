"""Which of many values are drawn, and how far down a logarithmic scale goes."""

from typing import Final

import numpy as np

LOG_DECADES: Final = 3
"""A logarithmic scale shows at most so many decades below the largest value."""


def evenly(count: int, most: int) -> list[int]:
    """Indices below `count`: all of them, or `most` evenly spread ones with both ends."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def log_floor(values: np.ndarray) -> np.ndarray:
    """Raises values more than `LOG_DECADES` decades below the largest (a rate of 0) to that floor.

    Raises:
        ValueError: no value is above 0.
    """
    largest = float(values.max())
    if not largest > 0:
        raise ValueError(
            f"a log scale needs a value above 0, the largest is {largest:g}: use a linear scale"
        )
    return np.maximum(values, largest * 10.0**-LOG_DECADES)
