"""BPE dropout: the library's distribution, from a seed, and in training text alone."""

import json
from collections import Counter

import numpy as np
import pytest

from metatune.data import load, tokenizer, tokenizer_of
from metatune.data.bpe_dropout import bpe_dropout
from metatune.data.tokenizers import remarks
from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import DataSpec, SourceSpec

RATE = 0.4


@pytest.fixture(scope="module")
def dropping(tokenizer_folder):
    """The folder of a tokenizer whose file asks for dropout."""
    folder = tokenizer_folder()
    file = folder / "tokenizer.json"
    said = json.loads(file.read_text())
    said["model"]["dropout"] = RATE
    file.write_text(json.dumps(said))
    return str(folder)


def section(source, folder, **changes):
    return DataSpec({"d": source}, {"d": 1.0}, 16, 2, tokenizer=folder, **changes)


def test_words_are_split_as_often_in_each_way_as_by_the_library(bpe):
    backend = bpe.fast.backend_tokenizer
    dropout = bpe_dropout(backend, list(bpe.fast.get_added_vocab()), RATE, 7)
    encoding, count = backend.encode("there", add_special_tokens=False), 4000
    ours = Counter(
        tuple(dropout.split(encoding, n.to_bytes(32, "little")).ids.tolist()) for n in range(count)
    )
    backend.model.dropout = RATE
    try:
        theirs = Counter(tuple(backend.encode("there").ids) for _ in range(count))
    finally:
        backend.model.dropout = None
    assert len(ours) > 3
    for way in ours | theirs:
        # Both are binomial: five standard errors of their difference.
        share = (ours[way] + theirs[way]) / (2 * count)
        assert abs(ours[way] - theirs[way]) < 5 * (2 * count * share) ** 0.5 + 5


def test_without_a_draw_nothing_is_left_out(bpe):
    backend = bpe.fast.backend_tokenizer
    never = bpe_dropout(backend, list(bpe.fast.get_added_vocab()), 0.0, 0)
    text = "<|im_start|>user\nnaïve 漢字 words, there and then<|im_end|>"
    encoding = backend.encode(text, add_special_tokens=False)
    split = never.split(encoding, bytes(32))
    assert split.ids.tolist() == encoding.ids
    assert split.first.tolist() == split.last.tolist() == list(range(len(encoding.ids)))


def test_added_tokens_are_never_split_and_the_text_comes_back(bpe):
    backend = bpe.fast.backend_tokenizer
    always = bpe_dropout(backend, list(bpe.fast.get_added_vocab()), 1.0, 0)
    text = "<|im_start|>user\nthere é"
    encoding = backend.encode(text, add_special_tokens=False)
    split = always.split(encoding, bytes(32))
    assert split.ids[0] == encoding.ids[0]
    assert len(split.ids) == 1 + len("user\nthere é".encode())  # bytes, one by one
    assert bpe.decode(split.ids) == "user\nthere é"


def test_it_is_left_out_unless_asked_for(cache, dropping, jsonl):
    data = section(SourceSpec(jsonl=str(jsonl)), dropping)
    encoder = tokenizer_of(data)
    first, again = (encoder.encode_batch(["there and then"] * 3) for _ in range(2))
    assert [ids.tolist() for ids in first] == [ids.tolist() for ids in again]
    assert len({tuple(ids.tolist()) for ids in first}) == 1
    assert remarks(data, encoder) == [
        "the tokenizer's dropout of 0.4 is left out; data.bpe_dropout=true splits training text "
        "with it"
    ]


def streams(data, seed):
    (domain,) = load(data, tokenizer_of(data, seed)).domains
    return {
        split: np.array(getattr(domain, split).stream.tokens)
        for split in ("train", "validation", "test")
    }


@pytest.mark.parametrize(
    "columns", [{}, {"prompt": "question", "completion": "answer"}, {"messages": "chat"}]
)
def test_training_text_alone_is_split_with_it_by_the_seed(cache, dropping, jsonl, columns):
    source = SourceSpec(jsonl=str(jsonl), **columns)
    plain = streams(section(source, dropping), 1)
    data = section(source, dropping, bpe_dropout=True)
    one, same, other = streams(data, 1), streams(data, 1), streams(data, 2)
    for split in ("validation", "test"):
        assert np.array_equal(one[split], plain[split])
    assert np.array_equal(one["train"], same["train"])
    assert not np.array_equal(one["train"], other["train"])
    encoder = tokenizer(dropping)
    assert len(one["train"]) > len(plain["train"])
    assert encoder.decode(one["train"]) == encoder.decode(plain["train"])


@pytest.mark.parametrize("name", ["bytes", "bpe_folder"])
def test_a_tokenizer_without_dropout_is_refused(request, name):
    folder = name if name == "bytes" else str(request.getfixturevalue(name))
    with pytest.raises(RecipeError, match=r"data\.bpe_dropout = True: "):
        tokenizer_of(section(SourceSpec(path="-"), folder, bpe_dropout=True))
