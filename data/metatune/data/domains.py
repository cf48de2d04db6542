"""The domains of a recipe: read, tokenized, split, and cut into windows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from metatune.data.documents import SPLITS, Split
from metatune.data.sources import Reader, TokenClass, open_source
from metatune.data.statistics import Statistics, copies, repeats
from metatune.data.tokenized import MOST_LABELS, Listener, Tokenized, TokenStream, tokenized
from metatune.data.tokenizers import Tokenizer, tokenizer_of
from metatune.data.windows import Windows, all_windows, distinct
from metatune.recipe.checks import check
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.paths import joined
from metatune.recipe.rules import broken_rules
from metatune.recipe.schema import DataSpec, SourceSpec


@dataclass(frozen=True, eq=False)
class Domain:
    """One source of text, as windows of tokens.

    Attributes:
        name: as in the recipe.
        train: windows to train on.
        validation: windows for the objective and for the choice of the best.
        test: windows for the result.
        sha256: of the text of all documents, one after another, in UTF-8; in hexadecimal.
        statistics: what it holds.
    """

    name: str
    train: Windows
    validation: Windows
    test: Windows
    sha256: str
    statistics: Statistics


@dataclass(frozen=True, eq=False)
class Corpus:
    """All domains of a recipe.

    Attributes:
        domains: those that are trained on, in the recipe's order, which is that of the mixture's
            shares.
        target: weights of the held-out loss, float64 [measured domains]; they sum to one.
        sequence_length: tokens per window.
        tokenizer: what made the tokens.
        labels: of documents, by their numbers; empty where they have none.
        aside: those that are only measured on, held-out sets of their own.
    """

    domains: tuple[Domain, ...]
    target: np.ndarray
    sequence_length: int
    tokenizer: Tokenizer
    labels: tuple[str, ...] = ()
    aside: tuple[Domain, ...] = ()

    @property
    def measured(self) -> tuple[Domain, ...]:
        """All domains, in the order of the target's weights."""
        return (*self.domains, *self.aside)

    def target_of(self, split: Literal["validation", "test"]) -> np.ndarray:
        """Weights of the held-out loss on a split, float64 [measured domains]; they sum to one.

        A domain without windows in it has none.
        """
        weights = np.where([len(getattr(its, split)) > 0 for its in self.measured], self.target, 0)
        return weights if np.array_equal(weights, self.target) else weights / weights.sum()

    @property
    def classed(self) -> bool:
        """Whether any domain says the class of its tokens."""
        return any(domain.train.stream.classes is not None for domain in self.measured)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the domains that are trained on, in their order."""
        return tuple(domain.name for domain in self.domains)

    @property
    def statistics(self) -> dict[str, Statistics]:
        """What each domain holds."""
        return {domain.name: domain.statistics for domain in self.measured}

    def class_tokens(self) -> np.ndarray:
        """Predicted tokens of each `TokenClass` in the windows to train on.

        Returns:
            int64 [domains, classes].
        """
        return np.stack([domain.train.class_tokens() for domain in self.domains])

    def label_tokens(self) -> np.ndarray:
        """Predicted tokens of each label in the windows to train on.

        Returns:
            int64 [domains, labels].
        """
        count = len(self.labels)
        return np.stack([domain.train.label_tokens(count) for domain in self.domains])

    def position_tokens(self) -> np.ndarray:
        """Predicted tokens of each position in the windows to train on.

        Returns:
            int64 [domains, sequence_length - 1], from the second token of a sequence on.
        """
        return np.stack([domain.train.position_tokens() for domain in self.domains])

    def id_tokens(self) -> np.ndarray:
        """Predicted tokens of each id in the windows to train on.

        Returns:
            int64 [domains, vocabulary].
        """
        size = self.tokenizer.vocab_size
        return np.stack([domain.train.id_tokens(size) for domain in self.domains])

    def measured_on(self, classes: Sequence[TokenClass], path: str) -> "Corpus":
        """The same with held-out windows in which only tokens of `classes` count.

        Windows of a domain without a weight in the target, and without such tokens, stay as they
        are.

        Args:
            classes: at least one.
            path: of the recipe's field that says so.

        Raises:
            RecipeError: no token of these classes is in a held-out split of a domain with a weight
                in the target.
        """
        domains, faults = [], []
        for domain, weight in zip(self.measured, self.target, strict=True):
            splits: dict[Split, Windows] = {"validation": domain.validation, "test": domain.test}
            splits = {split: its for split, its in splits.items() if len(its)}
            counted = {split: its.measured_on(tuple(classes)) for split, its in splits.items()}
            if weight or all(map(len, counted.values())):
                domains.append(replace(domain, **counted))
            else:
                domains.append(domain)
            for split, windows in splits.items() if weight else ():
                if not len(counted[split]):
                    names = [each.name.lower() for each in classes]
                    problem = (
                        f"the {split} split of domain {domain.name} has no such tokens; it has "
                        f"{in_words(windows.class_tokens())}"
                    )
                    cure = "name other classes, or give the domain no weight in data.target"
                    faults.append(Fault(path, names, problem, cure))
        if faults:
            raise RecipeError("outer", faults)
        count = len(self.domains)
        return replace(self, domains=tuple(domains[:count]), aside=tuple(domains[count:]))

    def token_shares(self, shares: Sequence[float]) -> tuple[float, ...]:
        """The domains' shares of the predicted tokens of training batches.

        Args:
            shares: of their sequences.
        """
        lengths = np.array([domain.train.mean_tokens() for domain in self.domains])
        if np.ptp(lengths) == 0:
            return tuple(shares)
        drawn = np.asarray(shares) * lengths
        return tuple((drawn / drawn.sum()).tolist())

    def repeats(self, shares: np.ndarray, batch_size: int) -> dict[str, float]:
        """How often a training reads each domain, in epochs; arguments as `statistics.repeats`."""
        epochs = repeats([len(domain.train) for domain in self.domains], shares, batch_size)
        return dict(zip(self.names, map(float, epochs), strict=True))


def in_words(tokens: np.ndarray) -> str:
    """How many tokens there are of each class that occurs.

    Args:
        tokens: of each `TokenClass`, [classes].
    """
    return ", ".join(f"{tokens[c]:,} of class {c.name.lower()}" for c in TokenClass if tokens[c])


def look(data: DataSpec, encoder: Tokenizer | None = None) -> None:
    """Looks for faults in the section and in the beginning of each source, and reads no further.

    Args:
        data: the recipe's section.
        encoder: its tokenizer, where it has been loaded before.

    Raises:
        RecipeError: with all faults that were found.
    """
    _opened(data, encoder)


def load(
    data: DataSpec, encoder: Tokenizer | None = None, listener: Listener | None = None
) -> Corpus:
    """Reads, tokenizes and splits the domains of a recipe.

    Args:
        data: the recipe's section.
        encoder: its tokenizer, where it has been loaded before.
        listener: is told from time to time how far the tokenizing is.

    Raises:
        RecipeError: with all faults of the section and of the beginnings of its sources; where
            there are none, with all that reading the sources to the end has found.
        DamagedCorpus: a shipped text isn't what was shipped.
        CacheError: no room for the tokens.
    """
    encoder, readers = _opened(data, encoder)
    faults: list[Fault] = []
    held: dict[str, Tokenized] = {}
    for name, reader in readers.items():
        try:
            held[name] = tokenized(name, data.domains[name], reader, data, encoder, listener)
        except RecipeError as error:
            faults += error.faults
    labels = tuple(sorted({label for its in held.values() for label in its.labels}))
    faults += _too_many_labels(labels, data)
    cut: dict[str, dict[Split, Windows]] = {}
    for name, its in held.items():
        splits: dict[Split, Windows] = {
            split: all_windows(
                _numbered(stream, its.labels, labels),
                data.sequence_length,
                data.packing,
                encoder.pad_id,
            )
            for split, stream in its.streams.items()
        }
        used: dict[Split, Windows] = {each: splits[each] for each in _splits(data.domains[name])}
        short = list(_short_streams(name, used, data, readers[name]))
        cut[name] = distinct(splits)
        # After the splits are told apart, by the text as it was.
        cut[name]["train"] = replace(cut[name]["train"], corruption=data.domains[name].corrupt)
        faults += short or _repeated_splits(
            name, {each: cut[name][each] for each in used}, readers[name]
        )
    if faults:
        raise RecipeError("data", faults)
    found = copies({name: its.hashes for name, its in held.items()})
    domains = tuple(
        Domain(name, **cut[name], sha256=its.sha256, statistics=_statistics(its, *found[name]))
        for name, its in held.items()
    )
    order = sorted(domains, key=lambda domain: domain.name not in data.trained)  # stable
    weights = np.array([data.target.get(domain.name, 0.0) for domain in order], np.float64)
    count = len(data.trained)
    return Corpus(
        tuple(order[:count]),
        weights / weights.sum(),
        data.sequence_length,
        encoder,
        labels,
        tuple(order[count:]),
    )


def _splits(source: SourceSpec) -> tuple[Split, ...]:
    """Those that documents of a source fall into."""
    return SPLITS if source.use == "all" else (source.use,)


def _numbered(stream: TokenStream, own: Sequence[str], labels: Sequence[str]) -> TokenStream:
    """A stream whose labels have the numbers of all domains' in place of its own."""
    if stream.labels is None:
        return stream
    numbers = np.array([labels.index(label) for label in own], np.uint8)
    return stream._replace(labels=numbers[stream.labels])


def _too_many_labels(labels: Sequence[str], data: DataSpec) -> Iterator[Fault]:
    if len(labels) > MOST_LABELS:
        columns = {name: source.label for name, source in data.domains.items()}
        problem = f"the domains have {len(labels)} different labels; must be {MOST_LABELS} at most"
        yield Fault("data.domains", columns, problem, "name columns of the same few classes")


class _Opened(NamedTuple):
    """A tokenizer and the sources of a section without faults, by domain."""

    tokenizer: Tokenizer
    readers: Mapping[str, Reader]


def _opened(data: DataSpec, encoder: Tokenizer | None) -> _Opened:
    faults = list(check({"data": data}))
    for path, section in (
        ("data", data),
        ("data.held_out", data.held_out),
        *((joined("data.domains", name), source) for name, source in data.domains.items()),
        *(
            (f"{joined('data.domains', name)}.corrupt", source.corrupt)
            for name, source in data.domains.items()
            if source.corrupt is not None
        ),
    ):
        faults += broken_rules(section, path)
    try:
        encoder = encoder or tokenizer_of(data)
        if data.bos == "always" and encoder.bos_id is None:
            problem = f"data.tokenizer, {data.tokenizer}, has no such token"
            cure = "name it as bos_token in its tokenizer_config.json, or write auto or never"
            faults.append(Fault("data.bos", data.bos, problem, cure))
    except RecipeError as error:
        faults += error.faults
    readers = {}
    for name, source in data.domains.items():
        # Without a tokenizer, messages can't be looked at.
        if encoder is not None or (source.messages is None and source.prompt is None):
            try:
                if reader := open_source(name, source, data.invalid_utf8, encoder):
                    readers[name] = reader
            except RecipeError as error:
                faults += error.faults
    if faults or encoder is None:
        raise RecipeError("data", faults)
    return _Opened(encoder, readers)


def _statistics(its: Tokenized, duplicates: int, shared: int) -> Statistics:
    return Statistics(
        documents=len(its.hashes),
        tokens=sum(len(stream.tokens) for stream in its.streams.values()),
        bytes=its.bytes,
        duplicates=duplicates,
        shared=shared,
        replaced=its.replaced,
        empty=its.empty,
    )


def _short_streams(
    name: str, splits: Mapping[Split, Windows], data: DataSpec, reader: Reader
) -> Iterator[Fault]:
    """A fault for each split of a domain that doesn't fill a window."""
    for split, windows in splits.items():
        tokens = len(windows.stream.tokens)
        share = "smaller shares" if split == "train" else f"a larger {split} share"
        more = f"give the domain more text, or data.held_out {share}"
        if not tokens:
            problem = f"no document falls into its {split} split"
            yield Fault(joined("data.domains", name), reader.place.source, problem, more)
        elif not len(windows) and tokens < data.sequence_length:
            problem = (
                f"longer than the data: the {split} split of domain {name} has {tokens} tokens"
            )
            cure = f"lower it to at most {tokens}, or {more}"
            yield Fault("data.sequence_length", data.sequence_length, problem, cure)
        elif not len(windows):
            problem = f"its {split} split has no document of two tokens or more"
            yield Fault(joined("data.domains", name), reader.place.source, problem, more)


def _repeated_splits(name: str, splits: Mapping[Split, Windows], reader: Reader) -> Iterator[Fault]:
    """A fault for each split of a domain that holds nothing of its own."""
    for split, its in splits.items():
        if not len(its):
            problem = f"every window of its {split} split stands in an earlier split too"
            cure = "give it text that repeats itself less"
            yield Fault(joined("data.domains", name), reader.place.source, problem, cure)
