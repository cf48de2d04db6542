"""Tokenizers."""

import hashlib
from collections.abc import Callable, Mapping

import numpy as np


class ByteTokenizer:
    """UTF-8 bytes are tokens 0 to 255; then come three specials."""

    bos_id = 256
    eos_id = 257
    pad_id = 258
    vocab_size = 259

    def encode(self, text: str) -> np.ndarray:
        """The bytes of a text, [tokens] uint16."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint16)

    def decode(self, ids: np.ndarray) -> str:
        """The text of tokens [tokens]; specials are left out, broken UTF-8 is replaced."""
        ids = np.asarray(ids)
        return ids[ids < 256].astype(np.uint8).tobytes().decode(errors="replace")

    @property
    def sha256(self) -> str:
        """Identifies the tokenizer: equal where every text gets the same tokens."""
        rule = f"bytes bos={self.bos_id} eos={self.eos_id} pad={self.pad_id}"
        return hashlib.sha256(rule.encode()).hexdigest()


TOKENIZERS: Mapping[str, Callable[[], ByteTokenizer]] = {"bytes": ByteTokenizer}
"""By the recipe's `data.tokenizer`; another tokenizer is another row."""


def tokenizer(name: str) -> ByteTokenizer:
    """The tokenizer of that name."""
    return TOKENIZERS[name]()
