"""Records of tokens that were made before: their ids, and which of them count.

Two habits are known. Of Hugging Face: `labels` repeat the ids, and are -100 where nothing is to be
learnt. A mask (`assistant_masks`, `loss_mask`) is 1 where something is, else 0.
"""

import json
from typing import Any, Final

import numpy as np

from metatune.data.sources.records import Location, Ready, Row, TokenClass
from metatune.data.tokenizers import Tokenizer
from metatune.recipe.schema import SourceSpec

IGNORED: Final = -100
"""The label of a token that isn't learnt; `ignore_index` of PyTorch's cross-entropy."""


def ready_tokens(row: Row, source: SourceSpec, tokenizer: Tokenizer | None) -> Ready | None:
    """The tokens of a row, None where it has none.

    Args:
        row: with the columns that `source` names.
        source: says which columns these are.
        tokenizer: whose vocabulary the ids are of; without it they aren't compared.

    Raises:
        RecipeError: these are no ids of the vocabulary, or labels or mask don't go with them.
    """
    if source.input_ids is None:
        raise ValueError("the source has no ready tokens")
    ids = _numbers(row, source.input_ids)
    if not len(ids):
        return None
    strange = ids < 0 if tokenizer is None else (ids < 0) | (ids >= tokenizer.vocab_size)
    if tokenizer is not None and strange.any():
        first = int(np.argmax(strange))
        problem = (
            f"column {source.input_ids}: token {first + 1} is {ids[first]}; the vocabulary of "
            f"data.tokenizer is 0 to {tokenizer.vocab_size - 1}"
        )
        raise row.place.refuse(problem, "name the tokenizer that made the ids")
    learnt = _learnt(row, source, ids)
    classes = None
    if learnt is not None:
        classes = np.where(learnt, TokenClass.COMPLETION, TokenClass.PROMPT).astype(np.uint8)
    return Ready(ids.astype(np.uint32), classes)


def _learnt(row: Row, source: SourceSpec, ids: np.ndarray) -> np.ndarray | None:
    """Which tokens count, None where the recipe names no column that says so."""
    if (column := source.labels or source.loss_mask) is None:
        return None
    said = _numbers(row, column)
    if len(said) != len(ids):
        problem = f"column {column} has {len(said)} numbers, {source.input_ids} has {len(ids)}"
        raise row.place.refuse(problem, "give one for each token")
    if source.labels is not None:
        learnt, sound = said != IGNORED, (said == IGNORED) | (said == ids)
        allowed = f"{IGNORED}, or the token itself, {{}}: labels aren't shifted"
    else:
        learnt, sound = said == 1, (said == 0) | (said == 1)
        allowed = "0 or 1"
    if not sound.all():
        first = int(np.argmin(sound))
        problem = f"column {column}: number {first + 1} is {said[first]}"
        raise row.place.refuse(problem, f"must be {allowed.format(ids[first])}")
    return learnt


def _numbers(row: Row, column: str) -> np.ndarray:
    """The whole numbers of a column, int64 [numbers]; read from JSON where it holds text."""
    found = row.values.get(column)
    if isinstance(found, str | bytes):
        try:
            found = json.loads(found) if found.strip() else None
        except ValueError as error:
            raise _no_numbers(row.place, column, f"text that is no JSON: {error}") from error
    if found is None:
        return np.empty(0, np.int64)
    if not isinstance(found, list):
        raise _no_numbers(row.place, column, type(found).__name__)
    try:
        numbers = np.array(found)
    except (ValueError, OverflowError) as error:
        raise _no_numbers(row.place, column, f"no list of numbers: {error}") from error
    whole: Any = numbers.astype(np.int64) if numbers.dtype.kind in "biuf" else None
    if numbers.ndim != 1 or (len(numbers) and (whole is None or (whole != numbers).any())):
        raise _no_numbers(row.place, column, "other things than whole numbers")
    return np.empty(0, np.int64) if whole is None else whole


def _no_numbers(place: Location, column: str, what: str) -> Exception:
    problem = f"column {column} holds {what}; must be a list of whole numbers"
    return place.refuse(problem, "name another column, or text as column")
