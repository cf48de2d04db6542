"""Documents to tokens: whole, once, and with their classes."""

import json
from collections import Counter

import numpy as np
import pytest

from metatune.data import (
    ByteTokenizer,
    TokenClass,
    load,
    look,
    sampled_batches,
    tokenizer,
)
from metatune.data.documents import SPLITS
from metatune.data.tokenizers import token_dtype
from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import DataSpec, HeldOutSpec, PackingSpec, SourceSpec


def section(source, sequence_length=16, name="bytes", **settings):
    return DataSpec({"mine": source}, {"mine": 1.0}, sequence_length, 4, name, **settings)


def documents(domain):
    """The tokens and classes of every document, all splits together."""
    found = []
    for split in SPLITS:
        stream = getattr(domain, split).stream
        for begin, end in zip(stream.starts, [*stream.starts[1:], None], strict=True):
            roles = None if stream.classes is None else stream.classes[begin:end]
            found.append((stream.tokens[begin:end], roles))
    return found


def test_every_record_is_there_once_with_its_end(cache, jsonl, records):
    (domain,) = load(section(SourceSpec(jsonl=str(jsonl)))).domains
    found = Counter(bytes(ids[:-1].tolist()).decode() for ids, _ in documents(domain))
    assert found == Counter(record["text"] for record in records)
    assert {int(ids[-1]) for ids, _ in documents(domain)} == {ByteTokenizer().eos_id}
    held = domain.statistics
    assert held.documents == len(records)
    assert held.bytes == sum(len(record["text"].encode()) for record in records)
    assert held.tokens == held.bytes + held.documents


def test_the_tokens_of_a_tokenizer_are_in_the_streams(cache, jsonl, records, bpe, bpe_folder):
    (domain,) = load(section(SourceSpec(jsonl=str(jsonl)), name=str(bpe_folder))).domains
    found = Counter(tuple(ids.tolist()) for ids, _ in documents(domain))
    encoded = bpe.encode_batch([record["text"] for record in records])
    assert found == Counter((*ids.tolist(), bpe.eos_id) for ids in encoded)
    assert domain.train.stream.tokens.dtype == np.uint16


def test_a_large_vocabulary_takes_larger_numbers(cache, jsonl, monkeypatch):
    monkeypatch.setattr("metatune.data.tokenized.token_dtype", lambda _: np.uint32)
    (domain,) = load(section(SourceSpec(jsonl=str(jsonl)))).domains
    assert domain.train.stream.tokens.dtype == np.uint32
    assert domain.train.take(np.array([0])).tokens.dtype == np.int32


@pytest.mark.parametrize(("size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_the_vocabulary_says_how_large_the_numbers_are(size, dtype):
    encoder = ByteTokenizer()
    object.__setattr__(encoder, "vocab_size", size)
    assert token_dtype(encoder) is dtype


@pytest.mark.parametrize("name", ["bytes", "bpe"])
def test_prompts_and_completions_keep_their_classes(cache, jsonl, records, name, bpe_folder):
    name = str(bpe_folder) if name == "bpe" else name
    encoder = tokenizer(name)
    source = SourceSpec(jsonl=str(jsonl), prompt="question", completion="answer")
    (domain,) = load(section(source, name=name)).domains
    pieces = set()
    for ids, roles in documents(domain):
        assert ids[-1] == encoder.eos_id and roles[-1] == TokenClass.COMPLETION
        assert (np.diff(roles.astype(int)) >= 0).all()
        asked = ids[roles == TokenClass.PROMPT]
        answered = ids[roles == TokenClass.COMPLETION]
        pieces.add((encoder.decode(asked), encoder.decode(answered)))
    assert pieces == {(record["question"], record["answer"]) for record in records}


def test_a_chat_ends_once(cache, jsonl, records, bpe, bpe_folder):
    source = SourceSpec(jsonl=str(jsonl), messages="chat")
    (domain,) = load(section(source, name=str(bpe_folder))).domains
    answers = set()
    for ids, roles in documents(domain):
        assert list(ids).count(bpe.eos_id) == 3  # each turn's, none more
        assert roles[0] == TokenClass.SYSTEM
        answers.add(bpe.decode(ids[roles == TokenClass.COMPLETION]).strip())
    assert answers == {record["answer"] for record in records}


def test_batches_say_classes_documents_and_mask(cache, jsonl, tmp_path):
    plain = tmp_path / "plain.txt"
    plain.write_text("".join(f"line {n} of many\n" for n in range(20_000)))
    domains = {
        "plain": SourceSpec(path=str(plain)),
        "asked": SourceSpec(jsonl=str(jsonl), prompt="question", completion="answer"),
    }
    data = DataSpec(domains, {"asked": 1.0}, 32, 8, packing=PackingSpec(False, "pad"))
    corpus = load(data)
    batch = sampled_batches(corpus, seed=(0,), batch_size=8, shares=np.full((1, 2), 0.5))(0)
    assert batch.classes is not None and batch.mask is not None and batch.documents is not None
    assert (batch.classes.dtype, batch.classes.shape) == (np.uint8, (8, 32))
    assert (batch.mask.dtype, batch.mask.shape) == (np.float32, (8, 31))
    assert (batch.documents.dtype, batch.documents.shape) == (np.int32, (8, 32))
    assert np.all(batch.classes[batch.domain == 0] == TokenClass.TEXT)
    assert np.all(batch.mask.sum(axis=1) >= 1)
    ends = (batch.tokens[:, :-1] == 257) & (batch.mask == 1)
    assert not ends.any()  # nothing is predicted from the end of a document


def test_the_same_text_falls_on_the_same_side_in_every_domain(cache, tmp_path, records):
    for name, order in (("a", 1), ("b", -1)):
        text = "".join(json.dumps(record) + "\n" for record in records[::order])
        (tmp_path / f"{name}.jsonl").write_text(text)
    domains = {name: SourceSpec(jsonl=str(tmp_path / f"{name}.jsonl")) for name in "ab"}
    one, other = load(DataSpec(domains, {"a": 1.0}, 16, 4)).domains
    for split in SPLITS:
        sides = []
        for domain in (one, other):
            stream = getattr(domain, split).stream
            sides.append(
                Counter(
                    np.split(stream.tokens, stream.starts[1:])[i].tobytes()
                    for i in range(len(stream.starts))
                )
            )
        assert sides[0] == sides[1]
    assert (one.statistics.shared, one.statistics.duplicates) == (300, 0)


def test_duplicates_empty_records_and_replacements_are_counted(cache, tmp_path, records):
    file = tmp_path / "a.jsonl"
    lines = [json.dumps(record) for record in records]
    more = ['{"text": ""}', '{"text": "half \\ud83c"}', *lines[:5]]
    file.write_text("\n".join([*lines, *more]))
    (domain,) = load(section(SourceSpec(jsonl=str(file)), invalid_utf8="replace")).domains
    held = domain.statistics
    assert (held.duplicates, held.empty, held.replaced, held.documents) == (5, 1, 1, 306)


def test_a_budget_ends_with_the_document_that_reaches_it(cache, jsonl, records):
    sizes = np.cumsum([len(record["text"].encode()) + 1 for record in records])
    source = SourceSpec(jsonl=str(jsonl), max_tokens=20_000)
    (domain,) = load(section(source)).domains
    assert domain.statistics.tokens == sizes[sizes >= 20_000][0]
    (domain,) = load(section(SourceSpec(jsonl=str(jsonl), max_tokens=10**9))).domains
    assert domain.statistics.tokens == sizes[-1]


def test_tokenizing_is_done_once_and_said(cache, jsonl, monkeypatch):
    told = []
    corpus = load(section(SourceSpec(jsonl=str(jsonl))), listener=told.append)
    assert told[-1].done and told[-1].tokens == corpus.domains[0].statistics.tokens
    assert told[-1].domain == "mine" and not told[0].done
    before = len(told)
    again = load(section(SourceSpec(jsonl=str(jsonl))), listener=told.append)
    assert len(told) == before
    assert again.domains[0].sha256 == corpus.domains[0].sha256
    # The length of a sequence is no part of what is kept; shares held out are.
    load(section(SourceSpec(jsonl=str(jsonl)), sequence_length=20), listener=told.append)
    assert len(told) == before
    changed = section(SourceSpec(jsonl=str(jsonl)), held_out=HeldOutSpec(0.2, 0.1))
    load(changed, listener=told.append)
    assert len(told) > before


def test_what_was_tokenized_changes_with_the_file(cache, jsonl):
    (before,) = load(section(SourceSpec(jsonl=str(jsonl)))).domains
    jsonl.write_text(jsonl.read_text().replace("Record 7:", "Record 8:"))
    (after,) = load(section(SourceSpec(jsonl=str(jsonl)))).domains
    assert before.sha256 != after.sha256


def test_damage_further_on_leaves_nothing_in_the_cache(cache, jsonl):
    with jsonl.open("a") as file:
        file.write("{broken\n")
    look(section(SourceSpec(jsonl=str(jsonl))))  # reads only the beginning
    with pytest.raises(RecipeError, match="line 301: isn't JSON"):
        load(section(SourceSpec(jsonl=str(jsonl))))
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_a_streamed_dataset_is_read_from_the_network_once(cache, tmp_path, jsonl, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(jsonl.read_bytes())
    source = SourceSpec(dataset=str(folder), streaming=True, max_tokens=30_000)
    told = []
    first = load(section(source), listener=told.append)
    count = len(told)
    assert load(section(source), listener=told.append).domains[0].sha256 == first.domains[0].sha256
    assert len(told) == count


def test_faults_of_tokenizer_and_sources_come_together(cache, tmp_path):
    data = section(SourceSpec(path=str(tmp_path / "none.txt")), name="./nowhere")
    with pytest.raises(RecipeError) as refused:
        load(data)
    paths = [fault.path for fault in refused.value.faults]
    assert paths == ["data.tokenizer", "data.domains.mine.path"]
