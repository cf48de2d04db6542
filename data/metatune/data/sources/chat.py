"""Conversations as text, by a tokenizer's chat template, with the role of each part.

A template is a program, so which part of its text a message became is never searched for: where the
template marks what the model writes (`{% generation %}`), its marks are taken, as `transformers`
takes them for `return_assistant_tokens_mask`. Elsewhere the conversation is rendered turn by turn,
and where a turn ends is a position in such a text. What stays open is refused. Templates run in a
sandbox of `transformers`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from os.path import commonprefix
from typing import Any, Final

from metatune.data.pretrained_tokenizer import PretrainedTokenizer
from metatune.data.sources.records import ClassSpan, Location, TokenClass

ROLES: Final[Mapping[str, TokenClass]] = {
    "system": TokenClass.SYSTEM,
    "developer": TokenClass.SYSTEM,
    "user": TokenClass.PROMPT,
    "assistant": TokenClass.COMPLETION,
    "tool": TokenClass.TOOL,
}
"""Other roles count as prompt."""

CURE: Final = "take the record out, or give prompt and completion columns"

RANDOM: Final = re.compile(r"\|\s*random\b")
"""The filter of Jinja that draws, from a generator that can't be seeded."""

MARK: Final = "\ue000"
"""A private character of Unicode, to find a message's end by; no text may hold it then."""

Stretch = tuple[int, int]
"""From a character up to, not including, another."""


def conversation(
    tokenizer: PretrainedTokenizer, messages: Any, place: Location
) -> tuple[str, tuple[ClassSpan, ...]]:
    """The text of a conversation, and its spans.

    An answer is what the template marks as such. Where it has no marks, an answer begins where the
    template would let the model begin, and ends with what ends the turn. A turn that the template
    doesn't write by itself (as where the system's is put into the user's) belongs to the prompt of
    the next answer.

    Args:
        tokenizer: whose template it is.
        messages: mappings with `role` and `content`.
        place: for errors.

    Raises:
        RecipeError: these are no messages, the template refuses them, draws at random, or leaves
            open which part of its text is an answer.
    """
    if not _are_messages(messages):
        problem = "doesn't hold messages"
        raise place.refuse(problem, "a message is {role: user or assistant ..., content: text}")
    if RANDOM.search(tokenizer.chat_template or ""):
        raise place.refuse("the chat template draws at random", "give the tokenizer another one")
    chat = _Chat(tokenizer, messages, place)
    if tokenizer.marks_answers:
        return chat.whole, tuple(_overlaid(chat.turns(), chat.marks))
    return chat.whole, tuple(chat.answered())


class _Chat:
    """A conversation that is being rendered."""

    def __init__(self, tokenizer: PretrainedTokenizer, messages: Sequence[Any], place: Location):
        self._tokenizer = tokenizer
        self._messages = messages
        self._place = place
        whole, refusal = self._rendered(messages)
        if whole is None:
            raise place.refuse(f"the chat template refuses the messages: {refusal}", CURE)
        self.whole: str = whole

    @property
    def marks(self) -> Sequence[Stretch]:
        """What the template marks as answers, in order."""
        return self._tokenizer.answers(self._messages)

    def turns(self) -> Iterator[ClassSpan]:
        """The turns, as far as they can be told apart; answers as prompts."""
        before, end = "", 0
        for index, message in enumerate(self._messages):
            found, before = self._end(index, end, before)
            if found is not None and found > end:
                end = found
                role = ROLES.get(message["role"], TokenClass.PROMPT)
                yield ClassSpan(TokenClass.PROMPT if role is TokenClass.COMPLETION else role, end)
        if end < len(self.whole):
            yield ClassSpan(TokenClass.PROMPT, len(self.whole))

    def answered(self) -> Iterator[ClassSpan]:
        """The turns of a template without marks, answers between their prompts.

        Raises:
            RecipeError: where an answer begins or ends is open.
        """
        before, end = "", 0
        for index, message in enumerate(self._messages):
            role = ROLES.get(message["role"], TokenClass.PROMPT)
            answer = role is TokenClass.COMPLETION
            if answer and index:
                begin = self._begin(index, end, before)
                if begin is None:
                    raise self._place.refuse(_unclear(index, "begins"), CURE)
                if begin > end:
                    yield ClassSpan(TokenClass.PROMPT, begin)
                    end = begin
            found, before = self._end(index, end, before)
            if answer and (found is None or found <= end):
                raise self._place.refuse(_unclear(index, "ends"), CURE)
            if found is not None and found > end:
                yield ClassSpan(role, found)
                end = found
        if end < len(self.whole):
            yield ClassSpan(TokenClass.PROMPT, len(self.whole))

    def _begin(self, index: int, end: int, before: str) -> int | None:
        """Where an answer begins.

        Args:
            index: of its message.
            end: of the turn before it, in the whole.
            before: the text of the messages before it alone; empty where the template refuses it.
        """
        asked, _ = self._rendered(self._messages[:index], generation_prompt=True)
        if asked is None:
            return None
        if self.whole.startswith(asked) and len(asked) >= end:
            return len(asked)
        if not before or not asked.startswith(before):
            return None
        header = asked[len(before) :]
        return end + len(header) if header and self.whole.startswith(header, end) else None

    def _end(self, index: int, begin: int, before: str) -> tuple[int | None, str]:
        """Where a turn ends in the whole, and the text of the messages up to it alone.

        Some templates write a turn otherwise when others follow: they drop the reasoning of an
        answer, or what ends the conversation.

        Args:
            index: of its message.
            begin: where it begins, or a turn before it that can't be told apart.
            before: the text of the messages before it alone.
        """
        alone, _ = self._rendered(self._messages[: index + 1])
        if alone is None:
            return None, ""
        if self.whole.startswith(alone) and len(alone) >= begin:
            return len(alone), alone
        if before and alone.startswith(before):
            turn = alone[len(before) :]
            if turn and self.whole.startswith(turn, begin):
                return begin + len(turn), alone
        return self._marked_end(index, begin), alone

    def _marked_end(self, index: int, begin: int) -> int | None:
        """Where a turn ends, by a mark behind its content.

        The mark must not change anything else that the template writes. What closes the turn is
        what follows the mark in the text of the messages up to it alone; if the whole goes on
        otherwise, the turn ends with the last of the added tokens that both have.
        """
        marked = _marked(self._messages[index])
        if marked is None or MARK in self.whole:
            return None
        first, last = self._messages[:index], self._messages[index + 1 :]
        whole, _ = self._rendered([*first, marked, *last])
        alone, _ = self._rendered([*first, marked])
        if whole is None or alone is None or whole.count(MARK) != 1 or alone.count(MARK) != 1:
            return None
        at = whole.index(MARK)
        if at < begin or whole.replace(MARK, "") != self.whole:
            return None
        closing = alone.partition(MARK)[2]
        same = commonprefix([closing, self.whole[at:]])
        if same == closing:
            return at + len(closing)
        edge = self._tokenizer.added_token_at(self.whole, at + len(same))
        return edge if edge is not None and edge > at else None

    def _rendered(
        self, messages: Sequence[Any], *, generation_prompt: bool = False
    ) -> tuple[str | None, str]:
        """The text of messages, or None and why the template refuses them."""
        import jinja2

        if not messages:
            return None, "no messages"
        try:
            return self._tokenizer.render(messages, generation_prompt=generation_prompt), ""
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            return None, (str(error).splitlines() or [type(error).__name__])[0]


def _unclear(index: int, does: str) -> str:
    return f"the chat template leaves open where answer, message {index + 1}, {does}"


def _are_messages(messages: Any) -> bool:
    return (
        isinstance(messages, Sequence)
        and len(messages) > 0
        and all(isinstance(m, Mapping) and isinstance(m.get("role"), str) for m in messages)
    )


def _marked(message: Mapping[str, Any]) -> dict[str, Any] | None:
    """The message with a mark behind its last character but blanks; None where it has no text."""
    content = message.get("content")
    if isinstance(content, str) and content.strip():
        kept = len(content.rstrip())
        return {**message, "content": content[:kept] + MARK + content[kept:]}
    if isinstance(content, Sequence) and not isinstance(content, str) and content:
        *others, part = content
        if isinstance(part, Mapping) and isinstance(part.get("text"), str) and part["text"].strip():
            kept = len(part["text"].rstrip())
            text = part["text"][:kept] + MARK + part["text"][kept:]
            return {**message, "content": [*others, {**part, "text": text}]}
    return None


def _overlaid(turns: Iterator[ClassSpan], answers: Sequence[Stretch]) -> Iterator[ClassSpan]:
    """Spans with the answers cut out of them."""
    begin, rest = 0, [answer for answer in answers if answer[0] < answer[1]]
    for turn in turns:
        while begin < turn.end:
            if not rest or rest[0][0] >= turn.end:
                yield ClassSpan(turn.role, turn.end)
                begin = turn.end
            elif rest[0][0] > begin:
                yield ClassSpan(turn.role, rest[0][0])
                begin = rest[0][0]
            else:
                stop = min(rest[0][1], turn.end)
                yield ClassSpan(TokenClass.COMPLETION, stop)
                begin = stop
                if stop == rest[0][1]:
                    rest.pop(0)
