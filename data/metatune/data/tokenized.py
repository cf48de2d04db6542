"""Documents to tokens, once: split, tokenized, and kept in files that are mapped into memory."""

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from metatune.data.cache import cached
from metatune.data.documents import LONGEST, SHORTEST, SPLITS, Split, side
from metatune.data.encoded import Document, begin
from metatune.data.encoded import encoded as _encoded
from metatune.data.pretrained_tokenizer import PretrainedTokenizer
from metatune.data.sources import Reader, Record, has_classes
from metatune.data.tokenizers import Tokenizer, token_dtype
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.paths import joined
from metatune.recipe.schema import DataSpec, SourceSpec
from metatune.recipe.sources import COLUMNS, MASKS

FORMAT: Final = 3
"""Of the files; raised with every change of what they hold."""

MOST_LABELS: Final = 16
"""Of documents, in all domains together."""

BATCH_CHARACTERS: Final = 2**20
"""Text that is tokenized at a time."""


class TokenizingProgress(NamedTuple):
    """How far the tokenizing of a domain is.

    Attributes:
        domain: its name.
        documents: read so far.
        bytes: of text read so far.
        tokens: so far.
        done: whether that is all.
    """

    domain: str
    documents: int
    bytes: int
    tokens: int
    done: bool


Listener = Callable[[TokenizingProgress], None]


class TokenStream(NamedTuple):
    """All tokens of a split, document after document, an end-of-sequence token after each text.

    Attributes:
        tokens: uint16 or uint32 [tokens].
        starts: where each document begins, int64 [documents], ascending.
        classes: the `TokenClass` of each token, uint8 [tokens]; None where all are text.
        labels: which label each document has, uint8 [documents]; None where they have none.
    """

    tokens: np.ndarray
    starts: np.ndarray
    classes: np.ndarray | None
    labels: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Tokenized:
    """A domain's tokens.

    Attributes:
        streams: by split.
        sha256: of the text of all documents, one after another, in UTF-8 (of ready tokens, of their
            ids, four bytes each), and of the label of each behind it where they have any; in
            hexadecimal.
        hashes: 64 bits of the SHA-256 of each document, uint64 [documents], split after split.
        bytes: of text in UTF-8.
        replaced: bytes that weren't UTF-8 and became U+FFFD.
        empty: records without text, left out.
        labels: of documents, by their numbers.
    """

    streams: Mapping[Split, TokenStream]
    sha256: str
    hashes: np.ndarray
    bytes: int
    replaced: int
    empty: int
    labels: tuple[str, ...] = ()


def tokenized(
    name: str,
    source: SourceSpec,
    reader: Reader,
    data: DataSpec,
    tokenizer: Tokenizer,
    listener: Listener | None = None,
) -> Tokenized:
    """The tokens of a domain, from the cache if they are there.

    Args:
        name: the domain's.
        source: what the recipe says of it.
        reader: its documents.
        data: the recipe's section.
        tokenizer: its tokenizer.
        listener: is told from time to time how far the tokenizing is.

    Raises:
        RecipeError: the source turns out to be damaged.
        CacheError: no room for the tokens.
    """
    conversing = source.messages is not None or source.prompt is not None
    what = {
        "format": FORMAT,
        "content": reader.identity(),
        "kind": reader.place.field.rpartition(".")[2],
        "columns": [getattr(source, option) for option in (*COLUMNS, *MASKS)],
        "max_tokens": source.max_tokens,
        "documents": [SHORTEST, LONGEST],
        "held_out": [data.held_out.validation, data.held_out.test],
        "invalid_utf8": data.invalid_utf8,
        "tokenizer": [tokenizer.sha256, tokenizer.eos_id],
        "begin": [begin(data.bos, tokenizer, rendered=rendered) for rendered in (False, True)],
        "chat_template": getattr(tokenizer, "chat_template", None) if conversing else None,
        **_moods(tokenizer, conversing),
        **({} if source.label is None else {"label": source.label}),
        **({} if source.use == "all" else {"use": source.use}),
    }

    def write(folder: Path) -> dict[str, Any]:
        return _write(folder, name, source, reader, data, tokenizer, listener)

    folder, known = cached(what, write)
    dtype = token_dtype(tokenizer)
    classed = has_classes(source)
    streams: dict[Split, TokenStream] = {
        split: TokenStream(
            _mapped(folder / f"{split}.tokens", dtype),
            _mapped(folder / f"{split}.starts", np.int64),
            _mapped(folder / f"{split}.classes", np.uint8) if classed else None,
            None if source.label is None else _mapped(folder / f"{split}.labels", np.uint8),
        )
        for split in SPLITS
    }
    hashes = np.concatenate([_mapped(folder / f"{split}.hashes", np.uint64) for split in SPLITS])
    counts = {count: known[count] for count in ("bytes", "replaced", "empty")}
    labels = tuple(known.get("labels", ()))
    return Tokenized(streams, known["sha256"], hashes, **counts, labels=labels)


def _moods(tokenizer: Tokenizer, conversing: bool) -> dict[str, Any]:
    """What else the tokens depend on: the day that a template is told, and draws of dropout."""
    if not isinstance(tokenizer, PretrainedTokenizer):
        return {}
    told = conversing and tokenizer.reads_clock
    dropout = tokenizer.dropout
    return {
        # Of chats, which didn't say it before.
        **({"split_by": "origin"} if conversing else {}),
        **({"today": str(tokenizer.today)} if told else {}),
        **({} if dropout is None else {"dropout": [dropout.rate, dropout.seed]}),
    }


def release(mapped: np.ndarray) -> None:
    """Lets go of the memory that holds what was read of a mapped file; it is read again if needed.

    Only worth it after a pass over all of it: the system would do so itself, but late.
    """
    if isinstance(mapped.base, np.memmap):
        mapped.base._mmap.madvise(mmap.MADV_DONTNEED)  # pyright: ignore[reportAttributeAccessIssue]


def _mapped(path: Path, dtype: Any) -> np.ndarray:
    """The numbers of a file; read when they are looked at."""
    if not path.stat().st_size:  # what is empty can't be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))


def _write(
    folder: Path,
    name: str,
    source: SourceSpec,
    reader: Reader,
    data: DataSpec,
    tokenizer: Tokenizer,
    listener: Listener | None,
) -> dict[str, Any]:
    """Tokenizes a source into the files of `folder`."""
    content, size, replaced, empty = sha256(), 0, 0, 0
    classed, dtype = has_classes(source), token_dtype(tokenizer)
    labelled, labels = source.label is not None, dict[str, int]()
    whole: Split | None = None if source.use == "all" else source.use
    writers = {split: _Writer(folder, split, dtype, classed, labelled) for split in SPLITS}

    def told(done: bool) -> None:
        if listener is not None:
            documents = sum(writer.documents for writer in writers.values())
            listener(TokenizingProgress(name, documents, size, total(), done))

    def total() -> int:
        return sum(writer.tokens for writer in writers.values())

    def put(record: Record) -> _Put:
        origin = record.origin.encode("utf-8") or _content(record)
        digest = sha256(origin).digest()
        split = whole or side(digest, data.held_out.validation, data.held_out.test)
        return _Put(record, digest, split)

    try:
        puts = map(put, reader.records())
        for batch, documents in _encoded_batches(puts, tokenizer, data, classed):
            for (record, digest, split), document in zip(batch, documents, strict=True):
                if record.empty:
                    empty += 1
                    continue
                text = _content(record)
                content.update(text)
                if labelled:
                    content.update(record.label.encode("utf-8"))
                    labels.setdefault(record.label, len(labels))
                    if len(labels) > MOST_LABELS:
                        raise _too_many(name, source.label, list(labels))
                writers[split].add(document, digest, labels.get(record.label, 0))
                if record.ready is not None:
                    text = tokenizer.decode(record.ready.ids).encode("utf-8")
                size, replaced = size + len(text), replaced + record.replaced
                if source.max_tokens is not None and total() >= source.max_tokens:
                    break
            for writer in writers.values():
                writer.flush()
            told(done=False)
            if source.max_tokens is not None and total() >= source.max_tokens:
                break
    finally:
        for writer in writers.values():
            writer.close()
    told(done=True)
    found = {"labels": list(labels)} if labelled else {}
    counts = {"bytes": size, "replaced": replaced, "empty": empty}
    return {"sha256": content.hexdigest(), **counts, **found}


def _content(record: Record) -> bytes:
    """What a document is told by: its text, or its ready tokens, four bytes each."""
    if record.ready is None:
        return record.text.encode("utf-8")
    return record.ready.ids.astype("<u4").tobytes()


def _too_many(name: str, column: str | None, labels: Sequence[str]) -> RecipeError:
    """The error of labels that are no classes."""
    problem = f"has more than {MOST_LABELS} different labels: {', '.join(labels[:4])}, ..."
    cure = "name a column of a few classes, or take it out"
    return RecipeError(
        "data", [Fault(f"{joined('data.domains', name)}.label", column, problem, cure)]
    )


class _Writer:
    """The files of one split, written a stretch at a time."""

    def __init__(self, folder: Path, split: Split, dtype: Any, classed: bool, labelled: bool):
        kinds = ["tokens", "starts", "hashes"]
        kinds += ["classes"] * classed + ["labels"] * labelled
        self._files: dict[str, BinaryIO] = {
            kind: (folder / f"{split}.{kind}").open("wb") for kind in kinds
        }
        self._dtype = dtype
        self._waiting: list[Document] = []
        self._hashes: list[bytes] = []
        self._labels: list[int] = []
        self._starts: list[int] = []
        self.documents = 0
        self.tokens = 0

    def add(self, document: Document, digest: bytes, label: int) -> None:
        self._waiting.append(document)
        self._hashes.append(digest[:8])
        self._labels.append(label)
        self._starts.append(self.tokens)
        self.documents += 1
        self.tokens += len(document.tokens)

    def flush(self) -> None:
        for document in self._waiting:
            self._files["tokens"].write(document.tokens.astype(self._dtype, copy=False).data)
            if document.classes is not None:
                self._files["classes"].write(document.classes.data)
        self._files["starts"].write(np.array(self._starts, np.int64).data)
        self._files["hashes"].write(b"".join(self._hashes))
        if "labels" in self._files:
            self._files["labels"].write(bytes(self._labels))
        self._waiting, self._hashes, self._labels, self._starts = [], [], [], []

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class _Put(NamedTuple):
    """A record, the hash of what it was rendered from, and the split that this puts it into."""

    record: Record
    digest: bytes
    split: Split


def _batches(puts: Iterator[_Put]) -> Iterator[list[_Put]]:
    """Records, about `BATCH_CHARACTERS` of them at a time; a ready token counts as one."""
    batch, size = [], 0
    for put in puts:
        batch.append(put)
        ready = put.record.ready
        size += len(put.record.text) + 1 + (len(ready.ids) if ready else 0)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encoded_batches(
    puts: Iterator[_Put], tokenizer: Tokenizer, data: DataSpec, classed: bool
) -> Iterator[tuple[list[_Put], list[Document]]]:
    """Records with their tokens; while a batch of them is in use, the next is tokenized."""

    def tokens(batch: list[_Put]) -> list[Document]:
        digests = [put.digest if put.split == "train" else None for put in batch]
        return _encoded([put.record for put in batch], tokenizer, classed, data.bos, digests)

    with ThreadPoolExecutor(1) as worker:
        waiting: list[tuple[list[_Put], Future[list[Document]]]] = []
        for batch in _batches(puts):
            waiting.append((batch, worker.submit(tokens, batch)))
            if len(waiting) > 1:
                ready, future = waiting.pop(0)
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()
