"""Scales of plots, drawn in pixels or as SVG: their colours, ticks and axes."""

import math
from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]

LOG_DECADES = 3  # a log scale shows at most so many decades below the largest value

# Okabe & Ito's colours for all kinds of colour vision, without the yellow (faint on white).
CATEGORICAL: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (86, 180, 233),
)


def colours(fractions: np.ndarray | float) -> np.ndarray:
    """Perceptually uniform colours: fractions of [0, 1] from dark violet over teal to pale yellow.

    A helix in Oklab: lightness and hue move linearly, chroma is constant, so equal differences of
    value are equal differences to the eye, and larger values are always lighter.

    Args:
        fractions: numbers from 0 to 1, any shape.

    Returns:
        sRGB, uint8 [..., 3].

    Source: Ottosson, "A perceptual color space for image processing", 2020 (the two matrices).
    """
    fractions = np.asarray(fractions, np.float64)
    lightness = 0.30 + 0.62 * fractions
    hue = np.radians(300.0 - 190.0 * fractions)
    chroma = 0.095
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], -1)
    to_lms = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_lms.T) ** 3 @ to_rgb.T, 0.0, 1.0)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * gamma).astype(np.uint8)


def palette(count: int) -> list[Colour]:
    """`count` colours to tell series apart; of many series the order shows as a ramp."""
    if count <= len(CATEGORICAL):
        return list(CATEGORICAL[:count])
    # The lightest colours of the ramp are hard to see as a line on white.
    return [(int(r), int(g), int(b)) for r, g, b in colours(np.linspace(0.0, 0.85, count))]


def evenly(count: int, most: int) -> list[int]:
    """Indices below `count`: all of them, or `most` evenly spread ones with both ends."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about `about` of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high` (> 0), and on a short range 2 and 5 or 3 between them."""
    mantissas = (1, 2, 5) if high / low < 100 else (1, 3)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = [float(f"{m}e{power}") for power in powers for m in mantissas]
    ticks = [tick for tick in candidates if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    return ticks if len(ticks) > 1 else linear_ticks(low, high)


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


def padded(low: float, high: float) -> tuple[float, float]:
    """The range of an axis: a twentieth beyond the values; some room where they are all equal."""
    margin = 0.05 * (high - low) or 0.1 * abs(high) or 0.1
    return low - margin, high + margin


@dataclass(frozen=True)
class Frame:
    """A plot's rectangle in pixels and the ranges of its axes; `log` is for the vertical one."""

    left: float
    top: float
    right: float
    bottom: float
    steps: int
    low: float
    high: float
    log: bool = False

    def x(self, step: np.ndarray | float) -> np.ndarray:
        """Horizontal pixels of steps; 0 is the left edge, `steps` the right one."""
        return self.left + np.asarray(step) / self.steps * (self.right - self.left)

    def y(self, value: np.ndarray | float) -> np.ndarray:
        """Vertical pixels of values; pixels count downwards."""
        low, high, value = self.low, self.high, np.asarray(value, np.float64)
        if self.log:
            low, high, value = math.log(low), math.log(high), np.log(value)
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def stairs(self, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The outline [2 n, 2] in pixels of `values` that hold from each of `steps` to the next."""
        edges = self.x(np.append(steps, self.steps))
        return np.stack([np.repeat(edges, 2)[1:-1], np.repeat(self.y(values), 2)], -1)

    def x_ticks(self) -> list[float]:
        """Whole steps at which the horizontal axis has labels."""
        return [tick for tick in linear_ticks(0, self.steps) if tick == int(tick)]

    def y_ticks(self) -> list[float]:
        """Values at which the vertical axis has labels."""
        ticks = log_ticks if self.log else linear_ticks
        return ticks(self.low, self.high)
