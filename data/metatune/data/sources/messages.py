"""Conversations in one form, whatever form their records have: a list of {role, content}.

Known are messages of {role, content}, those of ShareGPT, {from, value}, and content in parts.
"""

from collections.abc import Mapping
from typing import Any, Final

from metatune.data.sources.records import Location

SENDERS: Final[Mapping[str, str]] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""The roles of those whom ShareGPT's `from` names."""

FORMS: Final = (
    "a message is {role: user or assistant ..., content: text}, or {from: ..., value: text}"
)


def in_one_form(messages: list[Any], place: Location, column: str) -> list[dict[str, Any]]:
    """The messages of a conversation.

    Args:
        messages: what the column holds, in normal form.
        place: for errors.
        column: that holds it.

    Raises:
        RecipeError: these are no messages, or they hold something else than text.
    """
    return [
        _message(message, f"column {column}: message {number}", place)
        for number, message in enumerate(messages, 1)
    ]


def _message(message: Any, what: str, place: Location) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise place.refuse(f"{what} is {type(message).__name__}", FORMS)
    if "role" not in message and "from" in message:
        sender = message["from"]
        if sender not in SENDERS:
            problem = f"{what} is from {sender!r}; must be one of {', '.join(SENDERS)}"
            raise place.refuse(problem, "write its role as role, and its text as content")
        others = {key: its for key, its in message.items() if key not in ("from", "value")}
        message = {"role": SENDERS[sender], "content": message.get("value"), **others}
    if not isinstance(message.get("role"), str):
        raise place.refuse(f"{what} has no role; it has {', '.join(message) or 'nothing'}", FORMS)
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_text(part, what, place) for part in content)
    elif content is not None and not isinstance(content, str):
        problem = f"{what} has a content that is {type(content).__name__}"
        raise place.refuse(problem, "must be text, or a list of parts {type: text, text: ...}")
    # One that is null isn't there, as `transformers` has it for templates.
    others = {key: its for key, its in message.items() if key != "content"}
    return others if content is None else {**message, "content": content}


def _text(part: Any, what: str, place: Location) -> str:
    """The text of a part of a content; templates write one behind the other."""
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind != "text" or not isinstance(part.get("text"), str):
        problem = f"{what} has a part of type {kind}; only parts of text can be read"
        raise place.refuse(problem, "write {type: text, text: ...}, or take the record out")
    return part["text"]
