"""Text to tokens and back."""

from hashlib import sha256

import numpy as np
import pytest

from metatune.data import ByteTokenizer, tokenizer


@pytest.mark.parametrize("text", ["", "plain\n", "el niño – 漢字 🎈", "\x00\x7f\u0080"])
def test_text_comes_back(text):
    ids = ByteTokenizer().encode(text)
    assert ids.dtype == np.uint16
    assert bytes(ids.tolist()) == text.encode("utf-8")
    assert ByteTokenizer().decode(ids) == text


def test_the_special_tokens_are_behind_the_bytes_and_are_not_text():
    bytewise = ByteTokenizer()
    special = [bytewise.bos_id, bytewise.eos_id, bytewise.pad_id]
    assert special == [256, 257, 258]
    assert bytewise.vocab_size == 259
    assert bytewise.decode([256, 104, 258, 105, 257]) == "hi"


def test_half_a_character_is_marked():
    assert ByteTokenizer().decode(ByteTokenizer().encode("aé")[:-1]) == "a\ufffd"


@pytest.mark.parametrize("strange", [-1, 259])
def test_ids_beyond_the_vocabulary_are_refused(strange):
    with pytest.raises(ValueError, match=f"token {strange} isn't one of 0 to 258"):
        ByteTokenizer().decode([97, strange])


def test_the_identity_is_that_of_the_mapping():
    # Recorded in artefacts: it changes only when the mapping does.
    assert ByteTokenizer().sha256 == sha256(b"utf-8 bytes; bos 256; eos 257; pad 258").hexdigest()


def test_bytes_are_a_name():
    assert tokenizer("bytes") == ByteTokenizer()


def test_bytes_know_their_characters():
    ((ids, begins, ends),) = ByteTokenizer().place_batch(["aé漢b"])
    assert len(ids) == 7
    assert begins.tolist() == [0, 1, 1, 2, 2, 2, 3]
    assert ends.tolist() == [1, 2, 2, 3, 3, 3, 4]
