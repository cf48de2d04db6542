"""Conversations as text, by a tokenizer's chat template, with the role of each part.

A template is a program: which part of its text a message became is found by rendering the
beginnings of the conversation. Templates run in a sandbox of `transformers`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from metatune.data.pretrained_tokenizer import PretrainedTokenizer
from metatune.data.sources.records import Place, Span, TokenClass

ROLES: Final[Mapping[str, TokenClass]] = {
    "system": TokenClass.SYSTEM,
    "developer": TokenClass.SYSTEM,
    "user": TokenClass.PROMPT,
    "assistant": TokenClass.COMPLETION,
    "tool": TokenClass.TOOL,
}
"""Other roles count as prompt."""


def conversation(
    tokenizer: PretrainedTokenizer, messages: Any, place: Place
) -> tuple[str, tuple[Span, ...]]:
    """The text of a conversation, and its spans.

    An answer begins where the template would let the model begin, and ends with what ends the
    turn. A turn that the template doesn't write by itself (as where the system's is put into the
    user's) belongs to the prompt of the next answer.

    Args:
        tokenizer: whose template it is.
        messages: mappings with `role` and `content`.
        place: for errors.

    Raises:
        RecipeError: these are no messages, the template refuses them, or it leaves open which part
            of its text is an answer.
    """
    if not _are_messages(messages):
        problem = "doesn't hold messages"
        raise place.refuse(problem, "a message is {role: user or assistant ..., content: text}")
    whole, refusal = _rendered(tokenizer, messages)
    if whole is None:
        raise place.refuse(f"the chat template refuses the messages: {refusal}", CURE)
    spans: list[Span] = []
    for index, message in enumerate(messages):
        role = ROLES.get(message["role"], TokenClass.PROMPT)
        answer = role is TokenClass.COMPLETION
        if answer and index:
            asked, _ = _rendered(tokenizer, messages[:index], generation_prompt=True)
            if asked is None or not whole.startswith(asked):
                raise place.refuse(_unclear(index, "begins"), CURE)
            spans.append(Span(TokenClass.PROMPT, len(asked)))
        end = _end(tokenizer, messages[: index + 1], whole, spans[-1].end if spans else 0)
        if end is not None:
            spans.append(Span(role, end))
        elif answer:
            raise place.refuse(_unclear(index, "ends"), CURE)
    if not spans or spans[-1].end < len(whole):
        spans.append(Span(TokenClass.PROMPT, len(whole)))
    return whole, tuple(spans)


CURE: Final = "take the record out, or give prompt and completion columns"


def _unclear(index: int, does: str) -> str:
    return f"the chat template leaves open where answer, message {index + 1}, {does}"


def _are_messages(messages: Any) -> bool:
    return (
        isinstance(messages, Sequence)
        and len(messages) > 0
        and all(isinstance(m, Mapping) and isinstance(m.get("role"), str) for m in messages)
    )


def _rendered(
    tokenizer: PretrainedTokenizer, messages: Any, *, generation_prompt: bool = False
) -> tuple[str | None, str]:
    """The text of messages, or None and why the template refuses them."""
    import jinja2

    try:
        return tokenizer.render(messages, generation_prompt=generation_prompt), ""
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        return None, str(error).splitlines()[0]


def _end(
    tokenizer: PretrainedTokenizer, messages: Sequence[Any], whole: str, begin: int
) -> int | None:
    """Where the last of `messages`, which begins at `begin` or later, ends in the whole text.

    Some templates write an answer otherwise when others follow (they drop its reasoning): then it
    ends with its content and what follows that in the text of `messages` alone.
    """
    alone, _ = _rendered(tokenizer, messages)
    if alone is None:
        return None
    if whole.startswith(alone) and len(alone) >= begin:
        return len(alone)
    content = messages[-1].get("content")
    if not isinstance(content, str) or not content.strip():
        return None
    content = content.strip()
    found, closing = whole.find(content, begin), alone.rpartition(content)[2]
    end = found + len(content) + len(closing)
    return end if found >= 0 and whole[:end].endswith(content + closing) else None
