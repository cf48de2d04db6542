"""BPE dropout: words that are split otherwise now and then, drawn from a seed.

A merge that would be done is left out by chance, so that a model also sees the rarer ways to write
a word. The `tokenizers` library draws from a generator that can't be seeded; here it can.

Source: Provilkov, Emelianenko & Voita, 2020, BPE-Dropout, algorithm 1.
"""

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Split(NamedTuple):
    """A text, split anew.

    Attributes:
        ids: its tokens, uint32 [tokens].
        first: of which token before the first character of each is, int64 [tokens].
        last: of which token before the last character of each is, int64 [tokens].
    """

    ids: np.ndarray
    first: np.ndarray
    last: np.ndarray


@dataclass(frozen=True, eq=False)
class BpeDropout:
    """The merges of a byte-pair encoding, each of which is left out by chance.

    Attributes:
        rate: the probability of that, in (0, 1].
        seed: of all draws.
        vocabulary: tokens to their ids.
        ranks: pairs of tokens that are merged, to the order in which they are.
        whole: ids of added tokens, which are never split.
    """

    rate: float
    seed: int
    vocabulary: Mapping[str, int]
    ranks: Mapping[tuple[str, str], int]
    whole: frozenset[int]

    def split(self, encoding: Any, digest: bytes) -> Split:
        """Splits a text anew.

        Args:
            encoding: a `tokenizers.Encoding` of the text, without dropout.
            digest: of the document: with the seed all that the draws follow from.
        """
        draw = np.random.default_rng([self.seed, int.from_bytes(digest[:16], "big")])
        ids, first, last = list[int](), list[int](), list[int]()
        words, tokens = encoding.word_ids, encoding.tokens
        begin = 0
        while begin < len(tokens):
            stop = begin + 1
            while stop < len(tokens) and words[begin] is not None and words[stop] == words[begin]:
                stop += 1
            # Which token each character was in.
            owners = [number for number in range(begin, stop) for _ in tokens[number]]
            added = encoding.ids[begin] in self.whole
            word = "".join(tokens[begin:stop])
            at = 0
            for piece in [word] if added else self._pieces(word, draw):
                ids.append(self.vocabulary[piece])
                first.append(owners[at])
                at += len(piece)
                last.append(owners[at - 1])
            begin = stop
        return Split(np.array(ids, np.uint32), np.array(first, np.int64), np.array(last, np.int64))

    def _pieces(self, word: str, draw: np.random.Generator) -> list[str]:
        """Merges of a word's characters, until none is left or all that are were left out.

        As `tokenizers` does it, and not quite as the paper: a merge that was left out may be done
        after all once another is drawn, and there that may be one whose characters have been merged
        otherwise by then. So fewer merges are left out than the rate says.
        """
        pieces: list[str] = list(word)
        following = [*range(1, len(word)), -1]
        before = [*range(-1, len(word) - 1)]
        queue: list[tuple[int, int, str]] = []

        def offer(at: int) -> None:
            pair = (pieces[at], pieces[following[at]])
            if pair in self.ranks:
                heapq.heappush(queue, (self.ranks[pair], at, "".join(pair)))

        for at in range(len(word) - 1):
            offer(at)
        skipped: list[tuple[int, int, str]] = []
        while queue:
            top = heapq.heappop(queue)
            if draw.random() < self.rate:
                skipped.append(top)
                continue
            for again in skipped:
                heapq.heappush(queue, again)
            skipped.clear()
            _, at, merged = top
            right = following[at]
            if not pieces[at] or right < 0 or pieces[at] + pieces[right] != merged:
                continue  # one of the two is another by now
            pieces[at], pieces[right] = merged, ""
            following[at] = following[right]
            if following[at] >= 0:
                before[following[at]] = at
                offer(at)
            if before[at] >= 0:
                offer(before[at])
        return [piece for piece in pieces if piece]


def bpe_dropout(backend: Any, added: Sequence[str], rate: float, seed: int) -> BpeDropout:
    """Of a tokenizer.

    Args:
        backend: a `tokenizers.Tokenizer`, without dropout.
        added: its added tokens.
        rate: the probability that a merge is left out.
        seed: of all draws.

    Raises:
        ValueError: it isn't a byte-pair encoding of bytes, whose words are made of characters that
            are tokens each.
    """
    model = json.loads(backend.to_str())["model"]
    if model["type"] != "BPE":
        raise ValueError(f"it is no byte-pair encoding but {model['type']}")
    strange = [key for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    if strange or model.get("byte_fallback"):
        raise ValueError(f"it has {', '.join(strange) or 'byte_fallback'}")
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    vocabulary = backend.get_vocab(with_added_tokens=True)
    missing = {c for token in model["vocab"] for c in token if token not in added} - set(vocabulary)
    if missing:
        raise ValueError(f"its characters {''.join(sorted(missing))!r} are no tokens by themselves")
    ranks = {(left, right): rank for rank, (left, right) in enumerate(merges)}
    whole = frozenset(vocabulary[token] for token in added)
    return BpeDropout(rate, seed, vocabulary, ranks, whole)
