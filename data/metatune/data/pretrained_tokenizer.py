"""Fast tokenizers of Hugging Face, from a folder or the hub; none of their code is executed."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np

from metatune.data.words import Words, words_of
from metatune.recipe.faults import Fault, RecipeError

FIELD: Final = "data.tokenizer"


@dataclass(frozen=True, eq=False)
class PretrainedTokenizer:
    """A tokenizer of `transformers`, without the tokens that it would add around a text.

    Attributes:
        name: the folder or hub id.
        fast: the `PreTrainedTokenizerFast`.
        vocab_size: one above the largest token, added ones included.
        eos_id: ends a document.
        pad_id: fills up a sequence; the end of a document's where there is none.
        sha256: the hash of its `tokenizer.json`, as the library writes it, in hexadecimal.
        words: tokenizes most texts faster; None where it can't.
    """

    name: str
    fast: Any
    vocab_size: int
    eos_id: int
    pad_id: int
    sha256: str
    words: Words | None

    @property
    def chat_template(self) -> str | None:
        """The Jinja text that renders messages, if there is one."""
        return self.fast.get_chat_template() if self.fast.chat_template else None

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, uint32 [tokens] each."""
        by_words = [self.words is not None and self.words.takes(text) for text in texts]
        fast = [text for text, its in zip(texts, by_words, strict=True) if its]
        slow = [text for text, its in zip(texts, by_words, strict=True) if not its]
        found = iter(self.words.tokens(fast) if self.words else [])
        others = iter(_encode(self.fast.backend_tokenizer, slow))
        return [next(found) if its else np.array(next(others), np.uint32) for its in by_words]

    def place_batch(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The tokens of each text, and the last character of each token."""
        encodings = self.fast.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        return [
            (
                np.array(encoding.ids, np.uint32),
                np.array(encoding.offsets, np.int64).reshape(-1, 2)[:, 1] - 1,
            )
            for encoding in encodings
        ]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, [tokens], without the special ones."""
        return self.fast.backend_tokenizer.decode(
            np.asarray(ids).tolist(), skip_special_tokens=True
        )

    def render(self, messages: Sequence[Mapping[str, Any]], *, generation_prompt: bool) -> str:
        """A conversation as the chat template writes it.

        Args:
            messages: mappings with `role` and `content`.
            generation_prompt: also what the template writes before an answer.
        """
        return self.fast.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generation_prompt
        )


def _is_wanted(record: logging.LogRecord) -> bool:
    """Whether a message of transformers is for our users: that torch is missing is not.

    It is said on import, of models, where nothing but tokenizers is taken from there.
    """
    return not record.getMessage().startswith("PyTorch was not found")


logging.getLogger("transformers").addFilter(_is_wanted)


def load_pretrained(name: str) -> PretrainedTokenizer:
    """The tokenizer in a folder, or of an id on the hub. A folder needs no network.

    Raises:
        RecipeError: there is none, it isn't a fast one, it needs code of its own, or it has no
            token for the end of a text.
    """
    from transformers import AutoTokenizer  # here, because it takes seconds

    folder = Path(name).expanduser()
    if folder.is_file():
        raise _refused(name, "is a file", "name the folder that holds tokenizer.json")
    if not folder.is_dir() and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        cure = f"relative paths start at the working directory, {Path.cwd()}"
        raise _refused(name, "no such folder", cure)
    try:
        fast = AutoTokenizer.from_pretrained(
            str(folder) if folder.is_dir() else name,
            use_fast=True,
            trust_remote_code=False,
            local_files_only=folder.is_dir(),
        )
    # Whatever a stranger's file makes the library raise, also the plain `Exception` of its Rust.
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        cure = "write bytes, a folder with tokenizer.json, or the id of a model on the hub"
        raise _refused(name, f"can't be loaded: {said}", cure) from error
    if not fast.is_fast:
        raise _refused(name, "has no fast version", "give one with a tokenizer.json")
    if fast.eos_token_id is None:
        cure = "name one as eos_token in its tokenizer_config.json"
        raise _refused(name, "has no end-of-sequence token", cure)
    backend = fast.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return PretrainedTokenizer(
        name,
        fast,
        vocab_size=max(fast.get_vocab().values()) + 1,
        eos_id=fast.eos_token_id,
        pad_id=fast.eos_token_id if fast.pad_token_id is None else fast.pad_token_id,
        sha256=sha256(backend.to_str().encode("utf-8")).hexdigest(),
        words=words_of(backend, partial(_encode, backend)),
    )


def _encode(backend: Any, texts: Sequence[str]) -> list[Sequence[int]]:
    """The tokens of each text by a `tokenizers.Tokenizer`."""
    encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def _refused(name: str, problem: str, cure: str) -> RecipeError:
    return RecipeError(FIELD, [Fault(FIELD, name, problem, cure)])
