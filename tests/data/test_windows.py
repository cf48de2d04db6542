"""Windows of a stream: what is predicted, from which documents, and which texts repeat."""

import numpy as np
import pytest

from metatune.data.documents import Split
from metatune.data.tokenized import TokenStream
from metatune.data.windows import Windows, all_windows, distinct
from metatune.recipe.schema import PackingSpec

PAD = 99


def stream(*lengths, classes=False):
    """Documents of these lengths, whose tokens are numbered through from 0."""
    total = sum(lengths)
    starts = np.cumsum([0, *lengths[:-1]])
    roles = (np.arange(total) % 3).astype(np.uint8) if classes else None
    return TokenStream(np.arange(total).astype(np.uint16), starts, roles)


def rows(windows):
    return windows.take(np.arange(len(windows)))


def test_windows_are_consecutive_and_whole():
    taken = rows(all_windows(stream(11), 4, PackingSpec(), PAD))
    assert taken.tokens.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert taken.tokens.dtype == np.int32
    assert taken[1:] == (None, None, None, None)
    assert len(all_windows(stream(3), 4, PackingSpec(), PAD)) == 0


def test_the_last_window_can_be_padded():
    taken = rows(all_windows(stream(4, 7, classes=True), 4, PackingSpec(last_window="pad"), PAD))
    assert taken.tokens.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, PAD]]
    assert taken.mask is not None and taken.classes is not None
    assert taken.documents is None
    assert taken.mask.dtype == np.float32
    assert taken.mask.tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0]]
    assert taken.classes.tolist() == [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 0]]


@pytest.mark.parametrize(("total", "count"), [(3, 1), (4, 1), (5, 1), (6, 2), (1, 0), (0, 0)])
def test_a_rest_of_one_token_predicts_nothing(total, count):
    assert len(all_windows(stream(total), 4, PackingSpec(last_window="pad"), PAD)) == count


def test_documents_can_be_kept_apart():
    taken = rows(all_windows(stream(2, 5, 1, 4), 4, PackingSpec(cross_documents=False), PAD))
    assert taken.documents is not None and taken.mask is not None
    assert taken.tokens.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert taken.documents.dtype == np.int32
    assert taken.documents.tolist() == [[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert taken.mask.tolist() == [[1, 0, 1], [1, 1, 0], [1, 1, 1]]


def test_masks_agree_with_a_token_by_token_account():
    random = np.random.default_rng(0)
    for _ in range(50):
        lengths = random.integers(1, 6, size=random.integers(1, 12))
        last = str(random.choice(["drop", "pad"]))
        crossing = bool(random.integers(2))
        whole, length = stream(*lengths), int(random.integers(2, 7))
        owner = np.repeat(np.arange(len(lengths)), lengths)
        expected = {}
        for begin in range(0, len(owner), length):
            inside = np.arange(begin, min(begin + length, len(owner)))
            if len(inside) < length and last == "drop":
                continue
            mask = [
                float(t + 1 < len(owner) and (crossing or owner[t] == owner[t + 1]))
                for t in range(begin, begin + length - 1)
            ]
            if any(mask):
                expected[begin] = mask
        packing = PackingSpec(crossing, "pad" if last == "pad" else "drop")
        taken = rows(all_windows(whole, length, packing, PAD))
        assert taken.tokens[:, 0].tolist() == list(expected)
        if taken.mask is None:
            assert all(all(mask) for mask in expected.values())
        else:
            assert taken.mask.tolist() == list(expected.values())


def test_windows_in_which_nothing_is_predicted_are_left_out():
    windows = all_windows(stream(1, 1, 1, 2), 2, PackingSpec(False, "pad"), PAD)
    assert rows(windows).tokens.tolist() == []
    windows = all_windows(stream(1, 1, 2, 3), 2, PackingSpec(False, "drop"), PAD)
    assert rows(windows).tokens.tolist() == [[2, 3], [4, 5]]


@pytest.mark.parametrize("packing", [PackingSpec(), PackingSpec(False, "pad")])
def test_windows_are_taken_in_the_order_asked_for(packing):
    windows = all_windows(stream(3, 10, 9, classes=True), 4, packing, PAD)
    order = np.array([len(windows) - 1, 0, len(windows) - 1, 3])
    for each, whole in zip(windows.take(order), rows(windows), strict=True):
        assert (each is None) == (whole is None)
        assert each is None or whole is None or np.array_equal(each, whole[order])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_held_out_windows_that_stand_in_earlier_splits_are_left_out(dtype):
    random = np.random.default_rng(0)
    shape = (400, 3)  # few enough different windows that many repeat

    def split():
        tokens = random.integers(0, 8, size=shape).astype(dtype)
        return all_windows(
            TokenStream(tokens.ravel(), np.zeros(1, int), None), 3, PackingSpec(), PAD
        )

    splits: dict[Split, Windows] = {"train": split(), "validation": split(), "test": split()}
    kept = distinct(splits)
    texts = {name: [row.tobytes() for row in rows(its).tokens] for name, its in splits.items()}
    seen = set()
    for name in splits:
        expected = [text for text in texts[name] if text not in seen or name == "train"]
        assert [row.tobytes() for row in rows(kept[name]).tokens] == expected
        seen |= set(texts[name])
    assert 0 < len(kept["test"]) < len(kept["validation"]) < 400
