"""Tokens, and where they stand in their text."""

from typing import NamedTuple

import numpy as np


class Placed(NamedTuple):
    """The tokens of a text, and where they stand in it.

    Attributes:
        ids: [tokens].
        begins: the first character that a token is made of, int64 [tokens].
        ends: one past the last, int64 [tokens].
    """

    ids: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
