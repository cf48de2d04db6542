"""The domains of a recipe, read, tokenized and split."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from metatune.data.documents import SPLITS, Split, cut, side, tokens, windows
from metatune.data.shipped import SHIPPED, shipped_text
from metatune.data.tokenizers import ByteTokenizer, tokenizer
from metatune.recipe.checks import check
from metatune.recipe.faults import Fault, RecipeError, unknown
from metatune.recipe.rules import broken_rules
from metatune.recipe.schema import Data, Source


@dataclass(frozen=True, eq=False)
class Domain:
    """One source of text, as windows of tokens.

    Attributes:
        name: as in the recipe.
        train: windows to train on, uint16 [windows, sequence_length].
        outer: windows for the objective and for the choice of the best, likewise.
        report: windows for the result, likewise.
        sha256: of the source's text in UTF-8, in hexadecimal.
        documents: number of documents in all splits.
        tokens: number of tokens in all splits, with the end of each document, and with the rest
            of each split that fills no window.
    """

    name: str
    train: np.ndarray
    outer: np.ndarray
    report: np.ndarray
    sha256: str
    documents: int
    tokens: int


@dataclass(frozen=True, eq=False)
class Corpus:
    """All domains of a recipe.

    Attributes:
        domains: in the recipe's order, which is that of the mixture's shares.
        target: weights of the held-out loss, float64 [domains]; they sum to one.
        sequence_length: tokens per window.
        tokenizer: what made the tokens.
    """

    domains: tuple[Domain, ...]
    target: np.ndarray
    sequence_length: int
    tokenizer: ByteTokenizer

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the domains, in their order."""
        return tuple(domain.name for domain in self.domains)


def load(data: Data) -> Corpus:
    """Reads, tokenizes and splits the domains of a recipe.

    Raises:
        RecipeError: with all faults of the section and of the texts that it names.
        DamagedCorpus: a shipped text isn't what was shipped.
    """
    faults = list(check({"data": data}))
    read = {name: _read(name, source) for name, source in data.domains.items()}
    faults += [fault for fault in read.values() if isinstance(fault, Fault)]
    broken = [*broken_rules(data, "data"), *broken_rules(data.held_out, "data.held_out")]
    if broken:  # then there are no windows to speak of
        raise RecipeError("data", [*broken, *faults])
    encoder = tokenizer(data.tokenizer)
    domains = []
    for name, text in read.items():
        if isinstance(text, str):
            documents = cut(text)
            streams = _streams(documents, data, encoder)
            short = list(_short_streams(name, streams, data))
            splits = _distinct(
                {its: windows(stream, data.sequence_length) for its, stream in streams.items()}
            )
            faults += short or _repeated_splits(name, splits, data)
            total = sum(map(len, streams.values()))
            hashed = sha256(text.encode("utf-8")).hexdigest()
            domains.append(
                Domain(name, **splits, sha256=hashed, documents=len(documents), tokens=total)
            )
    if faults:
        raise RecipeError("data", faults)
    weights = np.array([data.target.get(name, 0.0) for name in data.domains], np.float64)
    return Corpus(tuple(domains), weights / weights.sum(), data.sequence_length, encoder)


def _read(name: str, source: Source) -> str | Fault | None:
    """The text of a source, or what is wrong with it; None where it doesn't name one place."""
    match source:
        case Source(shipped=str(shipped), path=None):
            if shipped in SHIPPED:
                return shipped_text(shipped)
            path = f"data.domains.{name}.shipped"
            return unknown(path, shipped, "shipped corpus", shipped, list(SHIPPED))
        case Source(shipped=None, path=str(file)):
            return _read_file(f"data.domains.{name}.path", file)
        case _:
            return None  # `check` has said so


def _read_file(path: str, file: str) -> str | Fault:
    """The text of a file, or what is wrong with it; `path` is the field that names the file."""
    try:
        text = Path(file).read_bytes().decode("utf-8")
    except FileNotFoundError:
        cure = f"relative paths start at the working directory, {Path.cwd()}"
        return Fault(path, file, "no such file", cure)
    except OSError as error:
        return Fault(path, file, f"can't be read: {error.strerror}", "give a readable text file")
    except UnicodeDecodeError as error:
        problem = f"isn't UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        return Fault(path, file, problem, "convert it to UTF-8 text")
    if not text.strip():
        return Fault(path, file, "holds no text", "give a file with text in it")
    return text


def _streams(
    documents: list[str], data: Data, encoder: ByteTokenizer
) -> Mapping[Split, np.ndarray]:
    """The tokens of each split, uint16 [tokens]."""
    sides = [side(document, data.held_out.outer, data.held_out.report) for document in documents]
    return {
        split: tokens(
            (doc for doc, its in zip(documents, sides, strict=True) if its == split), encoder
        )
        for split in SPLITS
    }


def _short_streams(name: str, streams: Mapping[Split, np.ndarray], data: Data) -> Iterator[Fault]:
    """A fault for each split of a domain that doesn't fill a window."""
    for split, stream in streams.items():
        share = "smaller shares" if split == "train" else f"a larger {split} share"
        more = f"give the domain more text, or data.held_out {share}"
        if not len(stream):
            problem = f"no document falls into its {split} split"
            yield Fault(f"data.domains.{name}", _said(data.domains[name]), problem, more)
        elif len(stream) < data.sequence_length:
            problem = (
                f"longer than the data: the {split} split of domain {name} has {len(stream)} tokens"
            )
            cure = f"lower it to at most {len(stream)}, or {more}"
            yield Fault("data.sequence_length", data.sequence_length, problem, cure)


def _said(source: Source) -> str | None:
    """What the recipe gives as source, of which it is known that it is one place."""
    return source.path or source.shipped


def _distinct(splits: Mapping[Split, np.ndarray]) -> dict[Split, np.ndarray]:
    """Drops held-out windows whose text stands in an earlier split too: texts repeat themselves."""
    seen: set[bytes] = set()
    kept = {}
    for split in SPLITS:
        texts = [window.tobytes() for window in splits[split]]
        kept[split] = splits[split][np.array([text not in seen for text in texts], bool)]
        seen.update(texts)
    return kept


def _repeated_splits(name: str, splits: Mapping[Split, np.ndarray], data: Data) -> Iterator[Fault]:
    """A fault for each split of a domain that holds nothing of its own."""
    for split, its in splits.items():
        if not len(its):
            problem = f"every window of its {split} split stands in an earlier split too"
            cure = "give it text that repeats itself less"
            yield Fault(f"data.domains.{name}", _said(data.domains[name]), problem, cure)
