"""Fast tokenizers of Hugging Face, from a folder or the hub; none of their code is executed."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np

from metatune.data.bpe_dropout import BpeDropout, bpe_dropout
from metatune.data.placed import Placed
from metatune.data.tokenizer_file import problem_of
from metatune.data.words import Words, words_of
from metatune.recipe.faults import Fault, RecipeError

FIELD: Final = "data.tokenizer"

GENERATION: Final = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
"""Opens what a chat template marks as written by the model."""

CLOCK: Final = "strftime_now"
"""The function by which a chat template asks for the date."""

DIRECTIVES: Final = (*(f"-{d}" for d in "dmHIMSj"), *"aAbBcdGHIjmMpSuUVwWxXyY")
"""Of `strftime`, those that hold for a day."""


@dataclass(frozen=True, eq=False)
class PretrainedTokenizer:
    """A tokenizer of `transformers`, without the tokens that it would add around a text.

    Attributes:
        name: the folder or hub id.
        fast: the `PreTrainedTokenizerFast`.
        vocab_size: one above the largest token, added ones included.
        bos_id: begins a text; None where there is no such token.
        adds_bos: whether the tokenizer by itself puts it before a text.
        eos_id: ends a document.
        pad_id: fills up a sequence; the end of a document's where there is none.
        sha256: the hash of its `tokenizer.json`, as the library writes it, in hexadecimal.
        words: tokenizes most texts faster; None where it can't.
        today: the day that a chat template is told which asks for it; None refuses.
        dropout_rate: of merges, that the tokenizer's own file asks for; it is left out.
        dropout: splits training text with it all the same; None for none.
    """

    name: str
    fast: Any
    vocab_size: int
    bos_id: int | None
    adds_bos: bool
    eos_id: int
    pad_id: int
    sha256: str
    words: Words | None
    today: date | None = None
    dropout_rate: float | None = None
    dropout: BpeDropout | None = None

    @cached_property
    def chat_template(self) -> str | None:
        """The Jinja text that renders messages, if there is one."""
        return self.fast.get_chat_template() if self.fast.chat_template else None

    @cached_property
    def marks_answers(self) -> bool:
        """Whether the chat template marks what the model writes."""
        return GENERATION.search(self.chat_template or "") is not None

    @property
    def reads_clock(self) -> bool:
        """Whether the chat template asks for the date."""
        return CLOCK in (self.chat_template or "")

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, uint32 [tokens] each."""
        by_words = [self.words is not None and self.words.takes(text) for text in texts]
        fast = [text for text, its in zip(texts, by_words, strict=True) if its]
        slow = [text for text, its in zip(texts, by_words, strict=True) if not its]
        found = iter(self.words.tokens(fast) if self.words else [])
        others = iter(_encode(self.fast.backend_tokenizer, slow))
        return [next(found) if its else np.array(next(others), np.uint32) for its in by_words]

    def place_batch(self, texts: Sequence[str]) -> list[Placed]:
        """The tokens of each text, and where they stand in it."""
        encodings = self.fast.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        placed = []
        for encoding in encodings:
            offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            placed.append(Placed(np.array(encoding.ids, np.uint32), offsets[:, 0], offsets[:, 1]))
        return placed

    def resplit_batch(self, texts: Sequence[str], digests: Sequence[bytes | None]) -> list[Placed]:
        """As `place_batch`, with dropout.

        Args:
            texts: the documents.
            digests: of each, from which its draws follow; None for those without dropout.
        """
        if self.dropout is None:
            return self.place_batch(texts)
        encodings = self.fast.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        found = []
        for encoding, digest in zip(encodings, digests, strict=True):
            offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            if digest is None:
                ids = np.array(encoding.ids, np.uint32)
                found.append(Placed(ids, offsets[:, 0], offsets[:, 1]))
                continue
            ids, first, last = self.dropout.split(encoding, digest)
            found.append(Placed(ids, offsets[first, 0], offsets[last, 1]))
        return found

    def with_dropout(self, seed: int) -> "PretrainedTokenizer":
        """The same, that splits training text with the dropout that its own file asks for.

        Raises:
            RecipeError: it asks for none, or can't be split so.
        """
        field = "data.bpe_dropout"
        if not self.dropout_rate:
            problem = f"the tokenizer {self.name} has no dropout"
            cure = "leave it out, or set model.dropout in its tokenizer.json"
            raise RecipeError(field, [Fault(field, True, problem, cure)])
        backend = self.fast.backend_tokenizer
        try:
            added = list(self.fast.get_added_vocab())
            dropout = bpe_dropout(backend, added, self.dropout_rate, seed)
        except ValueError as error:
            problem = f"the tokenizer {self.name} can't be split with dropout: {error}"
            raise RecipeError(field, [Fault(field, True, problem, "leave it out")]) from error
        return replace(self, dropout=dropout)

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

        Raises:
            ValueError: the template asks for the date, and there is none.
        """
        return self.fast.apply_chat_template(
            list(messages),
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=generation_prompt,
        )

    def answers(self, messages: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
        """What the template marks as written by the model, of the text that `render` gives.

        Args:
            messages: mappings with `role` and `content`.

        Returns:
            For each mark, in order, its first character and one past its last.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered: Any = render_jinja_template(
            # As `apply_chat_template` has them.
            [[{key: v for key, v in m.items() if v is not None} for m in messages]],
            chat_template=self._template,
            return_assistant_tokens_mask=True,
            **self.fast.special_tokens_map,
        )
        _, (marks,) = rendered
        return sorted(marks)

    def added_token_at(self, text: str, position: int) -> int | None:
        """Where an added token begins that stands at a position of a text, or around it."""
        for found in self._added.finditer(text):
            if found.start() <= position < found.end():
                return found.start()
        return None

    @cached_property
    def _added(self) -> re.Pattern[str]:
        added = sorted(self.fast.get_added_vocab(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, added)) or r"(?!)")

    @cached_property
    def _template(self) -> str | None:
        """The chat template, with a calendar in place of the clock if it reads that."""
        if not self.reads_clock or self.chat_template is None:
            return self.chat_template
        if self.today is None:
            raise ValueError("the chat template asks for the date; set data.date")
        return calendar(self.today) + self.chat_template


def calendar(day: date) -> str:
    """A macro of Jinja that says of one day what `strftime_now` says of the clock.

    `transformers` turns functions that are given to a template into text; and its own reads the
    clock. What the macro stands in front of is rendered as without it: the end of its line is
    swallowed with it.

    Args:
        day: at whose midnight the clock stands.
    """
    moment = datetime.combine(day, time())
    said = "".join(f" | replace('%{d}', {moment.strftime(f'%{d}')!r})" for d in DIRECTIVES)
    macro = f"{{{{ form | replace('%%', '\\0'){said} | replace('\\0', '%') }}}}"
    return f"{{% macro {CLOCK}(form) %}}{macro}{{% endmacro %}}\n"


def _is_wanted(record: logging.LogRecord) -> bool:
    """Whether a message of transformers is for our users: that torch is missing is not.

    It is said on import, of models, where nothing but tokenizers is taken from there.
    """
    return not record.getMessage().startswith("PyTorch was not found")


logging.getLogger("transformers").addFilter(_is_wanted)


def load_pretrained(name: str) -> PretrainedTokenizer:
    """The tokenizer in a folder, or of an id on the hub. A folder needs no network.

    It says the same of the same text always: if it would drop merges at random (BPE dropout,
    Provilkov et al., 2020), it doesn't.

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
    if folder.is_dir() and (problem := problem_of(folder)):
        raise _refused(name, problem, "take the file anew from where it came")
    try:
        fast = AutoTokenizer.from_pretrained(
            str(folder) if folder.is_dir() else name,
            use_fast=True,
            trust_remote_code=False,
            local_files_only=folder.is_dir(),
        )
    # Whatever a stranger's file makes the library raise, also the plain `Exception` of its Rust,
    # and the panics of that, which are no `Exception`.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
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
    rate = getattr(backend.model, "dropout", None)
    if rate:
        backend.model.dropout = None
    return PretrainedTokenizer(
        name,
        fast,
        vocab_size=max(fast.get_vocab().values()) + 1,
        bos_id=fast.bos_token_id,
        adds_bos=_adds(fast, fast.bos_token_id),
        eos_id=fast.eos_token_id,
        pad_id=fast.eos_token_id if fast.pad_token_id is None else fast.pad_token_id,
        sha256=sha256(backend.to_str().encode("utf-8")).hexdigest(),
        words=words_of(backend, partial(_encode, backend)),
        dropout_rate=rate or None,
    )


def _adds(fast: Any, bos_id: int | None) -> bool:
    """Whether a text begins with that token only because the tokenizer put it there."""
    begins = [fast("a", add_special_tokens=added)["input_ids"][:1] for added in (True, False)]
    return bos_id is not None and begins[0] == [bos_id] != begins[1]


def _encode(backend: Any, texts: Sequence[str]) -> list[Sequence[int]]:
    """The tokens of each text by a `tokenizers.Tokenizer`."""
    encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def _refused(name: str, problem: str, cure: str) -> RecipeError:
    return RecipeError(FIELD, [Fault(FIELD, name, problem, cure)])
