"""Tokenizers of Hugging Face: as their own library has them, without a network."""

import json
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from metatune.data import tokenizer
from metatune.recipe.faults import RecipeError

TEXTS = ["plain text", "", "naïve 漢字 🎈\n\n", "<|im_start|>user"]


def fault(name):
    with pytest.raises(RecipeError) as refused:
        tokenizer(str(name))
    (only,) = refused.value.faults
    assert only.path == "data.tokenizer"
    return only.problem


def test_tokens_are_those_of_transformers(bpe, bpe_folder):
    theirs = AutoTokenizer.from_pretrained(bpe_folder)
    expected = [theirs(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert [ids.tolist() for ids in bpe.encode_batch(TEXTS)] == expected
    assert [placed.ids.tolist() for placed in bpe.place_batch(TEXTS)] == expected
    assert (bpe.vocab_size, bpe.eos_id, bpe.pad_id) == (len(theirs), 2, 2)


def test_text_comes_back_without_special_tokens(bpe):
    (ids,) = bpe.encode_batch(["<|im_start|>naïve 漢字"])
    assert bpe.decode(ids) == "naïve 漢字"


def test_tokens_know_their_last_character(bpe):
    text = "a naïve word\n\n"
    ((ids, begins, ends),) = bpe.place_batch([text])
    assert len(ids) == len(begins) == len(ends)
    assert (begins < ends).all()
    last = ends - 1
    assert last[-1] == len(text) - 1
    assert (last[1:] >= last[:-1]).all()
    # What the tokens up to one decode to ends with its last character.
    for count in range(1, len(ids) + 1):
        decoded = bpe.decode(ids[:count])
        if "\ufffd" not in decoded:
            assert decoded == text[: last[count - 1] + 1]


def test_the_identity_is_that_of_the_mapping(bpe, bpe_folder, tokenizer_folder):
    assert tokenizer(str(bpe_folder)).sha256 == bpe.sha256
    assert tokenizer(str(tokenizer_folder("smollm"))).sha256 != bpe.sha256


def test_truncation_and_padding_of_a_file_are_left_out(bpe, bpe_folder, tmp_path):
    for file in bpe_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    said = json.loads((tmp_path / "tokenizer.json").read_text())
    said["truncation"] = {
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
        "direction": "Right",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    text = "a text of more than four tokens"
    loaded = tokenizer(str(tmp_path))
    assert loaded.encode_batch([text])[0].tolist() == bpe.encode_batch([text])[0].tolist()
    assert len(loaded.place_batch([text, ""])[0][0]) > 4
    assert len(loaded.place_batch([text, ""])[1][0]) == 0


def test_what_is_no_tokenizer_is_refused(tmp_path, bpe_folder, tokenizer_folder):
    assert fault(tmp_path / "nothing") == "no such folder"
    assert fault("./nothing") == "no such folder"
    assert fault(tmp_path).startswith("can't be loaded: ")
    assert fault(bpe_folder / "tokenizer.json") == "is a file"
    endless = tokenizer_folder(pad_token="<|end|>")
    assert fault(endless) == "has no end-of-sequence token"
    (tmp_path / "tokenizer.json").write_text("{")
    assert fault(tmp_path).startswith("tokenizer.json can't be read: ")


MALFORMED = [
    ({"model": None}, "tokenizer.json has no model"),
    ({"model": {"type": "x"}}, "model.type is 'x'; must be one of BPE, Unigram, "),
    ({"model": {"type": "BPE", "vocab": []}}, "model.vocab doesn't give each token a whole"),
    ({"model": {"type": "WordLevel", "vocab": {"a": -1}}}, "model.vocab doesn't give each"),
    ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}, "which is no pair"),
    ({"model": {"type": "Unigram", "vocab": [["a"]]}}, "no list of tokens with their scores"),
    ({"model": {"type": "Unigram", "vocab": [["a", 0.5]], "unk_id": 4}}, "model.unk_id is 4"),
    ({"added_tokens": [{"id": "0", "content": "a"}]}, "which is no {id, content}"),
    ({"added_tokens": {"a": 0}}, "added_tokens is no list"),
    ({"decoder": []}, "decoder is no object"),
]


@pytest.mark.parametrize(("change", "said"), MALFORMED)
def test_a_malformed_file_is_refused_before_it_is_loaded(tmp_path, bpe_folder, change, said):
    for file in bpe_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(document | change))
    assert said in fault(tmp_path)


def test_an_id_that_is_not_cached_is_refused_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fault("nobody/nothing").startswith("can't be loaded: ")


WITHOUT_TORCH = """
import importlib.util, logging, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "torch" else find(name, *more)
{before}
import transformers
logging.getLogger("transformers").warning("another warning")
print(transformers.utils.is_torch_available())
"""


def test_that_torch_is_missing_is_not_said():
    def said(before):
        program = WITHOUT_TORCH.format(before=before)
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert ran.stdout == "False\n", ran.stderr
        return ran.stderr

    # As transformers has it, so that the filter isn't tested on nothing.
    assert "PyTorch was not found" in said("")
    quiet = said("import metatune.data")
    assert "PyTorch" not in quiet and "another warning" in quiet
