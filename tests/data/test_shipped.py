"""The shipped corpora are what was shipped, and their papers say the same as the code."""

import lzma
import re
from dataclasses import replace
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from metatune.data import SHIPPED, DamagedCorpus, load, shipped, shipped_text
from metatune.data.sources import readers
from metatune.recipe.schema import DataSpec, SourceSpec

README = (shipped.CORPORA / "README.md").read_text(encoding="utf-8")
NOTICE = (Path(__file__).parents[2] / "NOTICE").read_text(encoding="utf-8")


def rows(table):
    """The cells of each row of a markdown table that begins with a corpus's name."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if cells and cells[0] in SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_text_is_the_one_recorded(name):
    content = shipped_text(name).encode("utf-8")
    assert len(content) == SHIPPED[name].bytes
    assert sha256(content).hexdigest() == SHIPPED[name].sha256


def test_every_file_is_listed_and_every_listed_file_is_there():
    assert {file.name for file in shipped.CORPORA.glob("*.xz")} == {f"{n}.txt.xz" for n in SHIPPED}


def test_the_readme_records_the_same_and_the_notice_attributes_each():
    recorded = rows(README.split("How far apart")[0])
    assert {name: (int(cells[0]), cells[2]) for name, cells in recorded.items()} == {
        name: (corpus.bytes, corpus.sha256) for name, corpus in SHIPPED.items()
    }
    assert set(SHIPPED) == set(re.findall(r"^(\w+)$", NOTICE.split("PYTHON SOFTWARE")[0], re.M)) - {
        "metatune"
    }
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in NOTICE


def trigrams(name):
    """The byte trigrams of a text, ascending, and their shares."""
    content = np.frombuffer(shipped_text(name).encode("utf-8"), np.uint8).astype(np.int64)
    codes, counts = np.unique(
        content[:-2] << 16 | content[1:-1] << 8 | content[2:], return_counts=True
    )
    return codes, counts / counts.sum()


def jensen_shannon(one, other):
    """The divergence of two distributions over trigrams, in bits."""
    codes = np.union1d(one[0], other[0])
    both = np.zeros((2, len(codes)))
    for row, (own, shares) in zip(both, (one, other), strict=True):
        row[np.searchsorted(codes, own)] = shares

    def entropy(shares):
        return -np.sum(shares[shares > 0] * np.log2(shares[shares > 0]))

    return entropy(both.mean(axis=0)) - (entropy(both[0]) + entropy(both[1])) / 2


def test_the_readme_says_how_far_apart_the_texts_are():
    table = {name: list(map(float, row)) for name, row in rows(README.split("How far")[1]).items()}
    assert list(table) == list(SHIPPED)
    measured = {name: trigrams(name) for name in SHIPPED}
    for (i, one), (j, other) in combinations(enumerate(SHIPPED), 2):
        distance = jensen_shannon(measured[one], measured[other])
        assert table[one][j] == table[other][i] == pytest.approx(distance, abs=0.0051)


def test_a_text_is_decompressed_once():
    assert shipped_text("prose_austen") is shipped_text("prose_austen")


def test_a_text_whose_tokens_are_kept_is_not_decompressed(tmp_path, monkeypatch):
    monkeypatch.setenv("METATUNE_CACHE", str(tmp_path))
    source = SourceSpec(shipped="prose_austen", max_tokens=200_000)
    data = DataSpec(
        domains={"prose": source}, target={"prose": 1.0}, sequence_length=32, batch_size=1
    )
    first = load(data)

    def unread(name):
        raise AssertionError(f"{name} is decompressed")

    monkeypatch.setattr(readers, "shipped_text", unread)
    again = load(data)
    assert [domain.sha256 for domain in again.domains] == [
        domain.sha256 for domain in first.domains
    ]
    np.testing.assert_array_equal(
        again.domains[0].train.stream.tokens, first.domains[0].train.stream.tokens
    )
    with pytest.raises(AssertionError, match="prose_austen is decompressed"):
        load(replace(data, domains={"prose": replace(source, max_tokens=199_000)}))


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no shipped corpus 'prose'; there are: code_stdlib, "):
        shipped_text("prose")


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    """An empty folder in the place of the shipped texts."""
    monkeypatch.setattr(shipped, "CORPORA", tmp_path)
    return tmp_path


def test_another_text_is_refused(corpora):
    file = corpora / "prose_austen.txt.xz"
    file.write_bytes(lzma.compress(b"It is a truth universally acknowledged"))
    with pytest.raises(DamagedCorpus) as caught:
        shipped_text("prose_austen")
    found = sha256(b"It is a truth universally acknowledged").hexdigest()
    assert str(caught.value) == (
        f"the shipped corpus {file} holds a text of sha256 {found}, "
        f"not {SHIPPED['prose_austen'].sha256}; install metatune again"
    )


@pytest.mark.parametrize("content", [None, b"", b"no xz at all", lzma.compress(b"cut off")[:-8]])
def test_a_file_that_cannot_be_read_is_refused(corpora, content):
    file = corpora / "prose_austen.txt.xz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DamagedCorpus, match="can't be read: .*; install metatune again") as caught:
        shipped_text("prose_austen")
    assert str(file) in str(caught.value)
