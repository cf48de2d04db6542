"""Text to tokens and back: bytes, or a tokenizer of Hugging Face."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from hashlib import sha256
from typing import Protocol

import numpy as np

from metatune.data.placed import Placed
from metatune.data.pretrained_tokenizer import PretrainedTokenizer, load_pretrained
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.schema import DataSpec


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

    def place_batch(self, texts: Sequence[str]) -> list[Placed]:
        """As `encode_batch`, with where the tokens stand in the text."""
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

    def place_batch(self, texts: Sequence[str]) -> list[Placed]:
        """The tokens of each text, and the character that each is a byte of."""
        found = []
        for its in self.encode_batch(texts):
            begins = (its & 0b1100_0000) != 0b1000_0000  # a character
            character = np.cumsum(begins) - 1
            found.append(Placed(its, character, character + 1))
        return found

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


def tokenizer_of(data: DataSpec, seed: int = 0, today: date | None = None) -> Tokenizer:
    """The tokenizer of a recipe's section, as the section wants it.

    Args:
        data: the section.
        seed: the recipe's, of dropout.
        today: the day that chat templates are told where the section names none; by default the
            one that it is.

    Raises:
        RecipeError: there is none of that name, or it can't be used so.
    """
    found = tokenizer(data.tokenizer)
    if isinstance(found, PretrainedTokenizer):
        today = today or date.today()
        found = replace(found, today=date.fromisoformat(data.date) if data.date else today)
        return found.with_dropout(seed) if data.bpe_dropout else found
    if data.bpe_dropout:
        problem, cure = "bytes are no merges that could be left out", "leave it out"
        raise RecipeError("data", [Fault("data.bpe_dropout", True, problem, cure)])
    return found


def dated(data: DataSpec, found: Tokenizer) -> DataSpec:
    """The section with the day that its chat template was told, where it asks for one."""
    chats = any(source.messages or source.prompt for source in data.domains.values())
    if not (chats and isinstance(found, PretrainedTokenizer) and found.reads_clock and found.today):
        return data
    return replace(data, date=found.today.isoformat())


def remarks(data: DataSpec, found: Tokenizer) -> list[str]:
    """What a user should know of how the text became tokens, a sentence each."""
    if not isinstance(found, PretrainedTokenizer):
        return []
    said = []
    if dated(data, found).date is not None and found.reads_clock:
        said.append(f"the chat template is told that it is {found.today} (data.date)")
    if found.dropout_rate and found.dropout is None:
        said.append(
            f"the tokenizer's dropout of {found.dropout_rate:g} is left out; "
            "data.bpe_dropout=true splits training text with it"
        )
    return said
