"""Cuts and sides: nothing held out is ever trained on."""

from hashlib import sha256

import numpy as np
import pytest

from metatune.data import shipped_text
from metatune.data.documents import LONGEST, SHORTEST, SPLITS, side
from metatune.data.documents import cut as cut_blocks


def cut(text):
    return [document.decode() for document in cut_blocks([text.encode()])]


@pytest.mark.parametrize("size", [1, 1000, 4099, 6144, 6145, 10_000])
def test_where_a_text_is_divided_for_reading_makes_no_difference(size):
    content = shipped_text("spanish_rv1909").encode()[:50_000]
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    assert list(cut_blocks(blocks)) == list(cut_blocks([content]))


def test_bytes_that_are_no_text_are_cut_too():
    content = b"\x80" * 20_000
    assert b"".join(cut_blocks([content])) == content
    assert max(map(len, cut_blocks([content]))) == LONGEST


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("", []),
        ("short", [5]),
        ("a" * 4097 + "\n\n" + "b" * 50, [4099, 50]),
        ("a" * 4097 + "\nb" + "c" * 1000 + "\n\n" + "d", [5101, 1]),  # the paragraph, not the line
        ("a" * 4097 + "\n" + "b" * 3000, [4098, 3000]),
        ("a" * 4097 + "\r\n\r\n\r\n" + "b", [4103, 1]),
        ("a\n\n" * 1000 + "b" * 1094 + "\n\n\n" + "c", [4097, 1]),  # not before the shortest
        ("a" * 7000, [6144, 856]),
        ("a" * 6143 + "é" * 500, [6143, 1000]),  # é is two bytes
        ("a" * 6141 + "🎈" * 10, [6141, 40]),  # this one is four
    ],
)
def test_a_text_is_cut_at_the_best_place(text, lengths):
    documents = cut(text)
    assert "".join(documents) == text
    assert [len(document.encode("utf-8")) for document in documents] == lengths


@pytest.mark.parametrize("name", ["code_stdlib", "spanish_rv1909"])
def test_real_documents_have_their_length(name):
    documents = cut(shipped_text(name))
    assert "".join(documents) == shipped_text(name)
    sizes = [len(document.encode("utf-8")) for document in documents[:-1]]
    assert SHORTEST <= min(sizes)
    assert max(sizes) <= LONGEST


def sides(documents):
    """What is on each side."""
    found = {split: set() for split in SPLITS}
    for document in documents:
        found[side(sha256(document.encode()).digest(), 0.1, 0.2)].add(document)
    return found


def test_the_order_of_documents_does_not_move_them():
    # A document that was cut at a line's end has looked ahead for a blank line; the last one ended
    # with the text.
    whole = cut(shipped_text("code_stdlib"))[:-1]
    documents = [text for text in whole if text.endswith("\n\n")]
    assert len(documents) > 400
    order = np.random.default_rng(0).permutation(len(documents))
    again = cut("".join(documents[i] for i in order))
    assert again != documents
    assert sides(again) == sides(documents)


def test_the_sides_have_about_their_shares():
    count = 4000
    found = sides(f"document {number}" for number in range(count))
    assert found["train"].isdisjoint(found["validation"] | found["test"])
    assert found["validation"].isdisjoint(found["test"])
    for split, share in {"train": 0.7, "validation": 0.1, "test": 0.2}.items():
        error = np.sqrt(share * (1 - share) / count)
        assert len(found[split]) / count == pytest.approx(share, abs=3 * error)


def test_a_larger_share_keeps_what_the_smaller_held():
    documents = [f"document {number}" for number in range(500)]
    small, large = (
        {
            text
            for text in documents
            if side(sha256(text.encode()).digest(), outer, 0.1) == "validation"
        }
        for outer in (0.1, 0.3)
    )
    assert small < large
