"""Text to tokens and back. A tokenizer is a row of `TOKENIZERS`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Final

import numpy as np


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
        eos_id: ends a document.
        pad_id: fills up a sequence.
    """

    vocab_size: ClassVar[int] = 259
    bos_id: ClassVar[int] = 256
    eos_id: ClassVar[int] = 257
    pad_id: ClassVar[int] = 258

    @property
    def sha256(self) -> str:
        """The identity of the mapping from text to tokens, in hexadecimal."""
        mapping = f"utf-8 bytes; bos {self.bos_id}; eos {self.eos_id}; pad {self.pad_id}"
        return sha256(mapping.encode()).hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """The tokens of `text` without special ones, uint16 [bytes of text]."""
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.uint16)

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


TOKENIZERS: Final[Mapping[str, Callable[[], ByteTokenizer]]] = {"bytes": ByteTokenizer}


def tokenizer(name: str) -> ByteTokenizer:
    """The tokenizer of that name.

    Raises:
        ValueError: it isn't a key of `TOKENIZERS`.
    """
    if name not in TOKENIZERS:
        raise ValueError(f"no tokenizer {name!r}; there are: {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]()
