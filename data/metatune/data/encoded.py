"""Records to tokens, each a document with what begins and ends it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Literal, NamedTuple

import numpy as np

from metatune.data.sources import Record
from metatune.data.tokenizers import Tokenizer, token_dtype

Bos = Literal["auto", "always", "never"]

BATCH_CHARACTERS: Final = 2**20
"""Text that is tokenized at a time."""


class Document(NamedTuple):
    """The tokens of a document, and their classes.

    Attributes:
        tokens: with its beginning and its end, [tokens].
        classes: the `TokenClass` of each, uint8 [tokens]; None where all are text.
    """

    tokens: np.ndarray
    classes: np.ndarray | None


def begin(bos: Bos, tokenizer: Tokenizer, *, rendered: bool) -> int | None:
    """The token that a document begins with, None for none.

    By `auto`, text has what `tokenizer(text)` puts before it, and a conversation what its chat
    template writes, as where a model is asked.

    Args:
        bos: what the recipe says.
        tokenizer: its tokenizer.
        rendered: whether the document is a conversation.
    """
    if bos == "never" or (bos == "auto" and (rendered or not tokenizer.adds_bos)):
        return None
    return tokenizer.bos_id


def encoded(
    records: Sequence[Record], tokenizer: Tokenizer, bos: Bos, *, classed: bool
) -> list[Document]:
    """The tokens of each record.

    Text that begins or ends with such a token itself has no second one. A record without text has
    whatever tokens; it is for the caller to leave out.

    Args:
        records: the documents.
        tokenizer: of their text.
        bos: whether they have a token at their beginning.
        classed: whether tokens have classes.
    """
    first = {rendered: begin(bos, tokenizer, rendered=rendered) for rendered in (False, True)}
    end, tail = tokenizer.eos_id, np.array([tokenizer.eos_id], token_dtype(tokenizer))
    texts = [record.text for record in records]
    documents = []
    if not classed:
        for record, ids in zip(records, tokenizer.encode_batch(texts), strict=True):
            if record.ready is not None:
                ids = record.ready.ids
            else:
                ids = _begun(ids, first[record.rendered])
                if not len(ids) or ids.item(-1) != end:
                    ids = np.concatenate((ids, tail))
            documents.append(Document(ids, None))
        return documents
    for record, (ids, last) in zip(records, tokenizer.place_batch(texts), strict=True):
        if record.ready is not None:
            documents.append(Document(*record.ready))
        elif record.empty:
            documents.append(Document(ids, None))
        else:
            documents.append(_with_classes(record, ids, last, first[record.rendered], end))
    return documents


def _with_classes(
    record: Record, ids: np.ndarray, last: np.ndarray, first: int | None, end: int
) -> Document:
    """A document of spans; `last` is the place of each token's last character."""
    roles = np.array([span.role for span in record.spans], np.uint8)
    ends = np.array([span.end for span in record.spans])
    span = np.searchsorted(ends, last, side="right").clip(max=len(ends) - 1)
    # Chat templates often end an answer with this token themselves.
    closed = end in ids[span == len(ends) - 1]
    whole = _begun(ids, first)
    before = np.repeat(roles[:1], len(whole) - len(ids))
    tail = np.array([] if closed else [end], whole.dtype)
    classes = np.concatenate([before, roles[span], np.repeat(roles[-1], len(tail))])
    return Document(np.concatenate([whole, tail]), classes)


def _begun(ids: np.ndarray, first: int | None) -> np.ndarray:
    """Tokens with one before them, unless they begin with it."""
    if first is None or (len(ids) and ids.item(0) == first):
        return ids
    return np.concatenate((np.array([first], ids.dtype), ids))


def encoded_batches(
    records: Iterator[Record], tokenizer: Tokenizer, bos: Bos, *, classed: bool
) -> Iterator[tuple[list[Record], list[Document]]]:
    """Records with their tokens; while a batch of them is in use, the next is tokenized.

    Args:
        records: the documents.
        tokenizer: of their text.
        bos: whether they have a token at their beginning.
        classed: whether tokens have classes.
    """
    with ThreadPoolExecutor(1) as worker:
        waiting: list[tuple[list[Record], Future[list[Document]]]] = []
        for batch in _batches(records):
            waiting.append((batch, worker.submit(encoded, batch, tokenizer, bos, classed=classed)))
            if len(waiting) > 1:
                ready, future = waiting.pop(0)
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Records, about `BATCH_CHARACTERS` of them at a time; a ready token counts as one."""
    batch, size = [], 0
    for record in records:
        batch.append(record)
        size += len(record.text) + 1 + (len(record.ready.ids) if record.ready else 0)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
