"""Conversations: the text of the template, and who said what."""

import json

import pytest

from metatune.data import TokenClass, tokenizer
from metatune.data.sources import open_source
from metatune.data.sources.chat import conversation
from metatune.data.sources.records import Place
from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import Source

PLACE = Place("data.domains.mine.jsonl", "a.jsonl", "line", 3)
ASK = {"role": "user", "content": "Two times two?"}
ANSWER = {"role": "assistant", "content": "Four."}
AGAIN = {"role": "user", "content": "And three?"}
LAST = {"role": "assistant", "content": "Nine."}
BRIEF = {"role": "system", "content": "Be brief."}
TOOL = {"role": "tool", "content": "4"}


def said(encoder, messages):
    """The pieces of a conversation with their classes."""
    text, spans = conversation(encoder, messages, PLACE)
    begins = [0, *(span.end for span in spans)]
    assert begins[-1] == len(text)
    pieces = zip(spans, begins, begins[1:], strict=False)
    return [(span.role.name, text[begin:end]) for span, begin, end in pieces]


def test_an_answer_begins_where_the_model_would_and_ends_with_its_turn(bpe):
    assert said(bpe, [BRIEF, ASK, ANSWER, AGAIN, LAST]) == [
        ("SYSTEM", "<|im_start|>system\nBe brief.<|im_end|>\n"),
        ("PROMPT", "<|im_start|>user\nTwo times two?<|im_end|>\n"),
        ("PROMPT", "<|im_start|>assistant\n"),
        ("COMPLETION", "Four.<|im_end|>\n"),
        ("PROMPT", "<|im_start|>user\nAnd three?<|im_end|>\n"),
        ("PROMPT", "<|im_start|>assistant\n"),
        ("COMPLETION", "Nine.<|im_end|>\n"),
    ]


def test_other_roles_have_their_classes(bpe):
    roles = [role for role, _ in said(bpe, [ASK, TOOL, ANSWER, {**ASK, "role": "critic"}])]
    assert roles == ["PROMPT", "TOOL", "PROMPT", "COMPLETION", "PROMPT"]


@pytest.fixture(scope="module")
def encoder(request, tokenizer_folder):
    return tokenizer(str(tokenizer_folder(chat_template=request.param)))


# As Qwen 3: an answer is written with its reasoning unless others follow.
THOUGHTFUL = (
    "{% for m in messages %}[{{ m['role'] }}]{% if m['role'] == 'assistant' and loop.last %}"
    "<think></think>{% endif %}{{ m['content'] }}[end]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
# As Llama 2: the system's turn is a part of the user's, and must not stand alone.
MERGED = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% if not messages %}{{ raise_exception('say something') }}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "[INST] {{ system if loop.first }}{{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} <|im_end|>{% endif %}{% endfor %}"
)
# Says backwards what was said.
BACKWARDS = "{% for m in messages | reverse %}{{ m['content'] }}|{% endfor %}"


@pytest.mark.parametrize("encoder", [THOUGHTFUL], indirect=True)
def test_an_answer_that_is_written_otherwise_when_others_follow(encoder):
    assert said(encoder, [ASK, ANSWER, AGAIN, LAST]) == [
        ("PROMPT", "[user]Two times two?[end]"),
        ("PROMPT", "[assistant]"),
        ("COMPLETION", "Four.[end]"),
        ("PROMPT", "[user]And three?[end]"),
        ("PROMPT", "[assistant]"),
        ("COMPLETION", "<think></think>Nine.[end]"),
    ]


@pytest.mark.parametrize("encoder", [MERGED], indirect=True)
def test_a_turn_that_is_not_written_by_itself_belongs_to_the_prompt(encoder):
    pieces = said(encoder, [BRIEF, ASK, ANSWER])
    assert [role for role, _ in pieces if role != "PROMPT"] == ["COMPLETION"]
    assert "".join(text for role, text in pieces if role == "PROMPT") == (
        "[INST] Be brief.Two times two? [/INST]"
    )
    assert pieces[-1] == ("COMPLETION", " Four. <|im_end|>")


@pytest.mark.parametrize("encoder", [BACKWARDS], indirect=True)
def test_a_template_that_leaves_the_answer_open_is_refused(encoder):
    with pytest.raises(RecipeError, match="leaves open where answer, message 2, begins"):
        conversation(encoder, [ASK, ANSWER], PLACE)


@pytest.mark.parametrize("encoder", [MERGED], indirect=True)
def test_what_the_template_refuses_is_said(encoder):
    with pytest.raises(RecipeError, match="line 3: the chat template refuses .*say something"):
        conversation(encoder, [BRIEF], PLACE)


@pytest.mark.parametrize("messages", [[{"content": "x"}], ["x"], "x", [{"role": 1}], {"role": "x"}])
def test_what_is_no_conversation_is_refused(bpe, messages):
    with pytest.raises(RecipeError, match="line 3: doesn't hold messages"):
        conversation(bpe, messages, PLACE)


def test_messages_are_read_from_records(bpe, jsonl, records):
    reader = open_source("mine", Source(jsonl=str(jsonl), messages="chat"), "refuse", bpe)
    assert reader is not None
    for record, expected in zip(reader.records(), records, strict=True):
        begin = record.spans[-2].end
        assert record.text[begin:] == expected["chat"][-1]["content"] + "<|im_end|>\n"
        assert record.spans[-1].role is TokenClass.COMPLETION


def test_messages_need_a_template(tokenizer_folder, jsonl):
    bare = tokenizer(str(tokenizer_folder(chat_template=None)))
    with pytest.raises(RecipeError, match="line 1: needs a tokenizer with a chat template"):
        open_source("mine", Source(jsonl=str(jsonl), messages="chat"), "refuse", bare)


def test_text_in_messages_is_made_sound(bpe, tmp_path):
    file = tmp_path / "a.jsonl"
    chat = [{"role": "user", "content": "half \ud83c"}, ANSWER]
    file.write_text(json.dumps({"chat": chat}))
    source = Source(jsonl=str(file), messages="chat")
    with pytest.raises(RecipeError, match="line 1: column chat isn't UTF-8"):
        open_source("mine", source, "refuse", bpe)
    reader = open_source("mine", source, "replace", bpe)
    assert reader is not None
    (record,) = reader.records()
    assert "half \ufffd" in record.text
    assert record.replaced == 1
