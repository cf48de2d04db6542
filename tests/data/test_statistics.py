"""What domains hold, and how often they are read."""

import numpy as np
import pytest

from metatune.data.statistics import Statistics, copies, repeats


def test_copies_within_and_across_domains_are_counted():
    hashes = {
        "a": np.array([1, 2, 2, 3, 3, 3], np.uint64),
        "b": np.array([4, 5], np.uint64),
        "c": np.array([5, 3, 2**64 - 1], np.uint64),
    }
    assert copies(hashes) == {"a": (3, 3), "b": (0, 1), "c": (0, 2)}
    assert copies({"a": np.empty(0, np.uint64)}) == {"a": (0, 0)}


def test_repeats_are_sequences_drawn_over_sequences_there_are():
    shares = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert repeats([6, 2], shares, 4) == pytest.approx([1.0, 1.0])


def test_bytes_per_token():
    assert Statistics(documents=1, tokens=4, bytes=10).bytes_per_token == 2.5
