"""Conversations: the text of the template, and who said what."""

import datetime
import json
import random
import re

import pytest

from metatune.data import TokenClass, load, tokenizer_of
from metatune.data.pretrained_tokenizer import PretrainedTokenizer, load_pretrained
from metatune.data.sources import open_source
from metatune.data.sources.chat import conversation
from metatune.data.sources.records import Location, Record
from metatune.data.tokenized import _encoded
from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import DataSpec, SourceSpec

PLACE = Location("data.domains.mine.jsonl", "a.jsonl", "line", 3)
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
    return load_pretrained(str(tokenizer_folder(chat_template=request.param)))


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
    reader = open_source("mine", SourceSpec(jsonl=str(jsonl), messages="chat"), "refuse", bpe)
    assert reader is not None
    for record, expected in zip(reader.records(), records, strict=True):
        begin = record.spans[-2].end
        assert record.text[begin:] == expected["chat"][-1]["content"] + "<|im_end|>\n"
        assert record.spans[-1].role is TokenClass.COMPLETION


def test_messages_need_a_template(tokenizer_folder, jsonl):
    bare = load_pretrained(str(tokenizer_folder(chat_template=None)))
    with pytest.raises(RecipeError, match="line 1: needs a tokenizer with a chat template"):
        open_source("mine", SourceSpec(jsonl=str(jsonl), messages="chat"), "refuse", bare)


def test_text_in_messages_is_made_sound(bpe, tmp_path):
    file = tmp_path / "a.jsonl"
    chat = [{"role": "user", "content": "half \ud83c"}, ANSWER]
    file.write_text(json.dumps({"chat": chat}))
    source = SourceSpec(jsonl=str(file), messages="chat")
    with pytest.raises(RecipeError, match="line 1: column chat isn't UTF-8"):
        open_source("mine", source, "refuse", bpe)
    reader = open_source("mine", source, "replace", bpe)
    assert reader is not None
    (record,) = reader.records()
    assert "half \ufffd" in record.text
    assert record.replaced == 1


# Four ways to mark what the model writes: all of them drop or trim something.
MARKED = {
    "newline_outside": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>"
        "{% endgeneration %}{{ '\n' }}{% else %}{{ m['content'] }}<|im_end|>{{ '\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "newline_inside": (
        "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\n' }}"
        "{%- if m['role'] == 'assistant' %}{%- generation %}{{- m['content'] + '<|im_end|>\n' }}"
        "{%- endgeneration %}{%- else %}{{- m['content'] + '<|im_end|>\n' }}{%- endif %}"
        "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    ),
    "drops_reasoning": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' %}{% generation %}"
        "{{ m['content'] if loop.last else m['content'].split('</think>')[-1].lstrip() }}"
        "<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "trims": (
        "{% for m in messages %}{{ '[' + m['role'] + ']' }}{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] | trim }}<|end|>{% endgeneration %}"
        "{% else %}{{ m['content'] | trim }}{% endif %}{% endfor %}"
        "{{ '[assistant]' if add_generation_prompt }}"
    ),
}
TEXTS = ["Yes.", "<think>\nhm\n</think>\n\nYes.", "no \n", " 漢🙂é", "user", "[assistant]x"]


def on(day, folder):
    """The tokenizer of a folder, whose template is told a day."""
    data = DataSpec({"d": SourceSpec(path="-")}, {"d": 1.0}, 8, 1, tokenizer=str(folder), date=day)
    encoder = tokenizer_of(data, today=datetime.date(2020, 1, 1))
    assert isinstance(encoder, PretrainedTokenizer)
    return encoder


def chats():
    """Conversations with the same answers again and again."""
    draw = random.Random(5)
    for _ in range(60):
        turns = [BRIEF] if draw.random() < 0.5 else []
        for _ in range(draw.randint(1, 3)):
            turns.append({"role": "user", "content": draw.choice(TEXTS)})
            turns.append({"role": "assistant", "content": draw.choice(TEXTS)})
        yield turns


def completion(encoder, messages):
    """Whether each token counts as completion."""
    text, spans = conversation(encoder, messages, PLACE)
    (document,) = _encoded([Record(text, spans)], encoder, True)
    (placed,) = encoder.place_batch([text])
    assert document.classes is not None
    return (document.classes[: len(placed.ids)] == TokenClass.COMPLETION).astype(int).tolist()


@pytest.mark.parametrize("template", MARKED)
def test_what_a_template_marks_is_what_transformers_masks(tokenizer_folder, template):
    encoder = load_pretrained(str(tokenizer_folder(chat_template=MARKED[template])))
    for messages in chats():
        theirs = encoder.fast.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        assert completion(encoder, messages) == theirs["assistant_masks"]


@pytest.mark.parametrize("template", ["newline_inside", "drops_reasoning", "trims"])
def test_without_marks_the_same_answers_are_found_turn_by_turn(tokenizer_folder, template):
    marked = MARKED[template]
    bare = re.sub(r"\{%(-?) (end)?generation %\}", "", marked)
    one, other = (
        load_pretrained(str(tokenizer_folder(chat_template=text))) for text in (marked, bare)
    )
    assert one.marks_answers and not other.marks_answers
    for messages in chats():
        assert completion(other, messages) == completion(one, messages)


def test_an_answer_that_is_given_twice_is_not_found_where_it_stands_first(tokenizer_folder):
    bare = re.sub(r"\{% (end)?generation %\}", "", MARKED["drops_reasoning"])
    encoder = load_pretrained(str(tokenizer_folder(chat_template=bare)))
    yes = {"role": "assistant", "content": "<think>\n\n</think>\n\nYes."}
    asked = {"role": "user", "content": "Yes."}
    assert said(encoder, [asked, yes, asked, yes]) == [
        ("PROMPT", "<|im_start|>user\nYes.<|im_end|>"),
        ("PROMPT", "<|im_start|>assistant\n"),
        ("COMPLETION", "Yes.<|im_end|>"),
        ("PROMPT", "<|im_start|>user\nYes.<|im_end|>"),
        ("PROMPT", "<|im_start|>assistant\n"),
        ("COMPLETION", "<think>\n\n</think>\n\nYes.<|im_end|>"),
    ]


def test_a_template_that_draws_at_random_is_refused(tokenizer_folder):
    drawn = load_pretrained(str(tokenizer_folder(chat_template="{{ ['a', 'b'] | random }}")))
    with pytest.raises(RecipeError, match="the chat template draws at random"):
        conversation(drawn, [ASK], PLACE)


# As Llama 3's, SmolLM3's and gpt-oss's do; with a line break that a prefix must not swallow.
DATED = "\n  {% if true %}{{ '100%% ' + strftime_now('%A, %-d %B %Y, %%d') }}|{% endif %}\n"


class Friday(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 3, 6)


def test_the_date_is_that_of_the_recipe(tokenizer_folder, monkeypatch):
    encoder = on("2026-03-06", tokenizer_folder(chat_template=DATED + MARKED["newline_inside"]))
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Friday)
    theirs = encoder.fast.apply_chat_template([ASK, ANSWER], tokenize=False)
    assert theirs.startswith("\n100%% Friday, 6 March 2026, %d|")
    ours, _ = conversation(encoder, [ASK, ANSWER], PLACE)
    assert ours == theirs


@pytest.mark.parametrize("directive", [*"aAbBcdGHIjmMpSuUVwWxXyY", "-d", "-m", "-H"])
def test_a_day_is_said_as_the_clock_says_it(tokenizer_folder, directive):
    template = f"{{{{ strftime_now('<%{directive}>') }}}}"
    text, _ = conversation(on("2026-03-06", tokenizer_folder(chat_template=template)), [ASK], PLACE)
    assert text == datetime.datetime(2026, 3, 6).strftime(f"<%{directive}>")


def splits(data, encoder):
    """The documents of each split, without their dates."""
    (domain,) = load(data, encoder).domains
    found = {}
    for split in ("train", "validation", "test"):
        stream = getattr(domain, split).stream
        ends = [*stream.starts[1:], len(stream.tokens)]
        texts = [
            encoder.decode(stream.tokens[a:b]) for a, b in zip(stream.starts, ends, strict=True)
        ]
        found[split] = {text.partition("|")[2] for text in texts}
    return found, domain.sha256


def test_a_conversation_stays_in_its_split_on_another_day(cache, tokenizer_folder, jsonl):
    folder = str(tokenizer_folder(chat_template=DATED + MARKED["newline_inside"]))
    domains = {"d": SourceSpec(jsonl=str(jsonl), messages="chat")}
    found = []
    for day in ("2026-03-01", "2026-03-02"):
        data = DataSpec(domains, {"d": 1.0}, 16, 2, tokenizer=folder, date=day)
        found.append(splits(data, tokenizer_of(data)))
    (first, one), (second, other) = found
    assert first == second
    assert all(first.values())
    assert one != other  # the text is another: so is its hash
