"""Every kind of source gives the same records; what is wrong is said with file and place."""

import bz2
import csv
import gzip
import json
import lzma
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metatune.data.sources import TokenClass, open_source
from metatune.data.sources.unicode import Policy
from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import SourceSpec


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


def opened(source, policy: Policy = "refuse", tokenizer=None):
    reader = open_source("mine", source, policy, tokenizer)
    assert reader is not None
    return reader


def read(source, policy: Policy = "refuse", tokenizer=None):
    return list(opened(source, policy, tokenizer).records())


def of_kind(kind, file):
    """A source that is a file."""
    return replace(SourceSpec(), **{kind: str(file)})


def fault(source, policy: Policy = "refuse", tokenizer=None):
    """The one fault that opening and reading a source to the end finds."""
    with pytest.raises(RecipeError) as refused:
        read(source, policy, tokenizer)
    (only,) = refused.value.faults
    return str(only)


def write_csv(path, records):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer", "text"])
        writer.writerows([each["question"], each["answer"], each["text"]] for each in records)


@pytest.fixture
def same(tmp_path, records, jsonl):
    """The same records as every kind of source."""
    table = pa.Table.from_pylist(records)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=70)
    write_csv(tmp_path / "a.csv", records)
    datasets.Dataset.from_list(records).save_to_disk(tmp_path / "saved")
    parts = {"train": records[:1], "test": records}
    both = datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in parts.items()})
    both.save_to_disk(tmp_path / "both")
    (tmp_path / "folder").mkdir()
    pq.write_table(table, tmp_path / "folder" / "train.parquet")
    return {
        "jsonl": SourceSpec(jsonl=str(jsonl)),
        "parquet": SourceSpec(parquet=str(tmp_path / "*.parquet")),
        "csv": SourceSpec(csv=str(tmp_path / "a.csv")),
        "saved": SourceSpec(saved=str(tmp_path / "saved")),
        "saved split": SourceSpec(saved=str(tmp_path / "both"), split="test"),
        "dataset": SourceSpec(dataset=str(tmp_path / "folder")),
        "streamed": SourceSpec(dataset=str(tmp_path / "folder"), streaming=True, max_tokens=10**9),
    }


def test_every_kind_gives_the_same_records_again_and_again(same, records):
    for source in same.values():
        reader = opened(source)
        for _ in range(2):
            assert [record.text for record in reader.records()] == [r["text"] for r in records]


def test_prompts_and_completions_are_one_text_with_spans(same, records):
    for source in same.values():
        changed = replace(source, prompt="question", completion="answer")
        for record, said in zip(read(changed), records, strict=True):
            assert record.text == said["question"] + said["answer"]
            assert record.spans == (
                (TokenClass.PROMPT, len(said["question"])),
                (TokenClass.COMPLETION, len(record.text)),
            )


def test_a_missing_column_is_named_with_those_there_are(same):
    for kind, source in same.items():
        said = fault(replace(source, column="content"))
        assert said.startswith(f"data.domains.mine.{said.split('.')[3].split(' ')[0]} = ")
        names = "question, answer, text" if kind == "csv" else "text, question, answer, chat"
        assert f"has no column content; there are: {names}; name them by column" in said


def test_a_column_that_is_no_text_is_refused(same):
    for kind in ("jsonl", "parquet", "saved", "dataset"):
        said = fault(replace(same[kind], column="chat"))
        assert " 1: column chat holds list; must be text; name another column" in said


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda content: pa.compress(content, "zstd", asbytes=True)),
    ],
)
def test_compressed_files_are_read(tmp_path, jsonl, records, suffix, pack):
    (tmp_path / f"b.jsonl{suffix}").write_bytes(pack(jsonl.read_bytes()))
    (tmp_path / f"b.txt{suffix}").write_bytes(pack("¡Señor!\n".encode() * 2000))
    texts = [record.text for record in read(SourceSpec(jsonl=str(tmp_path / f"b.jsonl{suffix}")))]
    assert texts == [record["text"] for record in records]
    text = "".join(
        record.text for record in read(SourceSpec(path=str(tmp_path / f"b.txt{suffix}")))
    )
    assert text == "¡Señor!\n" * 2000


def test_globs_are_read_in_order_and_each_file_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("deep/er/c.txt", "b.txt", "a.txt", "[1].txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)

    def texts(*patterns):
        return [record.text for record in read(SourceSpec(path=patterns))]

    assert texts("?.txt") == ["a.txt", "b.txt"]
    assert texts("**/*.txt", "b.txt") == ["[1].txt", "a.txt", "b.txt", "deep/er/c.txt"]
    assert texts("b.txt", "?.txt") == ["b.txt", "a.txt"]
    assert texts("[1].txt") == ["[1].txt"]
    with pytest.raises(RecipeError) as refused:
        read(SourceSpec(path=("*.md", "none.txt", "deep")))
    assert [str(each).partition("; relative")[0] for each in refused.value.faults] == [
        "data.domains.mine.path = '*.md': matches no file",
        "data.domains.mine.path = 'none.txt': no such file",
        "data.domains.mine.path = 'deep': is a folder; write a glob, e.g. deep/*",
    ]
    assert "names no file; write a path or a glob" in fault(SourceSpec(path=()))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "path"])
def test_an_empty_file_is_refused(tmp_path, kind):
    file = tmp_path / "empty"
    file.write_text("text\n" if kind == "csv" else "")
    if kind == "parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), file)
    assert fault(of_kind(kind, file)).endswith("holds no text; give a source with text in it")


def test_records_without_text_are_empty_but_do_not_end_a_source(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": null}\n\n{"text": ""}\n{"text": "words"}\n')
    assert [record.text for record in read(SourceSpec(jsonl=str(file)))] == ["", "", "words"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": ', "line 3: isn't JSON: Expecting value"),
        ("[1]", "line 3: is list, not an object"),
        ('{"text": 3}', "line 3: column text holds int; must be text"),
        ("[" * 100_000, "line 3: isn't JSON: "),
    ],
)
def test_a_broken_line_of_json_is_said(tmp_path, line, problem):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n{"text": "two"}\n' + line + "\n")
    said = fault(SourceSpec(jsonl=str(file)))
    assert said.startswith("data.domains.mine.jsonl = ")
    assert problem in said


def test_a_file_is_named_though_its_path_be_long(tmp_path):
    folder = tmp_path / ("deep" * 20)
    folder.mkdir()
    (folder / "broken.jsonl").write_text("{")
    said = fault(SourceSpec(jsonl=f"{folder}/*.jsonl"))
    assert "/broken.jsonl': broken.jsonl: line 1: isn't JSON" in said


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("a,b\n1,2,3\n", "line 3: has 3 values; there are 2 columns"),
        ('"x\ny",b\n"open\n', "line 4: isn't CSV: unexpected end of data"),
    ],
)
def test_a_broken_line_of_csv_is_said(tmp_path, rows, problem):
    file = tmp_path / "a.csv"
    file.write_text("\ufefftext,more\n" + rows, encoding="utf-8")
    said = fault(SourceSpec(csv=str(file)))
    assert problem in said


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_damaged_file_is_said(tmp_path, jsonl, suffix):
    pack = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
    }[suffix]
    for name, content in (("cut", pack(jsonl.read_bytes())[:-40]), ("other", b"plain text")):
        for kind in ("jsonl", "path"):
            file = tmp_path / f"{name}{suffix}"
            file.write_bytes(content)
            said = fault(of_kind(kind, file))
            assert said.startswith(f"data.domains.mine.{kind} = ")
            assert f"{name}{suffix}" in said
            assert "can't be read: " in said


def test_a_damaged_parquet_file_is_said(tmp_path, records):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(records), file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    assert "can't be read: " in fault(SourceSpec(parquet=str(file)))
    file.write_bytes(whole[:200] + b"\xff" * 400 + whole[600:])
    assert "can't be read: " in fault(SourceSpec(parquet=str(file)))


def test_a_document_longer_than_anything_works(tmp_path):
    text = "a long, long document. " * 100_000
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    (tmp_path / "a.csv").write_text(f'text\n"{text}"\n')
    pq.write_table(pa.table({"text": [text]}), tmp_path / "a.parquet")
    for kind in ("jsonl", "csv", "parquet"):
        (record,) = read(of_kind(kind, tmp_path / f"a.{kind}"))
        assert record.text == text


def bad_text(tmp_path, kind):
    """A file whose text isn't UTF-8, and how many bytes of it aren't."""
    file = tmp_path / f"bad.{kind}"
    if kind == "parquet":
        array = pa.array([b"ni\xf1o \xff"], pa.binary()).cast(pa.string(), safe=False)
        array = pa.Array.from_buffers(pa.string(), 1, pa.array([b"ni\xf1o \xff"]).buffers())
        pq.write_table(pa.table({"text": array}), file)
    else:
        start, end = {"path": (b"", b""), "csv": (b"text\n", b"\n")}.get(
            kind, (b'{"text": "', b'"}\n')
        )
        file.write_bytes(start + b"ni\xf1o \xff" + end)
    return of_kind(kind, file)


@pytest.mark.parametrize("kind", ["path", "jsonl", "csv", "parquet"])
def test_what_is_not_utf8_is_refused_or_replaced_and_counted(tmp_path, kind):
    source = bad_text(tmp_path, kind)
    said = fault(source)
    assert "isn't UTF-8: byte 2 " in said
    assert "is 0xf1; convert it to UTF-8 text, or set data.invalid_utf8 to replace" in said
    (record,) = read(source, "replace")
    assert (record.text, record.replaced) == ("ni\ufffdo \ufffd", 2)


def test_a_surrogate_in_json_is_no_text(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "pair \\ud83c\\udf88, half \\ud83c"}')
    assert "line 1: column text isn't UTF-8: byte 16 of it is the surrogate \\ud83c" in fault(
        SourceSpec(jsonl=str(file))
    )
    (record,) = read(SourceSpec(jsonl=str(file)), "replace")
    assert (record.text, record.replaced) == ("pair 🎈, half \ufffd", 1)


def test_the_place_of_a_byte_is_that_in_its_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"a line of text\n" * 2000 + b"\xf1")
    assert "isn't UTF-8: byte 30000 is 0xf1" in fault(SourceSpec(path=str(file)))


def test_datasets_that_are_none_are_refused(tmp_path, same, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = same["dataset"].dataset
    (tmp_path / "nothing").mkdir()
    for source, problem in (
        (SourceSpec(dataset="./none"), "no such folder"),
        (SourceSpec(dataset="nobody/nothing"), "can't be loaded: "),
        (SourceSpec(dataset=str(tmp_path / "nothing")), "can't be loaded: "),
        (SourceSpec(dataset=folder, split="tset"), "can't be loaded: Unknown split"),
        (SourceSpec(dataset=folder, config="en"), "can't be loaded: BuilderConfig 'en' not found"),
        (SourceSpec(saved=folder), "can't be loaded: "),
        (SourceSpec(saved=str(tmp_path / "none")), "can't be loaded: "),
        (SourceSpec(saved=same["saved"].saved, split="train"), "holds no splits"),
        (
            SourceSpec(saved=same["saved split"].saved, split="tset"),
            "has no split tset; there are: train, test",
        ),
    ):
        kind = "dataset" if source.dataset else "saved"
        said = fault(source)
        assert said.startswith(f"data.domains.mine.{kind} = ")
        assert problem in said


def test_identities_change_with_the_content_alone(tmp_path, same):
    def identities():
        opened = {
            kind: open_source("mine", source, "refuse", None) for kind, source in same.items()
        }
        return {kind: reader.identity() for kind, reader in opened.items() if reader}

    first = identities()
    assert identities() == first
    file = Path(str(same["jsonl"].jsonl))
    content = file.read_text()
    file.write_text(content.replace("Record 7:", "Record 8:"))
    assert identities()["jsonl"] != first["jsonl"]
    file.write_text(content)
    assert identities()["jsonl"] == first["jsonl"]


def test_an_unknown_shipped_corpus_is_refused():
    assert "unknown shipped corpus; did you mean code_stdlib?" in fault(
        SourceSpec(shipped="code_std")
    )


def test_a_source_of_no_or_two_kinds_is_not_opened():
    assert open_source("mine", SourceSpec(), "refuse", None) is None
    assert open_source("mine", SourceSpec(path="a", csv="b"), "refuse", None) is None
