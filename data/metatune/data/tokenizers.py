"""Text to tokens and back: bytes, or a tokenizer of Hugging Face."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

import numpy as np

from metatune.data.pretrained_tokenizer import load_pretrained


class Tokenizer(Protocol):
    """What the data needs of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """One above the largest token."""
        ...

    @property
    def bos_id(self) -> int | None:
        """Begins a text, where there is such a token."""
        ...

    @property
    def adds_bos(self) -> bool:
        """Whether the tokenizer by itself puts that token before a text."""
        ...

    @property
    def eos_id(self) -> int:
        """Ends a document."""
        ...

    @property
    def pad_id(self) -> int:
        """Fills up a sequence."""
        ...

    @property
    def sha256(self) -> str:
        """The identity of the mapping from text to tokens, in hexadecimal."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text without those that a tokenizer adds around it, [tokens] each."""
        ...

    def place_batch(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """As `encode_batch`, with where the tokens stand in the text.

        Returns:
            For each text its tokens, and the index of the last character that each token is made
            of, int64 [tokens].
        """
        ...

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, [tokens], without special tokens."""
        ...


@dataclass(frozen=True)
class ByteTokenizer:
    """The bytes of UTF-8, and three special tokens behind them.

    >>> ByteTokenizer().encode("né").tolist()
    [110, 195, 169]
    >>> ByteTokenizer().decode([110, 195, 169, 257])
    'né'

    Attributes:
        vocab_size: number of tokens.
        bos_id: begins a text.
        adds_bos: whether it does so unless told otherwise.
        eos_id: ends a document.
        pad_id: fills up a sequence.
    """

    vocab_size: int = field(default=259, init=False)
    bos_id: int = field(default=256, init=False)
    adds_bos: bool = field(default=False, init=False)
    eos_id: int = field(default=257, init=False)
    pad_id: int = field(default=258, init=False)

    @property
    def sha256(self) -> str:
        """The identity of the mapping from text to tokens, in hexadecimal."""
        mapping = f"utf-8 bytes; bos {self.bos_id}; eos {self.eos_id}; pad {self.pad_id}"
        return sha256(mapping.encode()).hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """The tokens of `text` without special ones, uint16 [bytes of text]."""
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.uint16)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, uint16 [bytes of text] each."""
        return [self.encode(text) for text in texts]

    def place_batch(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The tokens of each text, and the character that each is a byte of."""
        ids = self.encode_batch(texts)
        begins = [(its & 0b1100_0000) != 0b1000_0000 for its in ids]  # of a character
        return [(its, np.cumsum(first) - 1) for its, first in zip(ids, begins, strict=True)]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, [tokens], without the special ones.

        A character that was cut, as at the edge of a window, becomes U+FFFD.

        Raises:
            ValueError: an id is below 0, or `vocab_size` or above.
        """
        tokens = np.asarray(ids, np.int64)
        strange = tokens[(tokens < 0) | (tokens >= self.vocab_size)]
        if strange.size:
            raise ValueError(f"token {strange[0]} isn't one of 0 to {self.vocab_size - 1}")
        return tokens[tokens < 256].astype(np.uint8).tobytes().decode("utf-8", errors="replace")


def token_dtype(tokenizer: Tokenizer) -> type[np.unsignedinteger]:
    """The smallest type that holds every token."""
    return np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32


def tokenizer(name: str) -> Tokenizer:
    """The tokenizer of that name.

    Args:
        name: `bytes`, or the folder or hub id of a fast Hugging Face tokenizer.

    Raises:
        RecipeError: there is none of that name, or it can't be used.
    """
    return ByteTokenizer() if name == "bytes" else load_pretrained(name)
