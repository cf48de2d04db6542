"""`metatune score`: texts rated by the rater of an artefact, to choose what to train on."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax
import numpy as np

from metatune import artefact
from metatune.artefact import ArtefactError
from metatune.data import Tokenizer, load, tokenizer_of
from metatune.data.encoded import encoded
from metatune.data.sources import Record, open_source
from metatune.recipe import reading
from metatune.recipe.faults import ABSENT, Fault, RecipeError
from metatune.recipe.schema import DataSpec, SourceSpec
from metatune.tunables.rating import Rated, held

SEQUENCES_AT_A_TIME: Final = 256
RECORDS_AT_A_TIME: Final = 256

JSON_LINES: Final = ".jsonl"
COMPRESSIONS: Final = (".gz", ".bz2", ".xz", ".zst")


class Scored(NamedTuple):
    """What was scored.

    Attributes:
        texts: how many documents and sequences.
        written: how many of them were written.
        least: the lowest score that was written.
    """

    texts: int
    written: int
    least: float


class Scorer(NamedTuple):
    """A rater, and what it reads.

    Attributes:
        rated: the rater.
        data: what its recipe says of the data.
        tokenizer: that it was tuned with.
        scores: tokens [SEQUENCES_AT_A_TIME, sequence] and a mask to scores; compiled.
    """

    rated: Rated
    data: DataSpec
    tokenizer: Tokenizer
    scores: Callable[[np.ndarray, np.ndarray], jax.Array]


def scorer(run: Path) -> Scorer:
    """The rater of an artefact.

    Args:
        run: a run folder, an artefact folder, or a tuned.json.

    Raises:
        ArtefactError: it has no rater, or it isn't known what the rater reads.
        RecipeError: its recipe names a tokenizer that isn't there.
    """
    tuned, folder = artefact.load(run), artefact.folder_of(run)
    if tuned.rater is None:
        cure = "tune one: `tune: {rater: {kind: mlp}}` in the recipe"
        raise ArtefactError(str(folder), [Fault("rater", ABSENT, "the artefact holds none", cure)])
    if tuned.origin is None:
        problem = "isn't in the artefact, which is an export's: the tokenizer isn't known"
        raise ArtefactError(str(folder), [Fault(artefact.RECIPE, ABSENT, problem, "give the run")])
    data = reading.read(folder / artefact.RECIPE).data
    encoder = tokenizer_of(data)
    if encoder.sha256 != (then := tuned.provenance["tokenizer_sha256"]):
        problem = f"{data.tokenizer} has another hash here, {encoder.sha256}"
        cure = "score with the tokenizer that the rater was tuned with"
        fault = Fault("provenance.tokenizer_sha256", then, problem, cure)
        raise ArtefactError(str(folder), [fault])
    rated = held(tuned.rater.settings, tuned.rater.parameters)
    compiled = jax.jit(rated.rating.scores)
    return Scorer(rated, data, encoder, lambda rows, mask: compiled(rated.params, rows, mask))


def score(judge: Scorer, inputs: Sequence[str], out: Path, keep: float | None = None) -> Scored:
    """Scores texts and writes a line of JSON for each.

    A document's score is the mean over its tokens: it is cut into sequences as long as those that
    the rater was tuned on, and a token counts with the score of its sequence.

    Args:
        judge: the rater.
        inputs: text files and files of JSON lines with a `text`, whose documents are scored; or
            domains of the recipe, whose training sequences are.
        out: the file to write; with the texts, so that a recipe can read it as `jsonl`.
        keep: share of what is scored that is written, the best; null for all.

    Raises:
        RecipeError: an input isn't there or can't be read.
        ArtefactError: a share that isn't one.
    """
    if keep is not None and not 0 < keep <= 1:
        problem = "must be a share above 0, 1 at most"
        raise ArtefactError("score", [Fault("--keep", keep, problem)])
    everything = out.with_name(out.name + ".partial")
    try:
        scores = _written(judge, inputs, everything)
        if not scores:
            problem = "hold nothing to score"
            raise ArtefactError("score", [Fault("inputs", list(inputs), problem, "give others")])
        best = np.argsort(-np.asarray(scores), kind="stable")
        best = best[: len(scores) if keep is None else max(1, round(keep * len(scores)))]
        if len(best) < len(scores):
            _only(everything, set(best.tolist()))
        everything.replace(out)
    finally:
        everything.unlink(missing_ok=True)
    return Scored(len(scores), len(best), scores[best[-1]])


def _written(judge: Scorer, inputs: Sequence[str], file: Path) -> list[float]:
    """Writes a line for each text into a file; the scores."""
    scores: list[float] = []
    with file.open("w", encoding="utf-8") as lines:
        for said in inputs:
            try:
                for line in _lines(judge, said):
                    scores.append(line["score"])
                    lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            except RecipeError as error:
                faults = [replace(fault, path=f"input {said}") for fault in error.faults]
                raise RecipeError("score", faults) from error
    return scores


def sequence_scores(judge: Scorer, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Scores of any number of sequences, float32 [sequences].

    Args:
        judge: the rater.
        tokens: [sequences, length].
        mask: 1 for the tokens that are predicted and count, else 0, [sequences, length - 1].
    """
    found = []
    for first in range(0, len(tokens), SEQUENCES_AT_A_TIME):
        # Always as many, so that one program is compiled: what is added has places to count, too.
        places = np.arange(first, first + SEQUENCES_AT_A_TIME).clip(max=len(tokens) - 1)
        rows = np.asarray(judge.scores(tokens[places], mask[places]))
        found.append(rows[: len(tokens) - first])
    return np.concatenate(found)


def _lines(judge: Scorer, said: str) -> Iterator[dict[str, Any]]:
    """What is written of an input."""
    if said in judge.data.domains:
        yield from _of_domain(judge, said)
        return
    name = said.lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    source = SourceSpec(jsonl=said) if name.endswith(JSON_LINES) else SourceSpec(path=said)
    reader = open_source("score", source, judge.data.invalid_utf8, judge.tokenizer)
    records = (record for record in reader.records() if record.text) if reader else iter(())
    number = 0
    while batch := list(islice(records, RECORDS_AT_A_TIME)):
        for record, (score, tokens) in zip(batch, _of_documents(judge, batch), strict=True):
            place = {"input": said, "document": number}
            yield {**place, "score": score, "tokens": tokens, "text": record.text}
            number += 1


def _of_documents(judge: Scorer, records: list[Record]) -> Iterator[tuple[float, int]]:
    """The score of each document, and how many tokens it has."""
    length, encoder = judge.data.sequence_length, judge.tokenizer
    made = encoded(records, encoder, False, judge.data.bos)
    documents = [document.tokens for document in made]
    rows, masks = [], []
    for ids in documents:
        count = -(-len(ids) // length)
        filled = np.full(count * length, encoder.pad_id, np.int32)
        filled[: len(ids)] = ids
        there = (np.arange(count * length) < len(ids)).reshape(count, length)[:, 1:]
        rows.append(filled.reshape(count, length))
        masks.append(there.astype(np.float32))
    counts = [len(its) for its in rows]
    mask = np.concatenate(masks)
    # A single token at the end of a document is predicted from none: its sequence counts nothing.
    sizes = mask.sum(axis=1)
    safe = np.where(sizes[:, None] > 0, mask, 1)
    scores = sequence_scores(judge, np.concatenate(rows), safe)
    ends = np.cumsum(counts)
    for ids, first, end in zip(documents, ends - counts, ends, strict=True):
        yield float(np.average(scores[first:end], weights=sizes[first:end])), len(ids)


def _of_domain(judge: Scorer, name: str) -> Iterator[dict[str, Any]]:
    """The training sequences of a domain of the recipe."""
    source = judge.data.domains[name]
    only = replace(judge.data, domains={name: source}, target={name: 1.0})
    (domain,) = load(only, judge.tokenizer).domains
    windows = domain.train
    for places in windows.stretches():
        rows = windows.take(places)
        mask = np.ones(rows.tokens[:, 1:].shape, np.float32) if rows.mask is None else rows.mask
        scores = sequence_scores(judge, rows.tokens, mask)
        spoilt = windows.corrupted(places)
        for index, place in enumerate(places):
            yield {
                "input": name,
                "sequence": int(windows.numbers[place]),
                "score": float(scores[index]),
                **({"corrupted": bool(spoilt[index])} if windows.corruption else {}),
                "text": judge.tokenizer.decode(rows.tokens[index]),
            }


def _only(file: Path, kept: set[int]) -> None:
    """Leaves some of the lines of a file, in their order."""
    fewer = file.with_name(file.name + ".kept")
    with file.open(encoding="utf-8") as lines, fewer.open("w", encoding="utf-8") as best:
        best.writelines(line for number, line in enumerate(lines) if number in kept)
    fewer.replace(file)
