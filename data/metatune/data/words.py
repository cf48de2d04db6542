r"""Byte-level BPE word by word: most words of a text have been met before.

Such a tokenizer cuts a text into words by a regular expression, and each word into tokens whatever
is around it. The library does both anew for every word; here the expression is searched for by
`regex` and the tokens of a word are asked for once: the same tokens in a third of the time.

Only texts whose characters every version of Unicode has classed alike are taken, and none in which
a token stands that was added to the vocabulary (as `<|im_end|>`): those are for the library.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import numpy as np
import regex

GPT_2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT_4: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2: Final = GPT_4.replace("{1,3}", "")
SMOLLM: Final = (  # digits stand alone, and end what is before them
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
)
PATTERNS: Final = (GPT_4, QWEN_2)
"""Known expressions of tokenizers. All of these find in a word nothing but the word itself."""

STABLE: Final = regex.compile(
    r"[\t\n\r\x20-\x7e\u00a1-\u017e\u0180-\u024f\u2010-\u2027\u2030-\u205e]*"
)
REMEMBERED: Final = 300_000
"""Words whose tokens are kept."""


@dataclass(frozen=True, eq=False)
class Words:
    """Tokens of texts by those of their words.

    Attributes:
        pattern: finds the words.
        added: finds the tokens that were added to the vocabulary.
        encode: texts to the tokens of each, by the library.
        known: the tokens of words that have been met, as bytes of uint32.
    """

    pattern: regex.Pattern[str]
    added: regex.Pattern[str] | None
    encode: Callable[[Sequence[str]], list[Sequence[int]]]
    known: dict[str, bytes] = field(default_factory=dict)

    def takes(self, text: str) -> bool:
        """Whether a text's tokens are those of its words."""
        return bool(STABLE.fullmatch(text)) and not (self.added and self.added.search(text))

    def tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text that is taken, uint32 [tokens]."""
        found = [self.pattern.findall(text) for text in texts]
        if len(self.known) > REMEMBERED:
            self.known.clear()
        new = list(set(chain.from_iterable(found)) - self.known.keys())
        for word, ids in zip(new, self.encode(new), strict=True):
            self.known[word] = np.array(ids, np.uint32).tobytes()
        look_up = self.known.__getitem__
        return [np.frombuffer(b"".join(map(look_up, words)), np.uint32) for words in found]


def words_of(backend: Any, encode: Callable[[Sequence[str]], list[Sequence[int]]]) -> Words | None:
    """The words of a tokenizer, None for one that works otherwise.

    Args:
        backend: a `tokenizers.Tokenizer`.
        encode: texts to the tokens of each, by it.
    """
    said = json.loads(backend.to_str())
    pattern = _pattern(said["pre_tokenizer"] or {})
    model = said["model"]
    if said["normalizer"] or pattern is None or model["type"] != "BPE" or model.get("dropout"):
        return None
    contents = [regex.escape(token["content"]) for token in said["added_tokens"]]
    added = regex.compile("|".join(contents)) if contents else None
    return Words(regex.compile(pattern), added, encode)


def _pattern(pre_tokenizer: dict[str, Any]) -> str | None:
    """The expression that finds the words, if it is known and nothing else is done to a text."""
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return GPT_2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            ],
        }:
            return SMOLLM
        case {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern if pattern in PATTERNS else None
        case _:
            return None
