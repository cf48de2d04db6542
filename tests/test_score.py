"""`metatune score`: documents and sequences rated by a tuned rater, the best of them kept."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny
from typer.testing import CliRunner

from metatune import artefact
from metatune.cli.commands import app
from metatune.fit.making import artefact_of
from metatune.inner import prepare
from metatune.recipe import schema

LENGTH = 16
TEXTS = ("First.", "A second, which is longer than a single sequence.", "x" * LENGTH)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "beer.txt"
    path.write_text("".join(f"{number} bottles of beer on the wall\n" for number in range(4000)))
    return path


@pytest.fixture(scope="module")
def training(corpus):
    source = schema.SourceSpec(path=str(corpus), corrupt=schema.CorruptionSpec(share=0.5))
    return prepare(
        tiny(
            data={"domains": {"beer": source}, "target": {"beer": 1.0}, "sequence_length": LENGTH},
            inner={"steps": 2},
            tune=schema.TuneSpec(rater=schema.MlpRaterSpec(hidden_size=4)),
        )
    )


@pytest.fixture(scope="module")
def eta(training):
    shape = training.initial_eta()["rater"].shape
    return {"rater": jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)}


@pytest.fixture(scope="module")
def run(training, eta, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "artefact"
    artefact.write(folder, artefact_of(training, eta, {"status": "unfinished"}), "")
    return folder


def metatune(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def scored(training, eta, tokens, mask=None):
    (rater,) = training.tunables
    return np.asarray(rater.rating.scores(rater.rating.unravelled(eta["rater"]), tokens, mask))


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def test_a_document_s_score_is_the_mean_over_its_tokens(training, eta, run, documents, tmp_path):
    done = metatune("score", run, documents, "--out", tmp_path / "scores.jsonl")
    assert done.exit_code == 0, done.output
    assert "scored 3, wrote 3 of them" in done.output
    lines = lines_of(tmp_path / "scores.jsonl")
    assert [line["text"] for line in lines] == list(TEXTS)
    assert [line["document"] for line in lines] == [0, 1, 2]
    encoder = training.corpus.tokenizer
    for line in lines:
        ids = np.append(encoder.encode(line["text"]), encoder.eos_id).astype(int)
        assert line["tokens"] == len(ids)
        # Sequence by sequence, without any padding; one token alone is predicted from none.
        cut = [ids[i : i + LENGTH] for i in range(0, len(ids), LENGTH)]
        cut = [its for its in cut if len(its) > 1]
        scores = [float(scored(training, eta, its[None])[0]) for its in cut]
        want = np.average(scores, weights=[len(its) - 1 for its in cut])
        assert line["score"] == pytest.approx(want, rel=1e-4, abs=1e-5)


def test_the_best_are_kept_in_their_order(run, documents, tmp_path):
    metatune("score", run, documents, "--out", tmp_path / "all.jsonl")
    everything = lines_of(tmp_path / "all.jsonl")
    worst = min(everything, key=lambda line: line["score"])
    done = metatune("score", run, documents, "--out", tmp_path / "best.jsonl", "--keep", 0.67)
    assert done.exit_code == 0, done.output
    kept = lines_of(tmp_path / "best.jsonl")
    assert kept == [line for line in everything if line != worst]
    assert {path.name for path in tmp_path.iterdir()} == {"texts.jsonl", "all.jsonl", "best.jsonl"}


def test_a_text_file_is_scored_as_the_data_cuts_it(run, corpus, tmp_path):
    done = metatune("score", run, corpus, "--out", tmp_path / "scores.jsonl")
    assert done.exit_code == 0, done.output
    assert "".join(line["text"] for line in lines_of(tmp_path / "scores.jsonl")) == (
        corpus.read_text()
    )


def test_of_a_domain_the_training_sequences_are_scored(training, eta, run, tmp_path):
    done = metatune("score", run, "beer", "--out", tmp_path / "scores.jsonl")
    assert done.exit_code == 0, done.output
    windows = training.corpus.domains[0].train
    places = np.arange(len(windows))
    lines = lines_of(tmp_path / "scores.jsonl")
    assert [line["sequence"] for line in lines] == windows.numbers.tolist()
    assert [line["corrupted"] for line in lines] == windows.corrupted(places).tolist()
    want = scored(training, eta, windows.take(places).tokens)
    np.testing.assert_allclose([line["score"] for line in lines], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.txt"], "input nothing.txt = 'nothing.txt': "),
        (["beer", "--keep", "1.5"], "--keep = 1.5: must be a share above 0, 1 at most"),
    ],
)
def test_what_is_wrong_is_said(run, tmp_path, arguments, message):
    done = metatune("score", run, *arguments, "--out", tmp_path / "scores.jsonl")
    assert done.exit_code == 2
    assert message in done.output
    assert not list(tmp_path.iterdir())


def test_an_older_file_stays_unless_it_is_to_go(run, documents, tmp_path):
    out = tmp_path / "scores.jsonl"
    out.write_text("mine")
    done = metatune("score", run, documents, "--out", out)
    assert done.exit_code == 2
    assert f"--out {out}: is there; --overwrite to replace it" in done.output
    assert out.read_text() == "mine"
    assert metatune("score", run, documents, "--out", out, "--overwrite").exit_code == 0
    assert len(lines_of(out)) == 3


def test_an_artefact_without_a_rater_scores_nothing(training, eta, documents, tmp_path):
    held = dataclasses.replace(artefact_of(training, eta, {"status": "unfinished"}), rater=None)
    artefact.write(tmp_path / "run", held, "")
    done = metatune("score", tmp_path / "run", documents, "--out", tmp_path / "scores.jsonl")
    assert done.exit_code == 2
    assert "rater: the artefact holds none; tune one" in done.output


def test_of_an_export_the_tokenizer_is_not_known(run, documents, tmp_path):
    done = metatune("export", run, "--to", "json", "--out", tmp_path / "json")
    assert done.exit_code == 0, done.output
    done = metatune("score", tmp_path / "json", documents, "--out", tmp_path / "scores.jsonl")
    assert done.exit_code == 2
    assert "isn't in the artefact, which is an export's: the tokenizer isn't known" in done.output
