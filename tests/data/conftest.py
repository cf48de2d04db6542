"""A small byte-level BPE with a chat template, records, and a machine without a network."""

import json
import socket

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from metatune.data import shipped_text, tokenizer
from metatune.data.words import GPT_4, QWEN_2

SPECIAL = ["<|end|>", "<|im_start|>", "<|im_end|>"]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split(pattern):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level(False)]
    )


PRE_TOKENIZERS = {
    "gpt2": byte_level(True),
    "gpt4": split(GPT_4),
    "qwen2": split(QWEN_2),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level(True)]
    ),
}


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """`(kind, **settings)` to the folder of a tokenizer with 600 tokens."""
    from transformers import PreTrainedTokenizerFast

    def make(kind="gpt2", chat_template=CHAT, **special):
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = PRE_TOKENIZERS[kind]
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        texts = [shipped_text("prose_austen")[:50_000], shipped_text("code_stdlib")[:50_000]]
        backend.train_from_iterator(texts, trainer)
        folder = tmp_path_factory.mktemp(kind)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=backend, **(special or {"eos_token": "<|im_end|>"})
        )
        fast.chat_template = chat_template
        fast.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def bpe_folder(tokenizer_folder):
    return tokenizer_folder()


@pytest.fixture(scope="session")
def bpe(bpe_folder):
    return tokenizer(str(bpe_folder))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever asks for a connection fails the test."""

    def refuse(*_, **__):
        raise AssertionError("the network was asked for")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("METATUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def records():
    """300 records: text, a question and its answer, a chat."""

    def record(number):
        question, answer = f"What is {number} times two?\n", f"It is {2 * number}, señor."
        return {
            "text": f"Record {number}: " + f"¿{number}? " * (number % 40 + 1),
            "question": question,
            "answer": answer,
            "chat": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ],
        }

    return [record(number) for number in range(300)]


@pytest.fixture
def jsonl(tmp_path, records):
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file
