"""Domains that are held-out sets of their own, or are trained on alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from metatune.data import heldout_batches, load, sampled_batches, stratified_batches
from metatune.recipe.schema import DataSpec, SourceSpec

LENGTH = 16


@pytest.fixture
def files(tmp_path):
    """Three files of 60 records, with no letter but that of their name."""
    found = {}
    for name in "abc":
        lines = [json.dumps({"text": f"{name}{n * n}" * 20}) + "\n" for n in range(60)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
        found[name] = SourceSpec(jsonl=str(tmp_path / f"{name}.jsonl"))
    return found


def section(files, target, **uses):
    domains = {name: replace(its, use=uses.get(name, "all")) for name, its in files.items()}
    return DataSpec(domains, target, LENGTH, 4)


def letters(batches):
    """What a batch's sequences are of, and the weight that each has in the mean of the batch."""
    found = {}
    for batch in batches:
        for row, weight in zip(batch.tokens, batch.weight, strict=True):
            (letter,) = {chr(token) for token in row if chr(token) in "abc"}
            found[letter] = found.get(letter, 0) + weight / len(batch.weight) / len(batches)
    return {letter: round(float(weight), 6) for letter, weight in sorted(found.items())}


def held(corpus, split):
    return letters(heldout_batches(corpus, split, seed=(0,), sequences=12, micro_batch=6))


def test_sets_of_their_own_are_measured_on_and_not_trained_on(cache, files):
    # The sets stand before what is trained on, whose order is the mixture's all the same.
    target = {"a": 3.0, "b": 1.0, "c": 3.0}
    corpus = load(section(files, target, a="validation", c="test"))
    assert corpus.names == ("b",)
    assert [domain.name for domain in corpus.measured] == ["b", "a", "c"]
    assert corpus.target.tolist() == [1 / 7, 3 / 7, 3 / 7]
    for batches in (sampled_batches, stratified_batches):
        batch = batches(corpus, seed=(0,), batch_size=4, shares=np.ones((1, 1)))(0)
        assert set(letters([batch])) == {"b"}
    assert held(corpus, "validation") == {"a": 0.75, "b": 0.25}
    assert held(corpus, "test") == {"b": 0.25, "c": 0.75}


def test_all_documents_of_a_set_are_in_its_split(cache, files):
    corpus = load(section(files, {"b": 1, "c": 1}, a="train", b="validation", c="test"))
    assert corpus.names == ("a",)
    counts = {
        domain.name: [
            len(getattr(domain, s).stream.starts) for s in ("train", "validation", "test")
        ]
        for domain in corpus.measured
    }
    assert counts == {"a": [60, 0, 0], "b": [0, 60, 0], "c": [0, 0, 60]}
    assert held(corpus, "validation") == {"b": 1.0}
    assert held(corpus, "test") == {"c": 1.0}
    assert corpus.statistics["c"].documents == 60


def test_without_sets_of_their_own_nothing_changes(cache, files):
    corpus = load(section(files, {"a": 1, "c": 3}))
    assert corpus.names == ("a", "b", "c")
    assert corpus.aside == ()
    for split in ("validation", "test"):
        assert corpus.target_of(split).tobytes() == corpus.target.tobytes()
    assert held(corpus, "validation") == held(corpus, "test") == {"a": 0.25, "c": 0.75}


def test_the_use_of_a_domain_is_part_of_what_is_kept(cache, files):
    one = load(section(files, {"b": 1}, a="train")).domains[0]
    other = load(section(files, {"b": 1})).domains[0]
    assert one.sha256 == other.sha256
    assert len(one.validation.stream.tokens) == 0 < len(other.validation.stream.tokens)
