"""Domains are read from where the recipe says, or all that is wrong is said at once."""

import re
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from metatune.data import SHIPPED, ByteTokenizer, load
from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import DataSpec, HeldOutSpec, SourceSpec

CODE = SourceSpec(shipped="code_stdlib")
KINDS = "shipped, path, jsonl, parquet, csv, arrow, dataset, saved"
SHIPPED_NAMES = ", ".join(SHIPPED)


def data(domains, target, sequence_length=64, **settings):
    return DataSpec(domains, target, sequence_length, batch_size=8, **settings)


def rows(windows):
    """The tokens of all windows."""
    return windows.tokens(np.arange(len(windows)))


def faults(section):
    """The lines of the error that `load` raises."""
    with pytest.raises(RecipeError) as caught:
        load(section)
    assert str(caught.value).startswith(f"data: {len(caught.value.faults)} fault")
    return [str(fault) for fault in caught.value.faults]


@pytest.fixture(scope="module")
def corpus():
    domains = {"code": CODE, "bible": SourceSpec(shipped="bible_web")}
    return load(data(domains, {"bible": 3, "code": 1}))


def test_domains_keep_the_order_of_the_recipe_and_the_target_sums_to_one(corpus):
    assert corpus.names == ("code", "bible")
    assert corpus.target.dtype == np.float64
    assert corpus.target.tolist() == [0.25, 0.75]
    assert corpus.sequence_length == 64
    assert [domain.sha256 for domain in corpus.domains] == [
        SHIPPED["code_stdlib"].sha256,
        SHIPPED["bible_web"].sha256,
    ]


def test_a_domain_without_target_weighs_nothing():
    loaded = load(data({"a": CODE, "b": CODE}, {"b": 2.0}))
    assert loaded.target.tolist() == [0.0, 1.0]


def test_the_windows_hold_all_tokens_but_the_last_of_each_split(corpus):
    for domain in corpus.domains:
        held = [rows(domain.train), rows(domain.validation), rows(domain.test)]
        assert all(windows.dtype == np.uint16 and windows.shape[1] == 64 for windows in held)
        windows = [window.tobytes() for its in held for window in its]
        assert len(windows) == sum(map(len, (domain.train, domain.validation, domain.test)))
        # Held-out windows whose text stands in an earlier split are left out: a few.
        left_out = domain.statistics.tokens // 64 - len(windows)
        assert 0 <= left_out <= 0.02 * len(windows)
    # Each byte is a token, and so is each document's end.
    code = corpus.domains[0]
    held = code.statistics
    assert held.tokens == SHIPPED["code_stdlib"].bytes + held.documents
    assert held.bytes == SHIPPED["code_stdlib"].bytes


def test_the_splits_share_no_window_and_no_line(tmp_path):
    file = tmp_path / "unique.txt"
    file.write_text("".join(f"{number:07}\n" for number in range(30_000)))
    (domain,) = load(data({"mine": SourceSpec(path=str(file))}, {"mine": 1})).domains
    decode = ByteTokenizer().decode
    seen = [
        {line for window in windows for line in decode(window).split("\n") if len(line) == 7}
        for windows in map(rows, (domain.train, domain.validation, domain.test))
    ]
    assert all(seen)
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_no_window_is_in_two_splits_even_of_a_text_that_repeats_itself(corpus):
    for domain in corpus.domains:
        train, outer, report = (
            {window.tobytes() for window in rows(its)}
            for its in (domain.train, domain.validation, domain.test)
        )
        assert not (train & outer or train & report or outer & report)


def test_a_text_that_only_repeats_itself_is_refused(tmp_path):
    file = tmp_path / "digits.txt"
    file.write_text("".join(map(str, np.random.default_rng(0).integers(0, 10, 500_000))))
    source = {"mine": SourceSpec(path=str(file))}
    validation, test = faults(data(source, {"mine": 1.0}, sequence_length=2))
    assert "every window of its validation split stands in an earlier split too" in validation
    assert "every window of its test split stands in an earlier split too" in test


def test_held_out_shares_are_about_those_asked_for():
    (domain,) = load(data({"code": CODE}, {"code": 1}, held_out=HeldOutSpec(0.3, 0.05))).domains
    for windows, share in ((domain.validation, 0.3), (domain.test, 0.05)):
        error = np.sqrt(share * (1 - share) / domain.statistics.documents)
        assert rows(windows).size / domain.statistics.tokens == pytest.approx(share, abs=3 * error)


def test_a_file_is_read_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = "".join(f"¿Línea {number}?\n" for number in range(8000)).encode("utf-8")
    Path("mine.txt").write_bytes(content)
    (domain,) = load(data({"mine": SourceSpec(path="mine.txt")}, {"mine": 1})).domains
    assert domain.sha256 == sha256(content).hexdigest()
    assert domain.statistics.tokens == len(content) + domain.statistics.documents


def test_all_faults_are_reported_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("latin.txt").write_bytes("niño".encode("latin-1"))
    Path("blank.txt").write_text(" \n")
    Path("folder").mkdir()
    sources = {
        "code": SourceSpec(shipped="code_stdli"),
        "gone": SourceSpec(path="gone.txt"),
        "latin": SourceSpec(path="latin.txt"),
        "blank": SourceSpec(path="blank.txt"),
        "folder": SourceSpec(path="folder"),
        "both": SourceSpec(shipped="code_stdlib", path="gone.txt"),
        "none": SourceSpec(),
    }
    names = ", ".join(sources)
    assert faults(data(sources, {"cod": 1.0, "gone": -1.0})) == [
        "data.domains.both = {'shipped': 'code_stdlib', 'path': 'gone.txt'}: "
        f"must have exactly one of {KINDS}; keep one of them",
        f"data.domains.none = {{}}: must have exactly one of {KINDS}; write one of them",
        f"data.target.cod = 1.0: unknown domain; did you mean code? (allowed: {names})",
        "data.target.gone = -1.0: must be 0 or above; weights are normalised to sum to one",
        "data.domains.code.shipped = 'code_stdli': unknown shipped corpus; "
        f"did you mean code_stdlib? (allowed: {SHIPPED_NAMES})",
        "data.domains.gone.path = 'gone.txt': no such file; "
        f"relative paths start at the working directory, {tmp_path}",
        "data.domains.latin.path = 'latin.txt': isn't UTF-8: byte 2 is 0xf1; "
        "convert it to UTF-8 text, or set data.invalid_utf8 to replace",
        "data.domains.blank.path = 'blank.txt': holds no text; give a source with text in it",
        "data.domains.folder.path = 'folder': is a folder; write a glob, e.g. folder/*",
    ]


def test_a_recipe_without_domains_is_refused():
    assert faults(data({}, {"code": 1.0}))[0].startswith("data.domains = {}: names no domain; ")


def test_a_target_of_zeros_is_refused():
    assert faults(data({"code": CODE}, {"code": 0.0})) == [
        "data.target = {'code': 0.0}: must have a weight above 0; weigh at least one domain"
    ]


def test_held_out_shares_leave_something_to_train_on():
    found = faults(data({"code": CODE}, {"code": 1.0}, held_out=HeldOutSpec(0.5, 0.5)))
    assert found == [
        "data.held_out.validation = 0.5: with test = 0.5 leaves nothing to train on; "
        "must sum to less than 1; lower one of them",
    ]


def test_a_sequence_longer_than_the_data_is_refused_with_the_longest_that_would_do():
    def of_length(length):
        return data({"code": CODE}, {"code": 1.0}, sequence_length=length)

    found = faults(of_length(2_000_000))
    pattern = (
        r"data\.sequence_length = 2000000: longer than the data: the (\w+) split of domain code "
        r"has (\d+) tokens; lower it to at most (\d+), or give the domain more text, or "
        r"data\.held_out (smaller shares|a larger \1 share)"
    )
    said = [re.fullmatch(pattern, line) for line in found]
    assert [match and match[1] for match in said] == ["train", "validation", "test"]
    lengths = [int(match[2]) for match in said if match]
    assert lengths == [int(match[3]) for match in said if match]
    assert len(load(of_length(min(lengths))).domains[0].train) > 1
    assert len(faults(of_length(min(lengths) + 1))) == 1


def test_a_file_of_one_document_leaves_splits_without_any(tmp_path):
    file = tmp_path / "small.txt"
    file.write_text("A single document.")
    found = faults(data({"mine": SourceSpec(path=str(file))}, {"mine": 1.0}))
    empty = [line for line in found if "no document falls into its" in line]
    assert len(empty) == 2
    assert all(line.startswith("data.domains.mine = ") for line in empty)
    (short,) = set(found) - set(empty)
    assert short.startswith("data.sequence_length = 64: longer than the data: the ")
    assert "split of domain mine has 19 tokens; lower it to at most 19, or give" in short
