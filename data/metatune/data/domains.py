"""Domains: texts, tokenized and cut into windows, in three splits that share no document."""

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from metatune.data.documents import Split, documents, split_of
from metatune.data.shipped import SHIPPED, shipped_text
from metatune.data.tokenizers import ByteTokenizer, tokenizer
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.schema import Data, Source

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, eq=False)
class Domain:
    """One source of text.

    Attributes:
        name: its name in the recipe.
        train: windows of the inner training, [windows, sequence_length] uint16.
        outer: windows of the objective, likewise.
        report: windows of the result, likewise.
        sha256: of the source text.
        documents: how many, over all splits.
        tokens: how many, over all splits.
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
        domains: in the order of the recipe, which is that of the mixture.
        target: weights of the domains in the held-out loss, [domains] float64, sum one.
        sequence_length: tokens per window.
        tokenizer: how the text was tokenized.
    """

    domains: tuple[Domain, ...]
    target: np.ndarray
    sequence_length: int
    tokenizer: ByteTokenizer

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the domains."""
        return tuple(domain.name for domain in self.domains)


def load(data: Data) -> Corpus:
    """Reads, tokenizes and cuts the domains of a recipe.

    Raises:
        RecipeError: with all faults together: a source that is unknown, missing, empty or not
            UTF-8; a target that names no domain or weighs nothing; a split without a window.
    """
    faults = [*_target_faults(data)]
    domains = []
    if not data.domains:
        faults.append(Fault("data.domains", {}, "is empty", "name at least one domain"))
    for name, source in data.domains.items():
        try:
            text = _text(f"data.domains.{name}", source)
            domains.append(_domain(name, text, data))
        except RecipeError as error:
            faults += error.faults
    if faults:
        raise RecipeError("data", faults)
    weights = np.array([data.target.get(name, 0.0) for name in data.domains], np.float64)
    return Corpus(
        tuple(domains), weights / weights.sum(), data.sequence_length, tokenizer(data.tokenizer)
    )


def _domain(name: str, text: str, data: Data) -> Domain:
    held_out, tokens = data.held_out, tokenizer(data.tokenizer)
    pieces = documents(text)
    sides: dict[Split, list[np.ndarray]] = {split: [] for split in SPLITS}
    for piece in pieces:
        encoded = np.append(tokens.encode(piece), np.uint16(tokens.eos_id))
        sides[split_of(piece, held_out.outer, held_out.report)].append(encoded)
    length = data.sequence_length
    counts = {split: sum(map(len, parts)) for split, parts in sides.items()}
    faults = [
        Fault(
            "data.sequence_length",
            length,
            f"is longer than the {split} split of domain {name}, which has {count} tokens",
            f"give at most {count}, or more text" if count else "give more text",
        )
        for split, count in counts.items()
        if count < length
    ]
    if faults:
        raise RecipeError("data", faults)
    return Domain(
        name,
        **{split: _windows(parts, length) for split, parts in sides.items()},
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        documents=len(pieces),
        tokens=sum(counts.values()),
    )


def _windows(parts: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Consecutive windows; the last short one is dropped."""
    joined = np.concatenate(parts)
    whole = len(joined) // length
    return joined[: whole * length].reshape(whole, length)


def _text(path: str, source: Source) -> str:
    if (source.shipped is None) == (source.path is None):
        value = {"shipped": source.shipped, "path": source.path}
        raise _refused(path, value, "needs either `shipped` or `path`", "give exactly one of them")
    if source.shipped is not None:
        if source.shipped not in SHIPPED:
            near = difflib.get_close_matches(source.shipped, SHIPPED, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise _refused(
                f"{path}.shipped",
                source.shipped,
                "no such text is shipped",
                f"{hint}shipped are {', '.join(SHIPPED)}",
            )
        return shipped_text(source.shipped)
    return _file(f"{path}.path", Path(str(source.path)))


def _file(path: str, file: Path) -> str:
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise _refused(
            path, str(file), f"is not UTF-8 (byte {error.start})", "convert it, with iconv say"
        ) from error
    except FileNotFoundError as error:
        cure = f"give a path from {Path.cwd()}, or an absolute one"
        raise _refused(path, str(file), "no such file", cure) from error
    except OSError as error:
        raise _refused(
            path, str(file), f"can't be read: {error.strerror}", "give a readable text file"
        ) from error
    if not text.strip():
        raise _refused(path, str(file), "is empty", "give a file with text, or drop the domain")
    return text


def _target_faults(data: Data) -> Iterable[Fault]:
    for name, weight in data.target.items():
        if name not in data.domains:
            near = difflib.get_close_matches(name, data.domains, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            yield Fault(
                f"data.target.{name}",
                weight,
                "no such domain",
                f"{hint}domains are {', '.join(data.domains)}",
            )
        elif weight < 0:
            yield Fault(f"data.target.{name}", weight, "must be 0 or above", "correct it")
    if not any(weight > 0 for weight in data.target.values()):
        yield Fault(
            "data.target",
            dict(data.target),
            "weighs nothing",
            "give at least one domain a weight above 0",
        )


def _refused(path: str, value: object, problem: str, cure: str) -> RecipeError:
    return RecipeError("data", [Fault(path, value, problem, cure)])
