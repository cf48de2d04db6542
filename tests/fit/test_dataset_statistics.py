"""What a run says of its data."""

import dataclasses

import pytest
from recipes import tiny

from metatune.fit.telling import dataset_statistics
from metatune.inner import prepare
from metatune.recipe import schema

RECIPE = tiny(
    data={
        "domains": {
            "code": schema.SourceSpec(shipped="code_stdlib", max_tokens=100000),
            "bible": schema.SourceSpec(shipped="bible_web"),
        },
        "sequence_length": 64,
        "batch_size": 100,
    },
    inner={"steps": 100},
    tune=schema.TuneSpec(
        learning_rates=schema.LearningRatesSpec(per="global"),
        mixture=schema.MixtureSpec(initial={"code": 0.8, "bible": 0.2}),
    ),
)


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


def test_epochs_are_sequences_read_over_sequences_there_are(training):
    code, bible = training.corpus.domains
    assert dataset_statistics.epochs(training) == pytest.approx(
        {"code": 8000 / len(code.train), "bible": 2000 / len(bible.train)}, rel=1e-6
    )


def test_a_domain_that_is_read_more_than_four_times_is_warned_of(training):
    (warning,) = dataset_statistics.repeated(training)
    times = 8000 / len(training.corpus.domains[0].train)
    assert 4 < times < 8
    assert warning == (
        f"warning: domain code is read {times:.1f} times; repeated more than 4 times, text is "
        "worth less than fresh text"
    )
    shorter = prepare(
        dataclasses.replace(RECIPE, inner=dataclasses.replace(RECIPE.inner, steps=50))
    )
    assert list(dataset_statistics.repeated(shorter)) == []


def test_copies_of_documents_are_said(training):
    assert list(dataset_statistics.copied(training)) == []
    domains = dict.fromkeys(("one", "other"), RECIPE.data.domains["code"])
    data = dataclasses.replace(RECIPE.data, domains=domains, target={"one": 1.0})
    tune = dataclasses.replace(RECIPE.tune, mixture=None)
    count = training.corpus.statistics["code"].documents
    assert list(
        dataset_statistics.copied(prepare(dataclasses.replace(RECIPE, data=data, tune=tune)))
    ) == [
        f"domain {name}: of {count} documents 0 copy others of it, {count} stand in other domains "
        "too"
        for name in domains
    ]


def test_table_and_provenance_say_what_the_domains_hold(training):
    bible = training.corpus.statistics["bible"]
    times = dataset_statistics.epochs(training)["bible"]
    assert dataset_statistics.table(training).splitlines()[-1] == (
        f"| bible | {bible.documents:,} | {bible.tokens:,} | {bible.bytes_per_token:.2f} | "
        f"{bible.duplicates} | 0 | {times:.2f} |"
    )
    assert dataset_statistics.provenance(training)["bible"] == {
        "documents": bible.documents,
        "tokens": bible.tokens,
        "bytes_per_token": round(bible.bytes_per_token, 3),
        "epochs": round(times, 3),
    }
