"""Word by word gives the tokens that the library gives."""

import numpy as np
import pytest

from metatune.data import SHIPPED, shipped_text, tokenizer

KINDS = ("gpt2", "gpt4", "qwen2", "smollm")
# What the expressions tell apart: cases of contractions, runs of blanks, digits, signs, letters.
CHARACTERS = [
    *"aabBſ'sdtmlrveLLS019²½ .,-_+",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    "   ",
    "é",
    "ß",
    "’",
    "—",
]
BEYOND = ["漢", "\u00a0", "\u2028", "\x1c", "🎈", "<|im_end|>"]


@pytest.fixture(scope="module", params=KINDS)
def encoder(request, tokenizer_folder):
    return tokenizer(str(tokenizer_folder(request.param)))


def by_library(encoder, texts):
    backend = encoder.fast.backend_tokenizer
    return [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("characters", [CHARACTERS, CHARACTERS + BEYOND])
def test_random_text_has_the_tokens_of_the_library(encoder, characters):
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(characters, size=20)) for _ in range(3000)]
    assert encoder.words is not None
    assert any(map(encoder.words.takes, texts))
    assert [ids.tolist() for ids in encoder.encode_batch(texts)] == by_library(encoder, texts)


@pytest.mark.parametrize("name", SHIPPED)
def test_real_text_has_the_tokens_of_the_library(encoder, name):
    text = shipped_text(name)[:200_000]
    texts = [text[start : start + 3000] for start in range(0, len(text), 3000)]
    assert [ids.tolist() for ids in encoder.encode_batch(texts)] == by_library(encoder, texts)


@pytest.mark.parametrize("text", BEYOND)
def test_rare_characters_and_added_tokens_are_for_the_library(encoder, text):
    assert not encoder.words.takes(f"plain {text} text")
    assert encoder.words.takes("plain text")


def test_no_text_has_no_tokens(encoder):
    assert [ids.tolist() for ids in encoder.encode_batch(["", "漢"])][0] == []
    assert encoder.encode_batch([]) == []
