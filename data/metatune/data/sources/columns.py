"""Rows to records: which columns hold what, in their normal form."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from metatune.data.pretrained_tokenizer import PretrainedTokenizer
from metatune.data.sources.chat import conversation
from metatune.data.sources.messages import in_one_form
from metatune.data.sources.normal import normal, normal_list, spelled
from metatune.data.sources.ready import ready_tokens
from metatune.data.sources.records import ClassSpan, Record, Row, TokenClass
from metatune.data.sources.unicode import Policy
from metatune.data.tokenizers import Tokenizer
from metatune.recipe import schema


def wanted_columns(source: schema.SourceSpec) -> tuple[str, ...]:
    """The columns that a source's records are made of, each once."""
    if source.input_ids is not None:
        columns = (source.input_ids, source.labels, source.loss_mask)
    elif source.messages is not None:
        columns = (source.messages,)
    elif source.prompt is not None and source.completion is not None:
        columns = (source.prompt, source.completion)
    else:
        columns = (source.column or "text",)
    return tuple(dict.fromkeys(each for each in (*columns, source.label) if each is not None))


def has_classes(source: schema.SourceSpec) -> bool:
    """Whether the tokens of a source have classes other than text."""
    said = (source.messages, source.prompt, source.labels, source.loss_mask)
    return any(column is not None for column in said)


def to_records(
    rows: Iterable[Row], source: schema.SourceSpec, policy: Policy, tokenizer: Tokenizer | None
) -> Iterator[Record]:
    """The documents that rows hold; one without text is empty.

    Args:
        rows: with the columns that are wanted; one that a row lacks is null.
        source: says which columns these are.
        policy: what to do about text that isn't UTF-8.
        tokenizer: whose chat template renders messages, and whose ids ready tokens are.

    Raises:
        RecipeError: a column holds something else than what it should, or no label.
    """
    for row in rows:
        record = _record(row, source, policy, tokenizer)
        if source.label is not None and not record.empty:
            record = record._replace(label=_label(row, source.label, policy))
        yield record


def _record(
    row: Row, source: schema.SourceSpec, policy: Policy, tokenizer: Tokenizer | None
) -> Record:
    if source.input_ids is not None:
        return Record("", ready=ready_tokens(row, source, tokenizer))
    if source.messages is not None:
        messages, replaced = _messages(row, source.messages, policy)
        return _chat(row, messages, replaced, tokenizer)
    if source.prompt is not None and source.completion is not None:
        return _answer(row, source.prompt, source.completion, policy, tokenizer)
    text, replaced = _text(row, source.column or "text", policy)
    return Record(text, replaced=replaced)


def _label(row: Row, column: str, policy: Policy) -> str:
    value, _ = normal(row.values.get(column), policy, row.place, f"column {column}")
    if (label := spelled(value)) is not None:
        return label
    problem = f"column {column} holds {value!r}; must be a label: text, a number, true or false"
    raise row.place.refuse(problem, "give each record one, or take label out")


def _text(row: Row, column: str, policy: Policy) -> tuple[str, int]:
    value, replaced = normal(row.values.get(column), policy, row.place, f"column {column}")
    if value is None:
        return "", 0
    if not isinstance(value, str):
        problem = f"column {column} holds {type(value).__name__}; must be text"
        raise row.place.refuse(problem, "name another column")
    return value, replaced


def _answer(
    row: Row, prompt: str, completion: str, policy: Policy, tokenizer: Tokenizer | None
) -> Record:
    """A prompt with its completion behind it, nothing in between; empty without a completion."""
    conversational = [
        isinstance(row.values.get(each), list | tuple) for each in (prompt, completion)
    ]
    if any(conversational):
        return _conversational_answer(row, prompt, completion, policy, tokenizer)
    asked, first = _text(row, prompt, policy)
    answered, second = _text(row, completion, policy)
    if not answered:
        return Record("")
    whole = asked + answered
    spans = (
        ClassSpan(TokenClass.PROMPT, len(asked)),
        ClassSpan(TokenClass.COMPLETION, len(whole)),
    )
    return Record(whole, spans, first + second)


def _conversational_answer(
    row: Row, prompt: str, completion: str, policy: Policy, tokenizer: Tokenizer | None
) -> Record:
    """A conversation of which only the messages in `completion` are answers to learn.

    Answers before them, in `prompt`, are of class prompt.
    """
    for column in (prompt, completion):
        if isinstance(row.values.get(column), str | bytes):
            problem = f"column {column} holds text, and the other one messages"
            raise row.place.refuse(problem, "give text or messages in both prompt and completion")
    asked, first = _messages(row, prompt, policy)
    answered, second = _messages(row, completion, policy)
    if not answered:
        return Record("")
    if answered[0]["role"] != "assistant":
        problem = f"column {completion} begins with role {answered[0]['role']!r}"
        raise row.place.refuse(problem, "must begin with an answer, role assistant")
    record = _chat(row, asked + answered, first + second, tokenizer)
    begin = _begin(row, asked, record.text, tokenizer)
    spans = [
        span._replace(role=TokenClass.PROMPT)
        if span.role is TokenClass.COMPLETION and span.end <= begin
        else span
        for span in record.spans
    ]
    return record._replace(spans=tuple(spans))


def _begin(row: Row, asked: list[dict[str, Any]], whole: str, tokenizer: Tokenizer | None) -> int:
    """Where the answers to learn begin in a conversation: behind the rendered prompt."""
    if not asked or not isinstance(tokenizer, PretrainedTokenizer):
        return 0
    rendered = tokenizer.render(asked, generation_prompt=True)
    if not whole.startswith(rendered):
        problem = "the chat template leaves open where the completion begins"
        raise row.place.refuse(problem, "give the whole conversation as messages")
    return len(rendered)


def _messages(row: Row, column: str, policy: Policy) -> tuple[list[dict[str, Any]], int]:
    found, replaced = normal_list(row.values.get(column), policy, row.place, f"column {column}")
    return in_one_form(found, row.place, column), replaced


def _chat(
    row: Row, messages: list[dict[str, Any]], replaced: int, tokenizer: Tokenizer | None
) -> Record:
    if not messages:
        return Record("")
    if not isinstance(tokenizer, PretrainedTokenizer) or tokenizer.chat_template is None:
        problem = "needs a tokenizer with a chat template"
        raise row.place.refuse(problem, "name another data.tokenizer, or other columns")
    text, spans = conversation(tokenizer, messages, row.place)
    # A template may write the same messages otherwise: of another day, or of another tokenizer.
    origin = json.dumps(messages, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Record(text, spans, replaced, rendered=True, origin=origin)
