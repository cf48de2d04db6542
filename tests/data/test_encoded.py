"""What begins and ends a document, as `transformers` has it."""

import json

import pytest
from tokenizers import processors

from metatune.data import ByteTokenizer, TokenClass, look, tokenizer
from metatune.data.encoded import Bos, encoded
from metatune.data.sources import ClassSpan, Record, open_source
from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import DataSpec, SourceSpec

SAYS_BOS = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SAYS_NONE = SAYS_BOS.removeprefix("{{ bos_token }}")
BOS = "<|end|>"  # of these tokenizers
CHAT = [{"role": "user", "content": "two"}, {"role": "assistant", "content": "words"}]
ANSWERED = Record(
    "two words", (ClassSpan(TokenClass.PROMPT, 4), ClassSpan(TokenClass.COMPLETION, 9))
)


@pytest.fixture(scope="module")
def make(tokenizer_folder):
    """A tokenizer that puts a token before a text, or doesn't."""

    def make(adds, chat_template=SAYS_NONE):
        from transformers import AutoTokenizer

        folder = tokenizer_folder(
            chat_template=chat_template, eos_token="<|im_end|>", bos_token=BOS
        )
        if adds:
            fast = AutoTokenizer.from_pretrained(folder)
            number = fast.convert_tokens_to_ids(BOS)
            fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{BOS} $A", special_tokens=[(BOS, number)]
            )
            fast.save_pretrained(folder)
        return tokenizer(str(folder))

    return make


def tokens(encoder, record, bos: Bos = "auto"):
    (document,) = encoded([record], encoder, bool(record.spans), bos)
    if record.spans:
        assert document.classes is not None
        assert len(document.classes) == len(document.tokens)
    return document.tokens.tolist()


def chat(encoder, tmp_path):
    """The record of a conversation."""
    file = tmp_path / "chat.jsonl"
    file.write_text(json.dumps({"m": CHAT}))
    reader = open_source("mine", SourceSpec(jsonl=str(file), messages="m"), "refuse", encoder)
    assert reader is not None
    (record,) = reader.records()
    return record


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("text", ["two words", "<|end|>two words", "words<|im_end|>", "<|end|>"])
def test_text_begins_as_the_tokenizer_has_it_and_ends_once(make, adds, text):
    encoder = make(adds)
    assert (encoder.adds_bos, encoder.bos_id) == (adds, 0)
    truth = encoder.fast(text)["input_ids"]
    if truth[:2] == [0, 0]:  # which the library puts before a text that has one
        truth = truth[1:]
    if truth[-1] != encoder.eos_id:
        truth.append(encoder.eos_id)
    assert tokens(encoder, Record(text)) == truth
    inner = truth[1:] if truth[0] == 0 and not text.startswith(BOS) else truth
    assert tokens(encoder, Record(text), "never") == inner
    assert tokens(encoder, Record(text), "always") == [0, *inner] if inner[0] else inner


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("template", [SAYS_BOS, SAYS_NONE])
def test_a_conversation_begins_as_its_template_has_it(make, tmp_path, adds, template):
    encoder = make(adds, template)
    record = chat(encoder, tmp_path)
    truth = encoder.fast.apply_chat_template(CHAT, tokenize=True)["input_ids"]
    assert truth.count(0) == ("bos_token" in template)
    assert tokens(encoder, record) == tokens(encoder, record, "never") == truth
    assert tokens(encoder, record, "always") == ([0, *truth] if truth[0] else truth)


@pytest.mark.parametrize("bos", ["auto", "always", "never"])
def test_a_prompt_begins_like_text_and_the_token_is_of_its_class(make, bos):
    encoder = make(True)
    (document,) = encoded([ANSWERED], encoder, True, bos)
    assert document.classes is not None
    begins = [] if bos == "never" else [0]
    plain = [ids.tolist() for ids in encoder.encode_batch(["two ", "words"])]
    assert document.tokens.tolist()[: len(begins)] == begins
    assert document.tokens[-1] == encoder.eos_id
    assert encoder.decode(document.tokens) == "two words"
    assert document.classes[: len(begins) + 1].tolist() == [TokenClass.PROMPT] * (len(begins) + 1)
    assert document.classes[-1] == TokenClass.COMPLETION
    assert len(document.tokens) <= len(begins) + sum(map(len, plain)) + 1


def test_bytes_begin_with_nothing_unless_told_so():
    record = Record("né")
    assert tokens(ByteTokenizer(), record) == [110, 195, 169, 257]
    assert tokens(ByteTokenizer(), record, "never") == [110, 195, 169, 257]
    assert tokens(ByteTokenizer(), record, "always") == [256, 110, 195, 169, 257]


def test_a_token_that_is_not_there_begins_nothing(tmp_path, bpe_folder):
    (tmp_path / "a.txt").write_text("words")
    source = SourceSpec(path=str(tmp_path / "a.txt"))
    with pytest.raises(RecipeError) as refused:
        look(DataSpec({"a": source}, {"a": 1.0}, 16, 4, str(bpe_folder), bos="always"))
    (fault,) = refused.value.faults
    assert str(fault) == (
        f"data.bos = 'always': data.tokenizer, {bpe_folder}, has no such token; name it as "
        "bos_token in its tokenizer_config.json, or write auto or never"
    )
