"""Records to tokens, each a document with what begins and ends it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from metatune.data.placed import Placed
from metatune.data.pretrained_tokenizer import PretrainedTokenizer
from metatune.data.sources import Record, TokenClass
from metatune.data.tokenizers import Tokenizer, token_dtype

Bos = Literal["auto", "always", "never"]


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
    records: Sequence[Record],
    tokenizer: Tokenizer,
    classed: bool,
    bos: Bos = "auto",
    digests: Sequence[bytes | None] = (),
) -> list[Document]:
    """The tokens of each record.

    Text that begins or ends with such a token itself has no second one. A record without text has
    whatever tokens; it is for the caller to leave out.

    Args:
        records: the documents.
        tokenizer: of their text.
        classed: whether tokens have classes.
        bos: whether they have a token at their beginning.
        digests: of each record, None for those that the tokenizer's dropout leaves alone; without
            any it leaves all alone.
    """
    first = {rendered: begin(bos, tokenizer, rendered=rendered) for rendered in (False, True)}
    end, tail = tokenizer.eos_id, np.array([tokenizer.eos_id], token_dtype(tokenizer))
    dropping = isinstance(tokenizer, PretrainedTokenizer) and tokenizer.dropout and any(digests)
    texts = [record.text for record in records]
    documents = []
    if not classed and not dropping:
        for record, ids in zip(records, tokenizer.encode_batch(texts), strict=True):
            documents.append(_plain(record, ids, first[record.rendered], end, tail))
        return documents
    if isinstance(tokenizer, PretrainedTokenizer) and dropping:
        placed = tokenizer.resplit_batch(texts, digests)
    else:
        placed = tokenizer.place_batch(texts)
    for record, its in zip(records, placed, strict=True):
        if not classed:
            documents.append(_plain(record, its.ids, first[record.rendered], end, tail))
        elif record.ready is not None:
            documents.append(Document(*record.ready))
        elif record.empty:
            documents.append(Document(its.ids, None))
        else:
            documents.append(_with_classes(record, its, first[record.rendered], end))
    return documents


def _plain(
    record: Record, ids: np.ndarray, first: int | None, end: int, tail: np.ndarray
) -> Document:
    """A document without classes; `tail` holds `end` alone."""
    if record.ready is not None:
        return Document(record.ready.ids, None)
    ids = _begun(ids, first)
    if not len(ids) or ids.item(-1) != end:
        ids = np.concatenate((ids, tail))
    return Document(ids, None)


def _with_classes(record: Record, placed: Placed, first: int | None, end: int) -> Document:
    """A document of spans."""
    classes = _classes(record, placed)
    # Chat templates often end an answer with this token themselves.
    closed = end in placed.ids[placed.ends > _last(record)]
    whole = _begun(placed.ids, first)
    before = np.repeat(classes[:1], len(whole) - len(placed.ids))
    tail = np.array([] if closed else [end], whole.dtype)
    classes = np.concatenate([before, classes, np.repeat(classes[-1:], len(tail))])
    return Document(np.concatenate([whole, tail]), classes)


def _classes(record: Record, placed: Placed) -> np.ndarray:
    """The class of each token: of an answer where any of it is, else that of its last character.

    Returns:
        uint8 [tokens].
    """
    roles = np.array([span.role for span in record.spans], np.uint8)
    ends = np.array([span.end for span in record.spans])
    last = np.searchsorted(ends, placed.ends - 1, side="right").clip(max=len(ends) - 1)
    classes, begin = roles[last], 0
    for role, end in record.spans:
        if role is TokenClass.COMPLETION:
            classes[(placed.ends > begin) & (placed.begins < end)] = role
        begin = end
    return classes


def _last(record: Record) -> int:
    """Where the last answer begins; without one the last stretch."""
    begins = [0, *(span.end for span in record.spans)]
    pairs = zip(record.spans, begins, strict=False)
    answers = [begin for span, begin in pairs if span.role is TokenClass.COMPLETION]
    return answers[-1] if answers else begins[-2]


def _begun(ids: np.ndarray, first: int | None) -> np.ndarray:
    """Tokens with one before them, unless they begin with it."""
    if first is None or (len(ids) and ids.item(0) == first):
        return ids
    return np.concatenate((np.array([first], ids.dtype), ids))
