"""The same records in every kind of source are the same documents: a table of kinds and oddities.

What is right is written out by hand beside each oddity, as JSON lines would have it.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metatune.data import TokenClass, tokenizer
from metatune.data.sources import open_source
from metatune.data.sources.files import zstd
from metatune.data.sources.normal import normal, spelled
from metatune.data.sources.records import Location
from metatune.data.tokenized import tokenized
from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import DataSpec, HeldOutSpec, SourceSpec

COUNT = 24  # records of each oddity
HELD = HeldOutSpec(0.3, 0.3)

# As templates with tools have it: what isn't there isn't written.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c.name }} {{ c.arguments | tojson }}{% endfor %}"
    "{% if m.name is defined %} by {{ m.name }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

TEXT, PROMPT, COMPLETION = TokenClass.TEXT, TokenClass.PROMPT, TokenClass.COMPLETION


@dataclass(frozen=True)
class Oddity:
    """Records with something about them, and what they are.

    Attributes:
        record: of a number, as JSON has it.
        pieces: of that record, as (class, text) by hand; empty where it is left out.
        label: of it, by hand.
        columns: of the recipe.
        kinds: of sources that can hold it; None for all.
        types: of columns in tables, where they aren't inferred.
        end: whether text ends with the end-of-sequence token itself.
        csv: a value as CSV has it, where that isn't what Python writes.
        messages: of a conversation, by hand: by them it falls into a split, not by its text.
    """

    record: Callable[[int], dict[str, Any]]
    pieces: Callable[[int], list[tuple[TokenClass, str]]]
    label: Callable[[int], str] = lambda n: ""
    columns: dict[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] | None = None
    types: dict[str, pa.DataType] = field(default_factory=dict)
    csv: Callable[[Any], str] = str
    messages: Callable[[int], list[dict[str, Any]]] | None = None


def words(n):
    return f"Señor {n} says " + "ja " * n


def turn(role, content):
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def asked(n):
    return [{"role": "user", "content": f"What is {n}?"}]


def chat(n, answer):
    """The pieces of a question and its answer."""
    begin = turn("user", f"What is {n}?") + "<|im_start|>assistant\n"
    return [(PROMPT, begin), (COMPLETION, answer + "<|im_end|>\n")]


def answered(n, **more):
    return [*asked(n), {"role": "assistant", "content": f"It is {n}.", **more}]


def with_tools(n):
    """Every other call has other arguments, which a table gives to all, null.

    Their order is that of the first record: a table has one for all of them.
    """
    even = {"name": "sum", "arguments": {"deep": {"x": n}, "of": [n, 2]}}
    odd = {"name": "mean", "arguments": {"by": "year", "deep": {"y": None, "z": 2.0}}}
    call = {"role": "assistant", "content": None, "tool_calls": [odd if n % 2 else even]}
    return {"m": [*asked(n), call]}


def called(n):
    even = f'sum {{"deep": {{"x": {n}}}, "of": [{n}, 2]}}'
    return chat(n, 'mean {"by": "year", "deep": {"z": 2}}' if n % 2 else even)


def calling(n):
    even = {"name": "sum", "arguments": {"deep": {"x": n}, "of": [n, 2]}}
    odd = {"name": "mean", "arguments": {"by": "year", "deep": {"z": 2}}}
    return [*asked(n), {"role": "assistant", "tool_calls": [odd if n % 2 else even]}]


def parts(n):
    """A content in parts, one of which has a key that the others haven't."""
    text = [{"type": "text", "text": "It is "}, {"type": "text", "text": f"{n}.", "cache": True}]
    question = [{"type": "text", "text": f"What is {n}?"}]
    return {"m": [{"role": "user", "content": question}, {"role": "assistant", "content": text}]}


def sharegpt(n):
    question = {"from": "human", "value": f"What is {n}?"}
    return {"m": [question, {"from": "gpt", "value": f"It is {n}."}]}


def ready(n):
    ids = [5, 6, 7 + n, 8]
    return {"ids": ids, "labels": [-100, -100, *ids[2:]], "mask": [0, 0, 1, 1]}


MESSAGES = {"messages": "m"}
ANSWERS = {"prompt": "p", "completion": "c"}
TABLES = ("parquet", "arrow", "stream", "saved", "dataset", "streamed")

ODDITIES = {
    "plain": Oddity(lambda n: {"text": words(n)}, lambda n: [(TEXT, words(n))]),
    "empty": Oddity(  # every third record has no text, and a gap where its label would be
        lambda n: {"text": words(n) if n % 3 else None, "k": n % 2 if n % 3 else None},
        lambda n: [(TEXT, words(n))] if n % 3 else [],
        lambda n: str(n % 2),
        {"label": "k"},
        csv=lambda value: "" if value is None else str(value),
    ),
    "lines in text": Oddity(
        lambda n: {"text": f'{n}\r\n\n\ttab, "quoted" \u2028 \u0085 end\n'},
        lambda n: [(TEXT, f'{n}\r\n\n\ttab, "quoted" \u2028 \u0085 end\n')],
    ),
    "end of text": Oddity(
        lambda n: {"text": words(n) + "<|im_end|>"}, lambda n: [(TEXT, words(n) + "<|im_end|>")]
    ),
    "floats of whole numbers": Oddity(
        lambda n: {"text": words(n), "k": float(n % 3) if n % 2 else n % 3},
        lambda n: [(TEXT, words(n))],
        lambda n: str(n % 3),
        {"label": "k"},
        types={"k": pa.float64()},
    ),
    "fractions": Oddity(
        lambda n: {"text": words(n), "k": n % 3 / 2},
        lambda n: [(TEXT, words(n))],
        lambda n: ("0", "0.5", "1")[n % 3],
        {"label": "k"},
        csv=lambda value: f"{value:.3f}" if isinstance(value, float) else str(value),
    ),
    "true and false": Oddity(
        lambda n: {"text": words(n), "k": n % 3 == 0},
        lambda n: [(TEXT, words(n))],
        lambda n: "false" if n % 3 else "true",
        {"label": "k"},
    ),
    "true and false as text": Oddity(
        lambda n: {"text": words(n), "k": "FALSE" if n % 3 else "True"},
        lambda n: [(TEXT, words(n))],
        lambda n: "false" if n % 3 else "true",
        {"label": "k"},
    ),
    "codes": Oddity(
        lambda n: {"text": words(n), "k": f"00{n % 3}"},
        lambda n: [(TEXT, words(n))],
        lambda n: f"00{n % 3}",
        {"label": "k"},
    ),
    "dictionaries": Oddity(
        lambda n: {"text": words(n), "k": f"class {n % 3}"},
        lambda n: [(TEXT, words(n))],
        lambda n: f"class {n % 3}",
        {"label": "k"},
        types=dict.fromkeys(("text", "k"), pa.dictionary(pa.int32(), pa.string())),
        kinds=("jsonl", "csv", "parquet", "arrow", "stream"),
    ),
    "large text": Oddity(
        lambda n: {"text": words(n)},
        lambda n: [(TEXT, words(n))],
        types={"text": pa.large_string()},
    ),
    "binary text": Oddity(
        lambda n: {"text": words(n)},
        lambda n: [(TEXT, words(n))],
        types={"text": pa.binary()},
        kinds=("jsonl", "csv", "parquet", "arrow", "stream"),
    ),
    "questions": Oddity(
        lambda n: {"p": f"{n}?", "c": words(n) if n % 5 else None},
        lambda n: [(PROMPT, f"{n}?"), (COMPLETION, words(n))] if n % 5 else [],
        columns=ANSWERS,
        csv=lambda value: "" if value is None else value,
    ),
    "tools": Oddity(with_tools, called, columns=MESSAGES, messages=calling),
    "some keys": Oddity(  # a name at every third message only, and no calls at all
        lambda n: {
            "m": [
                *asked(n),
                {"role": "assistant", "content": f"It is {n}."} | ({} if n % 3 else {"name": "A"}),
            ]
        },
        lambda n: chat(n, f"It is {n}." + ("" if n % 3 else " by A")),
        columns=MESSAGES,
        messages=lambda n: answered(n, **({} if n % 3 else {"name": "A"})),
    ),
    "parts": Oddity(parts, lambda n: chat(n, f"It is {n}."), columns=MESSAGES, messages=answered),
    "sharegpt": Oddity(
        sharegpt, lambda n: chat(n, f"It is {n}."), columns=MESSAGES, messages=answered
    ),
    "large messages": Oddity(
        lambda n: {"m": [*asked(n), {"role": "assistant", "content": f"It is {n}."}]},
        lambda n: chat(n, f"It is {n}."),
        columns=MESSAGES,
        messages=answered,
        types={
            "m": pa.large_list(pa.struct({"role": pa.large_string(), "content": pa.large_string()}))
        },
    ),
    "answers in a conversation": Oddity(
        lambda n: {
            "p": [{"role": "assistant", "content": "Ask."}, *asked(n)],
            "c": [{"role": "assistant", "content": f"It is {n}.", "name": None}],
        },
        lambda n: [(PROMPT, turn("assistant", "Ask.")), *chat(n, f"It is {n}.")],
        columns=ANSWERS,
        messages=lambda n: [{"role": "assistant", "content": "Ask."}, *answered(n)],
        kinds=("jsonl", *TABLES),  # in CSV a prompt is text
    ),
}

KINDS = ("jsonl", "csv", *TABLES, "dataset of JSON lines")
CELLS = [
    pytest.param(name, kind, id=f"{name}-{kind}")
    for name, odd in ODDITIES.items()
    for kind in KINDS
    if odd.kinds is None or kind in odd.kinds
]


def test_the_table_is_large():
    assert len(CELLS) >= 150


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def encoder(tokenizer_folder):
    return tokenizer(str(tokenizer_folder(chat_template=TEMPLATE)))


def jsonl_of(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def csv_of(records, written: Callable[[Any], str] = str, end="\r\n"):
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator=end)
    writer.writerow(records[0])
    for record in records:
        values = [json.dumps(v) if isinstance(v, list) else written(v) for v in record.values()]
        writer.writerow(values)
    return rows.getvalue()


def table_of(records, types):
    columns = {
        name: pa.array([record[name] for record in records], types.get(name)) for name in records[0]
    }
    return pa.table(columns)


def stored(folder, kind, records, types=None, written: Callable[[Any], str] = str):
    """The records as a source of some kind."""
    if kind == "jsonl":
        (folder / "a.jsonl").write_text(jsonl_of(records), encoding="utf-8", newline="")
        return SourceSpec(jsonl=str(folder / "a.jsonl"))
    if kind == "csv":
        (folder / "a.csv").write_text(csv_of(records, written), encoding="utf-8", newline="")
        return SourceSpec(csv=str(folder / "a.csv"))
    (folder / "data").mkdir()
    if kind == "dataset of JSON lines":
        (folder / "data" / "a.jsonl").write_text(jsonl_of(records), encoding="utf-8", newline="")
        return SourceSpec(dataset=str(folder / "data"))
    table = table_of(records, types or {})
    if kind in ("parquet", "dataset", "streamed"):
        pq.write_table(table, folder / "data" / "a.parquet", row_group_size=7)
    if kind == "parquet":
        return SourceSpec(parquet=str(folder / "data" / "*.parquet"))
    if kind in ("arrow", "stream"):
        new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with new(str(folder / "a.arrow"), table.schema) as file:
            file.write_table(table, max_chunksize=7)
        return SourceSpec(arrow=str(folder / "a.arrow"))
    if kind == "saved":
        datasets.Dataset(table).save_to_disk(folder / "saved")
        return SourceSpec(saved=str(folder / "saved"))
    if kind == "streamed":
        return SourceSpec(dataset=str(folder / "data"), streaming=True, max_tokens=10**9)
    return SourceSpec(dataset=str(folder / "data"))


def split_of(content: bytes) -> str:
    place = int(sha256(content).hexdigest()[:12], 16) / 2**48
    return "validation" if place < 0.3 else "test" if place < 0.6 else "train"


def documents(source, encoder):
    """What a source holds: by split, the pieces and the label of each document; and its hash."""
    reader = open_source("mine", source, "refuse", encoder)
    assert reader is not None
    data = DataSpec({"mine": source}, {"mine": 1.0}, 16, 4, held_out=HELD)
    held = tokenized("mine", source, reader, data, encoder)
    found = {}
    for split, stream in held.streams.items():
        found[split] = []
        ends = [*stream.starts[1:], len(stream.tokens)]
        for n, (begin, end) in enumerate(zip(stream.starts, ends, strict=True)):
            ids = stream.tokens[begin:end].tolist()
            classes = [TEXT] * len(ids) if stream.classes is None else stream.classes[begin:end]
            text = encoder.fast.backend_tokenizer.decode(ids, skip_special_tokens=False)
            label = "" if stream.labels is None else held.labels[stream.labels[n]]
            tokens = {TokenClass(c): [] for c in classes}
            for each, one in zip(ids, classes, strict=True):
                tokens[TokenClass(one)].append(each)
            decode = encoder.fast.backend_tokenizer.decode
            pieces = {c: decode(its, skip_special_tokens=False) for c, its in tokens.items()}
            found[split].append((text, pieces, label))
    return found, held.sha256, held.empty


@pytest.mark.parametrize(("name", "kind"), CELLS)
def test_a_record_is_the_same_however_it_is_stored(cache, tmp_path, encoder, name, kind):
    odd = ODDITIES[name]
    records = [odd.record(n) for n in range(1, COUNT + 1)]
    source = stored(tmp_path, kind, records, odd.types, odd.csv)
    truth, whole, empty = {"train": [], "validation": [], "test": []}, sha256(), 0
    for n in range(1, COUNT + 1):
        pieces = odd.pieces(n)
        text = "".join(piece for _, piece in pieces)
        if not text:
            empty += 1
            continue
        label = odd.label(n) if "label" in odd.columns else ""
        whole.update((text + label).encode())
        by_class = {}
        for role, piece in pieces:
            by_class[role] = by_class.get(role, "") + piece
        # Every document ends with the token for that, once.
        if not text.rstrip("\n").endswith("<|im_end|>"):
            text += "<|im_end|>"
            by_class[pieces[-1][0]] += "<|im_end|>"
        origin = "".join(piece for _, piece in pieces)
        if odd.messages is not None:
            told = {"ensure_ascii": False, "sort_keys": True, "separators": (",", ":")}
            origin = json.dumps(odd.messages(n), **told)
        truth[split_of(origin.encode())].append((text, by_class, label))
    assert documents(replace(source, **odd.columns), encoder) == (truth, whole.hexdigest(), empty)


@pytest.mark.parametrize("kind", ["jsonl", "csv", *TABLES])
@pytest.mark.parametrize("masked", [{"labels": "labels"}, {"loss_mask": "mask"}, {}])
def test_ready_tokens_are_taken_as_they_are(cache, tmp_path, encoder, kind, masked):
    source = stored(tmp_path, kind, [ready(n) for n in range(COUNT)])
    source = replace(source, input_ids="ids", **masked)
    reader = open_source("mine", source, "refuse", encoder)
    assert reader is not None
    data = DataSpec({"mine": source}, {"mine": 1.0}, 16, 4, held_out=HELD, bos="never")
    held = tokenized("mine", source, reader, data, encoder)
    truth = {"train": [], "validation": [], "test": []}
    for n in range(COUNT):
        ids = [5, 6, 7 + n, 8]
        truth[split_of(np.array(ids, "<u4").tobytes())] += ids
    for split, stream in held.streams.items():
        assert stream.tokens.tolist() == truth[split]
        if masked:
            assert stream.classes is not None
            assert stream.classes.tolist() == [1, 1, 2, 2] * (len(truth[split]) // 4)
        else:
            assert stream.classes is None
    every = np.array([[5, 6, 7 + n, 8] for n in range(COUNT)], "<u4").tobytes()
    assert held.sha256 == sha256(every).hexdigest()


def looking_far_back(content):
    """As `zstd --ultra --long=31` of a pipe: a frame whose window is of 2^31 bytes."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 20})
    frame = bytearray(packer.compress(content) + packer.flush())
    assert frame[5] == (20 - 10) << 3  # RFC 8878, 3.1.1.1.2: ten below the logarithm of its size
    frame[5] = (31 - 10) << 3
    return bytes(frame)


STYLES = {
    "as it is": ("", bytes),
    "mark": ("", lambda content: b"\xef\xbb\xbf" + content),
    "line ends": ("", lambda content: content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")),
    "no last end": ("", bytes.rstrip),
    "blank lines": ("", lambda content: content + b"\n\r\n\n"),
    "capitals": (".GZ", gzip.compress),
    "mark, packed": (".Gz", lambda content: gzip.compress(b"\xef\xbb\xbf" + content)),
    "long window": (".zst", looking_far_back),
    "frames": (
        ".ZST",
        lambda content: zstd.compress(content[:99]) + zstd.compress(content[99:]),
    ),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_how_a_file_is_written_is_no_part_of_its_records(tmp_path, kind, style):
    records = [{"text": words(n), "k": n % 2} for n in range(COUNT)]
    content = (jsonl_of(records) if kind == "jsonl" else csv_of(records, end="\n")).encode()
    suffix, changed = STYLES[style]
    name = f"a.{kind.upper() if suffix.isupper() else kind}{suffix}"
    (tmp_path / name).write_bytes(changed(content))
    source = replace(SourceSpec(label="k"), **{kind: str(tmp_path / name)})
    reader = open_source("mine", source, "refuse", None)
    assert reader is not None
    found = [(record.text, record.label) for record in reader.records()]
    assert found == [(words(n), str(n % 2)) for n in range(COUNT)]


@pytest.mark.parametrize("style", ["mark", "mark, packed", "long window", "frames", "capitals"])
def test_how_a_text_file_is_written_is_no_part_of_its_text(tmp_path, style):
    content = "".join(words(n) + "\n" for n in range(900)).encode()
    suffix, changed = STYLES[style]
    (tmp_path / f"a.txt{suffix}").write_bytes(changed(content))
    (tmp_path / "plain").write_bytes(content)
    texts = []
    for name in (f"a.txt{suffix}", "plain"):
        reader = open_source("mine", SourceSpec(path=str(tmp_path / name)), "refuse", None)
        assert reader is not None
        texts.append([record.text for record in reader.records()])
    assert texts[0] == texts[1]
    assert "".join(texts[0]) == content.decode()


def test_the_long_window_is_one_that_arrow_does_not_read():
    frame = looking_far_back(b"text" * 2**10)
    with pytest.raises(OSError, match="ZSTD"), pa.input_stream(pa.BufferReader(frame), "zstd") as s:
        s.read()


def test_a_key_that_some_records_lack_is_null_there(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"k": 1}\n{"text": "a"}\n{"k": 2}\n')
    reader = open_source("mine", SourceSpec(jsonl=str(file)), "refuse", None)
    assert reader is not None
    assert [record.text for record in reader.records()] == ["", "a", ""]


@pytest.mark.parametrize("count", [3, 256, 300])
def test_a_key_that_no_record_has_is_no_column(tmp_path, count):
    file = tmp_path / "a.jsonl"
    file.write_text('{"k": 1}\n' * count)
    with pytest.raises(RecipeError, match="has no column text; there are: k; name them"):
        open_source("mine", SourceSpec(jsonl=str(file)), "refuse", None)


def test_maps_and_json_in_tables_are_objects(tmp_path, encoder):
    kind = pa.list_(pa.map_(pa.string(), pa.string()))
    pairs = [[("role", "user"), ("content", "a")], [("role", "assistant"), ("content", "b")]]
    pq.write_table(pa.table({"m": pa.array([pairs], kind)}), tmp_path / "map.parquet")
    texts = [json.dumps(dict(pair)) for pair in pairs]
    written = pa.array([texts], pa.list_(pa.string())).cast(pa.list_(pa.json_()))
    pq.write_table(pa.table({"m": written}), tmp_path / "json.parquet")
    for name in ("map", "json"):
        source = SourceSpec(parquet=str(tmp_path / f"{name}.parquet"), messages="m")
        reader = open_source("mine", source, "refuse", encoder)
        assert reader is not None
        (record,) = reader.records()
        assert record.text == turn("user", "a") + turn("assistant", "b")


@pytest.mark.parametrize(
    ("value", "label"),
    [
        *((each, "1") for each in (1, 1, "1", "1.0", "1e0", "10E-1")),
        *((each, "true") for each in (True, "true", "True", "TRUE")),
        *((each, each) for each in ("01", "+1", "1.", ".5", "nan", "1,0", " 1", "yes", "1e999")),
        ("-0", "0"),
        ("12345678901234567890", "12345678901234567890"),
        (0.1, "0.1"),
        ("0.10", "0.1"),
        *((each, None) for each in ("", None, [], {})),
    ],
)
def test_a_label_has_one_spelling(value, label):
    assert spelled(value) == label


WRONG_MESSAGES = [
    ("x", "column m holds text that is no JSON: "),
    ({"role": "x"}, "column m holds dict; must be a list"),
    (["x"], "column m: message 1 is str; a message is {role: "),
    ([{"content": "x"}], "column m: message 1 has no role; it has content; a message is "),
    ([{"role": 1}], "column m: message 1 has no role; it has role"),
    ([{"role": "user", "content": 3}], "column m: message 1 has a content that is int; must be"),
    (
        [{"from": "narrator", "value": "x"}],
        "column m: message 1 is from 'narrator'; must be one of human, user, gpt, chatgpt, ",
    ),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
        "column m: message 1 has a part of type image_url; only parts of text can be read; write",
    ),
    ([{"role": "user", "content": ["x"]}], "column m: message 1 has a part of type str; only"),
]


@pytest.mark.parametrize(("value", "problem"), WRONG_MESSAGES)
def test_what_are_no_messages_is_said(tmp_path, encoder, value, problem):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"m": value}))
    with pytest.raises(RecipeError) as refused:
        open_source("mine", SourceSpec(jsonl=str(file), messages="m"), "refuse", encoder)
    assert f"line 1: {problem}" in str(refused.value)


@pytest.mark.parametrize(
    ("prompt", "completion", "problem"),
    [
        ("a", [{"role": "assistant", "content": "b"}], "column p holds text, and the other one"),
        ([{"role": "user", "content": "b"}], "a", "column c holds text, and the other one"),
        (
            [{"role": "user", "content": "b"}],
            [{"role": "user", "content": "c"}],
            "column c begins with role 'user'; must begin with an answer, role assistant",
        ),
    ],
)
def test_what_is_no_answer_in_a_conversation_is_said(
    tmp_path, encoder, prompt, completion, problem
):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"p": prompt, "c": completion}))
    source = SourceSpec(jsonl=str(file), prompt="p", completion="c")
    with pytest.raises(RecipeError) as refused:
        open_source("mine", source, "refuse", encoder)
    assert f"line 1: {problem}" in str(refused.value)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (
            {"ids": [5, 600]},
            "column ids: token 2 is 600; the vocabulary of data.tokenizer is 0 to 5",
        ),
        ({"ids": [-1]}, "column ids: token 1 is -1; the vocabulary"),
        (
            {"ids": [5.5]},
            "column ids holds other things than whole numbers; must be a list",
        ),
        ({"ids": [5, None]}, "column ids holds other things than whole numbers"),
        ({"ids": [[5], [6]]}, "column ids holds other things than whole numbers"),
        ({"ids": [[5], [6, 7]]}, "column ids holds no list of numbers: "),
        ({"ids": ["5"]}, "column ids holds other things than whole numbers"),
        ({"ids": 5}, "column ids holds int; must be a list of whole numbers; name another column"),
        ({"ids": "5 6"}, "column ids holds text that is no JSON: "),
        ({"ids": [5, 6], "l": [5]}, "column l has 1 numbers, ids has 2; give one for each token"),
        (
            {"ids": [5, 6], "l": [6, -100]},
            "column l: number 1 is 6; must be -100, or the token",
        ),
        ({"ids": [5, 6], "m": [1, 2]}, "column m: number 2 is 2; must be 0 or 1"),
    ],
)
def test_what_are_no_ready_tokens_is_said(tmp_path, encoder, record, problem):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(record))
    masks = {"labels": "l" if "l" in record else None, "loss_mask": "m" if "m" in record else None}
    with pytest.raises(RecipeError) as refused:
        source = replace(SourceSpec(jsonl=str(file), input_ids="ids"), **masks)
        open_source("mine", source, "refuse", encoder)
    assert f"line 1: {problem}" in str(refused.value)


def test_what_a_table_holds_that_is_no_json_or_no_map_is_said(tmp_path):
    broken = pa.array(["[1"], pa.string()).cast(pa.json_())
    twice = pa.array([[("a", "b"), ("a", "c")]], pa.map_(pa.string(), pa.string()))
    for column, problem in (
        (broken, "Expecting ',' delimiter"),
        (twice, "a map holds a key twice"),
    ):
        pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
        with pytest.raises(RecipeError, match=f"can't be read: {problem}"):
            open_source("mine", SourceSpec(parquet=str(tmp_path / "a.parquet")), "refuse", None)


def test_dates_and_other_numbers_have_a_normal_form():
    place = Location("field", "source")
    value = {
        "day": date(2026, 1, 2),
        "moment": datetime(2026, 1, 2, 3),
        "price": Decimal("1.50"),
        "count": Decimal("2"),
        "gap": float("nan"),
        "list": [None, 2.0, b"a"],
        "large": 1e300,
        "nothing": None,
    }
    assert normal(value, "refuse", place, "column k") == (
        {
            "day": "2026-01-02",
            "moment": "2026-01-02T03:00:00",
            "price": 1.5,
            "count": 2,
            "list": [None, 2, "a"],
            "large": 1e300,
        },
        0,
    )
    assert normal([b"\xff", {"\ud83c": "\xe9"}], "replace", place, "column k") == (
        ["\ufffd", {"\ufffd": "\xe9"}],
        2,
    )
    with pytest.raises(RecipeError, match="column k holds timedelta; must be text, numbers"):
        normal(timedelta(1), "refuse", place, "column k")


def test_columns_of_one_name_are_kept_apart(cache, tmp_path, encoder):
    """What is read of a column is part of what is kept, not its name alone."""
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"a": f"text {n}"}) + "\n" for n in range(9)))
    for source, classed in (
        (SourceSpec(jsonl=str(file), column="a"), False),
        (SourceSpec(jsonl=str(file), prompt="a", completion="a"), True),
    ):
        reader = open_source("mine", source, "refuse", encoder)
        assert reader is not None
        data = DataSpec({"mine": source}, {"mine": 1.0}, 16, 4)
        stream = tokenized("mine", source, reader, data, encoder).streams["train"]
        assert (stream.classes is not None) == classed
