"""What a search keeps of differences of trainings: slopes, and how far they are told from noise.

A slope is known as the mean over trainings of its outer step and of those before, each of which
counts half as much as the next. How much single trainings vary is known where there were several,
of all windows of a tunable together, as one alone has few.

Source: James & Stein, Estimation with Quadratic Loss, 1961 (the factor's positive part).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from metatune.tunables.blocks import Row, WindowBlock

FADES: Final = 0.5
"""What a training counts of one of the next measurement."""

CLEAR: Final = 2.0
"""Standard errors above which the sign of a slope is taken for known."""


class SlopeMemory(NamedTuple):
    """What a search keeps of the differences of before: arrays of NumPy, or as they were saved.

    Attributes:
        slopes: by tunable what the differences say, in the place of its hypergradient, float32: a
            direction belongs to its outer step. Zero for none.
        measured: the outer step of the latest, [blocks] int32; -1 for none.
        trainings: that the slope of a block is worth, [blocks] float32.
        squares: of single trainings' slopes, the squared deviations from the mean of their outer
            step, [blocks] float32.
        freedom: their degrees of freedom, [blocks] int32.
        sizes: of the slope along its direction, [blocks] float32; zero for none.
    """

    slopes: Mapping[str, Any]
    measured: Any
    trainings: Any
    squares: Any
    freedom: Any
    sizes: Any


def blank(blocks: Sequence[WindowBlock], eta: Mapping[str, Any]) -> SlopeMemory:
    """That of a search that begins."""
    count, keys = len(blocks), sorted({each.key for each in blocks})
    return SlopeMemory(
        {key: np.zeros(eta[key].shape, np.float32) for key in keys},
        np.full(count, -1, np.int32),
        *(np.zeros(count, kind) for kind in (np.float32, np.float32, np.int32, np.float32)),
    )


def noise(memory: SlopeMemory, blocks: Sequence[WindowBlock], number: int) -> float:
    """The variance of a single training's slope in a block; NaN where nothing is known of it."""
    alike = [i for i, each in enumerate(blocks) if each.key == blocks[number].key]
    freedom = int(np.asarray(memory.freedom)[alike].sum())
    if not freedom:
        return math.nan
    return float(np.asarray(memory.squares, np.float64)[alike].sum()) / freedom


def with_slope(
    memory: SlopeMemory,
    blocks: Sequence[WindowBlock],
    number: int,
    step: int,
    along: Row,
    found: Row,
) -> tuple[SlopeMemory, float]:
    """The memory with a measurement.

    Args:
        memory: of before.
        blocks: of what is tuned.
        number: the block's.
        step: the outer step.
        along: the direction, [n].
        found: the slope along it of each training, [trainings].

    Returns:
        It, and the slope as it is known now.
    """
    block = blocks[number]
    earlier = FADES * float(memory.trainings[number])
    known = earlier + len(found)
    before = float(block.row(memory.slopes) @ along)
    slope = (earlier * before + float(found.sum())) / known
    squares = float(np.sum((found - found.mean()) ** 2))
    memory = memory._replace(
        slopes=block.put(memory.slopes, slope / (along @ along) * along),
        measured=_with(memory.measured, number, step),
        trainings=_with(memory.trainings, number, known),
        squares=_with(memory.squares, number, float(memory.squares[number]) + squares),
        freedom=_with(memory.freedom, number, int(memory.freedom[number]) + len(found) - 1),
        sizes=_with(memory.sizes, number, abs(slope)),
    )
    return memory, slope


def errors(memory: SlopeMemory, blocks: Sequence[WindowBlock], number: int) -> float:
    """How many standard errors a block's slope is from zero, by the noise that is known by now.

    Infinite where nothing is known of that, zero for no slope.
    """
    size, variance = float(memory.sizes[number]), noise(memory, blocks, number)
    if not size:
        return 0.0
    if math.isnan(variance) or variance == 0:
        return math.inf
    return size / math.sqrt(variance / float(memory.trainings[number]))


def _with(array: Any, number: int, value: float) -> np.ndarray:
    """A copy with another entry."""
    found = np.array(array)
    found[number] = value
    return found


def wanted(memory: SlopeMemory, blocks: Sequence[WindowBlock], number: int, most: int) -> int:
    """How many trainings a block's next differences should be of.

    As many as make its slope clear, by what is known of it: those of before, faded, come to as many
    again. All that may be where nothing is known of it, or of its noise.

    Args:
        memory: of before.
        blocks: of what is tuned.
        number: the block's.
        most: that may be.
    """
    far, known = errors(memory, blocks, number), float(memory.trainings[number])
    if not far or math.isinf(far):
        return most
    # far² = slope² known / variance, and 2 n trainings are to have CLEAR² of it.
    return min(most, max(1, math.ceil(CLEAR**2 * known / far**2 / 2)))


def kept(memory: SlopeMemory, blocks: Sequence[WindowBlock], number: int) -> float:
    """What noise leaves of a step along a block's slope, 0 to 1: `max(0, 1 - 1 / errors²)`."""
    far = errors(memory, blocks, number)
    return max(0.0, 1 - 1 / far**2) if far else 0.0
