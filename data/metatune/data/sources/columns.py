"""Rows to records: which columns hold what."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from metatune.data.pretrained_tokenizer import PretrainedTokenizer
from metatune.data.sources.chat import conversation
from metatune.data.sources.records import Place, Record, Row, Span, TokenClass
from metatune.data.sources.unicode import Policy, sound
from metatune.data.tokenizers import Tokenizer
from metatune.recipe import schema


def wanted_columns(source: schema.Source) -> tuple[str, ...]:
    """The columns that a source's records are made of."""
    label = () if source.label is None else (source.label,)
    if source.messages is not None:
        return (source.messages, *label)
    if source.prompt is not None and source.completion is not None:
        return (source.prompt, source.completion, *label)
    return (source.column or "text", *label)


def has_classes(source: schema.Source) -> bool:
    """Whether the tokens of a source have classes other than text."""
    return source.messages is not None or source.prompt is not None


def to_records(
    rows: Iterable[Row], source: schema.Source, policy: Policy, tokenizer: Tokenizer | None
) -> Iterator[Record]:
    """The documents that rows hold; one without text is empty.

    Args:
        rows: with the columns that are wanted.
        source: says which columns these are.
        policy: what to do about text that isn't UTF-8.
        tokenizer: whose chat template renders messages.

    Raises:
        RecipeError: a column holds something else than text or messages, or no label.
    """
    for row in rows:
        record = _record(row, source, policy, tokenizer)
        if source.label is not None and record.text:
            record = record._replace(label=_label(row, source.label, policy))
        yield record


def _record(row: Row, source: schema.Source, policy: Policy, tokenizer: Tokenizer | None) -> Record:
    if source.messages is not None:
        return _chat(row, source.messages, policy, tokenizer)
    if source.prompt is not None and source.completion is not None:
        return _answer(row, source.prompt, source.completion, policy)
    text, replaced = _text(row, source.column or "text", policy)
    return Record(text, replaced=replaced)


def _label(row: Row, column: str, policy: Policy) -> str:
    value = row.values[column]
    if isinstance(value, str | bytes) and value:
        return sound(value, policy, row.place, f"column {column}")[0]
    if isinstance(value, bool | int | float):
        return str(value)
    problem = f"column {column} holds {value!r}; must be a label: text, a number, true or false"
    raise row.place.refuse(problem, "give each record one, or take label out")


def _text(row: Row, column: str, policy: Policy) -> tuple[str, int]:
    value = row.values[column]
    if value is None:
        return "", 0
    if not isinstance(value, str | bytes):
        problem = f"column {column} holds {type(value).__name__}; must be text"
        raise row.place.refuse(problem, "name another column")
    return sound(value, policy, row.place, f"column {column}")


def _answer(row: Row, prompt: str, completion: str, policy: Policy) -> Record:
    """A prompt with its completion behind it, nothing in between; empty without a completion."""
    asked, first = _text(row, prompt, policy)
    answered, second = _text(row, completion, policy)
    if not answered:
        return Record("")
    whole = asked + answered
    spans = (
        Span(TokenClass.PROMPT, len(asked)),
        Span(TokenClass.COMPLETION, len(whole)),
    )
    return Record(whole, spans, first + second)


def _chat(row: Row, column: str, policy: Policy, tokenizer: Tokenizer | None) -> Record:
    messages = row.values[column]
    if not messages:
        return Record("")
    if not isinstance(tokenizer, PretrainedTokenizer) or tokenizer.chat_template is None:
        problem = "needs a tokenizer with a chat template"
        raise row.place.refuse(problem, "name another data.tokenizer, or other columns")
    counts: list[int] = []
    sounded = _sounded(messages, policy, row.place, column, counts)
    text, spans = conversation(tokenizer, sounded, row.place)
    # A template may write the same messages otherwise: of another day, or of another tokenizer.
    origin = json.dumps(sounded, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Record(text, spans, sum(counts), origin=origin)


def _sounded(value: Any, policy: Policy, place: Place, column: str, counts: list[int]) -> Any:
    """A copy of `value` with all text in it made sound; counts of replacements are appended."""
    if isinstance(value, str):
        text, replaced = sound(value, policy, place, f"column {column}")
        counts.append(replaced)
        return text
    if isinstance(value, dict):
        pairs = value.items()
        return {key: _sounded(item, policy, place, column, counts) for key, item in pairs}
    if isinstance(value, list):
        return [_sounded(item, policy, place, column, counts) for item in value]
    return value
