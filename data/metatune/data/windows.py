"""A split as windows: stretches of `length` consecutive tokens, read when they are asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from metatune.data.corruption import INTACT, drawn_ways, spoilt
from metatune.data.documents import SPLITS, Split
from metatune.data.sources import TokenClass
from metatune.data.tokenized import TokenStream, release
from metatune.recipe.schema import CorruptionSpec, PackingSpec

TOKENS_AT_A_TIME: Final = 2**20  # where all windows are looked at


class Rows(NamedTuple):
    """Windows, with what the packing needs.

    Attributes:
        tokens: int32 [windows, length].
        documents: which document a token is of, numbered within the window, int32 [windows,
            length]; None where documents may be crossed.
        mask: 1 where a token is predicted from those before it and counts, else 0, float32
            [windows, length - 1]; None where all are.
        classes: the `TokenClass` of each token, uint8 [windows, length]; None where all are text.
        labels: which label each token's document has, uint8 [windows, length]; None where they have
            none.
    """

    tokens: np.ndarray
    documents: np.ndarray | None
    mask: np.ndarray | None
    classes: np.ndarray | None
    labels: np.ndarray | None = None

    @property
    def said_classes(self) -> np.ndarray:
        """The classes; where none are said, that of text."""
        if self.classes is None:
            return np.full(self.tokens.shape, TokenClass.TEXT, np.uint8)
        return self.classes


@dataclass(frozen=True, eq=False)
class Windows:
    """Some of the windows of a stream.

    Attributes:
        stream: the tokens.
        length: of a window.
        numbers: which of its windows, int64 [windows]; number n begins at token n * length.
        packing: whether documents may be crossed, and what becomes of the last window.
        pad_id: fills up the last window.
        counted: classes of the tokens that count; None for all.
        corruption: what is spoilt of them on purpose; None for nothing.
    """

    stream: TokenStream
    length: int
    numbers: np.ndarray
    packing: PackingSpec
    pad_id: int
    counted: tuple[TokenClass, ...] | None = None
    corruption: CorruptionSpec | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self.numbers)

    def take(self, places: np.ndarray) -> Rows:
        """Windows by their place among `numbers`, int64 [windows]."""
        numbers = self.numbers[places]
        tokens = self.tokens(places).astype(np.int32)
        classes = self.stream.classes
        if classes is not None:
            classes = self._gather(classes, numbers, 0)
        found = labels = documents = None
        if not self.packing.cross_documents or self.stream.labels is not None:
            found = self._found(numbers)
        if found is not None and self.stream.labels is not None:
            labels = self.stream.labels[found - 1]
        if found is not None and not self.packing.cross_documents:
            documents = (found - found[:, :1]).astype(np.int32)
        mask = None if self.all_count else self._counts(numbers, found, classes)
        return Rows(tokens, documents, mask, classes, labels)

    @property
    def all_count(self) -> bool:
        """Whether every token but the first of a window is predicted and counts."""
        padded, crossing = self.packing.last_window == "pad", self.packing.cross_documents
        return crossing and not padded and self.counted is None

    def counted_tokens(self, places: np.ndarray) -> np.ndarray:
        """How many tokens of windows are predicted and count, int64 [windows]; reads no tokens."""
        if self.all_count:
            return np.full(len(places), self.length - 1)
        numbers, classes = self.numbers[places], self.stream.classes
        found = None if self.packing.cross_documents else self._found(numbers)
        if self.counted is not None and classes is not None:
            classes = self._gather(classes, numbers, 0)
        return self._counts(numbers, found, classes).sum(axis=1, dtype=np.int64)

    def mean_tokens(self) -> float:
        """How many tokens of a window are predicted and count, on average."""
        if self.all_count:
            return self.length - 1.0
        counts = []
        for places in self.stretches():
            counts.append(self.counted_tokens(places))
            release(self.stream.tokens)
        return float(np.concatenate(counts).mean())

    def _found(self, numbers: np.ndarray) -> np.ndarray:
        """The number of the document of each token, from 1, int64 [windows, length]."""
        return np.searchsorted(self.stream.starts, self._positions(numbers), side="right")

    def _positions(self, numbers: np.ndarray) -> np.ndarray:
        """Those of the tokens in the stream, int64 [windows, length]."""
        return numbers[:, None] * self.length + np.arange(self.length)

    def _counts(
        self, numbers: np.ndarray, found: np.ndarray | None, classes: np.ndarray | None
    ) -> np.ndarray:
        """1 for the tokens that are predicted and count, else 0, float32 [windows, length - 1]."""
        predicted = self._positions(numbers)[:, 1:] < len(self.stream.tokens)
        if found is not None and not self.packing.cross_documents:
            predicted &= found[:, 1:] == found[:, :-1]
        if self.counted is not None:
            said = TokenClass.TEXT if classes is None else classes[:, 1:]
            predicted &= np.isin(said, self.counted)
        return predicted.astype(np.float32)

    def tokens(self, places: np.ndarray) -> np.ndarray:
        """The tokens alone, in the type of the stream, [windows, length]."""
        found = self._gather(self.stream.tokens, self.numbers[places], self.pad_id)
        if self.corruption is None:
            return found
        return spoilt(found, self.numbers[places], self.ways(places), self.corruption.seed)

    def corrupted(self, places: np.ndarray) -> np.ndarray:
        """Which windows are spoilt, by their place among `numbers`, booleans [windows]."""
        return self.ways(places) != INTACT

    def ways(self, places: np.ndarray) -> np.ndarray:
        """What was done to windows, by their place, text [windows]; `INTACT` for nothing.

        One that is filled up with padding stays as it is.
        """
        numbers = self.numbers[places]
        if self.corruption is None:
            return np.full(len(numbers), INTACT)
        whole = numbers < len(self.stream.tokens) // self.length
        return np.where(whole, drawn_ways(numbers, self.corruption), INTACT)

    def stretches(self) -> Iterator[np.ndarray]:
        """The places of all windows, as many at a time as fit into little memory."""
        step = max(1, TOKENS_AT_A_TIME // self.length)
        for start in range(0, len(self), step):
            yield np.arange(start, min(start + step, len(self)))

    def class_tokens(self) -> np.ndarray:
        """How many tokens of each `TokenClass` are predicted and count, int64 [classes]."""
        return self._class_tokens().sum(axis=0)

    def label_tokens(self, count: int) -> np.ndarray:
        """How many tokens of each of `count` labels are predicted and count, int64 [count]."""
        counts = np.zeros(count, np.int64)
        for places in self.stretches():
            rows = self.take(places)
            if rows.labels is not None:
                its = rows.labels[:, 1:]
                counts += np.bincount(
                    its.ravel() if rows.mask is None else its[rows.mask > 0], minlength=count
                )
            release(self.stream.tokens)
        return counts

    def position_tokens(self) -> np.ndarray:
        """How many tokens of each position are predicted and count, int64 [length - 1]."""
        counts = np.zeros(self.length - 1, np.int64)
        for places in self.stretches():
            mask = self.take(places).mask
            counts += len(places) if mask is None else mask.sum(axis=0).astype(np.int64)
            release(self.stream.tokens)
        return counts

    def id_tokens(self, vocab_size: int) -> np.ndarray:
        """How many tokens of each id are predicted and count, int64 [vocab_size]."""
        counts = np.zeros(vocab_size, np.int64)
        for places in self.stretches():
            rows = self.take(places)
            ids = rows.tokens[:, 1:]
            counts += np.bincount(
                ids.ravel() if rows.mask is None else ids[rows.mask > 0], minlength=vocab_size
            )
            release(self.stream.tokens)
        return counts

    def measured_on(self, classes: tuple[TokenClass, ...]) -> "Windows":
        """The windows in which tokens of `classes` are predicted, which alone count then."""
        counts = self._class_tokens()[:, list(classes)].sum(axis=1)
        return replace(self, numbers=self.numbers[counts > 0], counted=classes)

    def _class_tokens(self) -> np.ndarray:
        """Those of each window, int64 [windows, classes]."""
        counts = np.zeros((len(self), len(TokenClass)), np.int64)
        for places in self.stretches():
            rows = self.take(places)
            classes = rows.said_classes[:, 1:]
            predicted = np.ones(classes.shape) if rows.mask is None else rows.mask
            for each in TokenClass:
                counts[places, each] = ((classes == each) * predicted).sum(axis=1)
            release(self.stream.tokens)
        return counts

    def _gather(self, stream: np.ndarray, numbers: np.ndarray, filler: int) -> np.ndarray:
        """The stretches of `stream`, [windows, length]."""
        whole = len(stream) // self.length
        rows = stream[: whole * self.length].reshape(whole, self.length)
        if not len(numbers) or numbers.max() < whole:
            return rows[numbers]
        last = np.full(self.length, filler, stream.dtype)
        rest = stream[whole * self.length :]
        last[: len(rest)] = rest
        taken = np.empty((len(numbers), self.length), stream.dtype)
        inside = numbers < whole
        taken[inside] = rows[numbers[inside]]
        taken[~inside] = last
        return taken


def all_windows(stream: TokenStream, length: int, packing: PackingSpec, pad_id: int) -> Windows:
    """The windows of a stream in which a token is predicted.

    The rest that fills no window is left out or is the last one, as `packing` says.
    """
    whole, rest = divmod(len(stream.tokens), length)
    numbers = np.arange(whole + (packing.last_window == "pad" and rest > 1), dtype=np.int64)
    if not packing.cross_documents:
        # Of the tokens of a window but the first, those that begin a document aren't predicted.
        begins = stream.starts[stream.starts % length != 0] // length
        borders = np.bincount(begins, minlength=whole + 1)[: len(numbers)]
        sizes = np.minimum(len(stream.tokens) - numbers * length, length)
        numbers = numbers[borders < sizes - 1]
    return Windows(stream, length, numbers, packing, pad_id)


def distinct(splits: Mapping[Split, Windows]) -> dict[Split, Windows]:
    """Drops held-out windows whose text stands in an earlier split too: texts repeat themselves."""
    hashes = {split: _hashes(windows) for split, windows in splits.items()}
    seen, kept = np.sort(hashes["train"]), {"train": splits["train"]}
    for split in SPLITS[1:]:
        new = ~_among(seen, hashes[split])
        kept[split] = replace(splits[split], numbers=splits[split].numbers[new])
        seen = np.sort(np.concatenate([seen, hashes[split]]))
    return {split: kept[split] for split in SPLITS}


def _among(ascending: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Which of `numbers` are among those, bool: `np.isin`, which would sort them each time."""
    if not len(ascending):
        return np.zeros(len(numbers), bool)
    places = np.searchsorted(ascending, numbers)
    return ascending[np.minimum(places, len(ascending) - 1)] == numbers


def _hashes(windows: Windows) -> np.ndarray:
    """A number for the tokens of each window, uint64 [windows].

    Σ_i a_i (x_i + 1) modulo 2^64, with fixed random odd a. Different texts share it about once in
    2^60 pairs; a held-out window is then left out without need.
    """
    random = np.random.Generator(np.random.Philox(0))
    factors = random.integers(2**64, size=windows.length, dtype=np.uint64) | np.uint64(1)
    hashes = np.empty(len(windows), np.uint64)
    for places in windows.stretches():
        tokens = windows.tokens(places).astype(np.uint64) + np.uint64(1)
        hashes[places] = (tokens * factors).sum(axis=1)
        release(windows.stream.tokens)
    return hashes
