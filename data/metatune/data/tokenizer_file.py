"""A tokenizer's file, looked at before the library reads it: a malformed one can end the process.

What is checked is what the library takes for granted: that ids are small whole numbers, that
merges are pairs, and that the parts are objects. Whether it is a good tokenizer is for the library
to say.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from metatune.recipe.bounds import read_json

FILE: Final = "tokenizer.json"
MOST_BYTES: Final = 256 * 2**20
MOST_VALUES: Final = 50_000_000
LARGEST_ID: Final = 2**24
MODELS: Final = ("BPE", "Unigram", "WordLevel", "WordPiece")
PARTS: Final = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding")


def problem_of(folder: Path) -> str | None:
    """What is wrong with a folder's tokenizer.json, in words; None if nothing is, or there is none.

    Args:
        folder: of the tokenizer.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        document = read_json(file, MOST_BYTES, MOST_VALUES)
    except (OSError, ValueError) as error:
        return f"{FILE} can't be read: {error}"
    return next(_problems(document), None)


def _problems(document: Any) -> Iterator[str]:
    if not isinstance(document, Mapping) or not isinstance(document.get("model"), Mapping):
        yield f"{FILE} has no model"
        return
    for part in PARTS:
        if not isinstance(document.get(part), Mapping | None):
            yield f"{FILE}: {part} is no object"
    added = document.get("added_tokens") or []
    if not isinstance(added, list):
        yield f"{FILE}: added_tokens is no list"
        return
    for token in added:
        if not (
            isinstance(token, Mapping)
            and _is_id(token.get("id"))
            and isinstance(token.get("content"), str)
            and token["content"]
        ):
            yield f"{FILE}: added_tokens has {token!r:.60}, which is no {{id, content}}"
    yield from _model_problems(document["model"])


def _model_problems(model: Mapping[str, Any]) -> Iterator[str]:
    kind, vocabulary = model.get("type", "BPE"), model.get("vocab")
    if kind not in MODELS:
        yield f"{FILE}: model.type is {kind!r:.60}; must be one of {', '.join(MODELS)}"
    elif kind == "Unigram":
        if not isinstance(vocabulary, list) or not all(
            isinstance(entry, list)
            and len(entry) == 2
            and isinstance(entry[0], str)
            and isinstance(entry[1], int | float)
            for entry in vocabulary
        ):
            yield f"{FILE}: model.vocab is no list of tokens with their scores"
        elif not (model.get("unk_id") is None or _is_id(model["unk_id"], len(vocabulary))):
            yield f"{FILE}: model.unk_id is {model['unk_id']!r:.60}, not one of its tokens"
    elif not isinstance(vocabulary, Mapping) or not all(map(_is_id, vocabulary.values())):
        yield f"{FILE}: model.vocab doesn't give each token a whole number below {LARGEST_ID:,}"
    elif kind == "BPE":
        yield from _merge_problems(model.get("merges"), vocabulary)


def _merge_problems(merges: Any, vocabulary: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(merges, list):
        yield f"{FILE}: model.merges is no list"
        return
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and all(isinstance(each, str) for each in pair)
        ):
            yield f"{FILE}: model.merges has {merge!r:.60}, which is no pair of tokens"
            return


def _is_id(value: Any, most: int = LARGEST_ID) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < most
