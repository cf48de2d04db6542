"""A rater in the format: it comes back, faults are named, and targets that can't take it say so."""

import json
from importlib import resources

import jsonschema
import numpy as np
import pytest

from metatune.artefact import ArtefactError, Rater, load, self_contained, write
from metatune.artefact.capabilities import asked
from metatune.artefact.exporters import EXPORTERS, export, suited
from metatune.report.artefact_readme import what_is_tuned

SETTINGS = {
    "kind": "mlp",
    "hidden_size": 4,
    "layers": 1,
    "temperature": 0.5,
    "vocab_size": 259,
    "sequence_length": 64,
}


@pytest.fixture(params=["mlp", "transformer"])
def rater(request):
    random = np.random.default_rng(0)
    heads = {"heads": 2} if request.param == "transformer" else {}
    return Rater(
        {**SETTINGS, "kind": request.param, **heads},
        {
            "own": random.normal(size=(259, 4)).astype(np.float32),
            "head.kernel": random.normal(size=(4, 1)).astype(np.float32),
        },
    )


def valid(document):
    text = (resources.files("metatune.artefact") / "schema.json").read_text()
    return jsonschema.Draft202012Validator(json.loads(text)).is_valid(document)


def test_it_comes_back_to_the_last_bit(make, rater, tmp_path):
    write(tmp_path / "a", make(rater=rater), "")
    document = json.loads((tmp_path / "a" / "tuned.json").read_text())
    assert valid(document)
    assert document["rater"]["shapes"] == {"rater.own": [259, 4], "rater.head.kernel": [4, 1]}
    read = load(tmp_path / "a").rater
    assert read is not None
    assert read.settings == rater.settings
    assert set(read.parameters) == set(rater.parameters)
    for name, held in rater.parameters.items():
        np.testing.assert_array_equal(read.parameters[name], held)
    for key in ("tensors", "rater"):
        assert not valid({name: value for name, value in document.items() if name != key})


@pytest.mark.parametrize(
    ("keys", "to", "problem"),
    [
        (("rater", "kind"), "lstm", "rater.kind = 'lstm': must be one of mlp, transformer"),
        (("rater", "temperature"), 0, "rater.temperature = 0: must be a number above 0"),
        (("rater", "layers"), 0, "rater.layers = 0: must be a whole number of 1 or above"),
        (("rater", "unit"), "score", "rater.unit = 'score': must be"),
        (("rater", "shapes", "rater.own"), [259, 0], r"rater.shapes.rater.own\[1\] = 0: must be"),
        (("rater", "shapes", "rater.own"), [4, 259], r"must be float32 \[4, 259\]"),
        (("rater", "shapes", "own"), [4], "must begin with 'rater.'"),
        (("rater", "shapes", "rater.up"), [4], "must hold 'rater.up'"),
        (("tensors",), KeyError, "must be there if, and only if, something has numbers outside"),
    ],
)
def test_what_is_wrong_with_it_is_named(make, rater, tmp_path, edit, keys, to, problem):
    write(tmp_path / "a", make(rater=rater), "")
    edit(tmp_path / "a" / "tuned.json", *keys, to=to, sign=True)
    with pytest.raises(ArtefactError, match=problem):
        load(tmp_path / "a")


def test_numbers_that_are_not_finite_are_not_written(make, rater, tmp_path):
    rater.parameters["own"][3, 2] = np.nan
    with pytest.raises(ArtefactError, match="rater.shapes.rater.own = nan: must be finite"):
        write(tmp_path / "a", make(rater=rater), "")


def test_targets_that_cannot_take_it_say_so_and_lose_it_when_told(make, rater, tmp_path):
    artefact = make(rater=rater)
    assert asked(artefact)["rater"] == f"weights of sequences by a rater ({rater.settings['kind']})"
    assert [name for name, e in EXPORTERS.items() if e.capabilities["rater"] != "no"] == ["json"]
    with pytest.raises(ArtefactError, match="torch can't express it: weights of sequences by a"):
        export(artefact, "torch", tmp_path / "torch")
    done = export(artefact, "torch", tmp_path / "torch", lossy=True)
    assert any("a rater" in line for line in done.dropped)
    assert "rater" not in json.loads((tmp_path / "torch" / "tuned.json").read_text())
    assert not (tmp_path / "torch" / "tuned.safetensors").exists()
    export(artefact, "json", tmp_path / "json")
    kept = load(tmp_path / "json").rater
    assert kept is not None
    np.testing.assert_array_equal(kept.parameters["own"], rater.parameters["own"])
    assert "a rater" in (tmp_path / "json" / "README.md").read_text()


def test_it_does_not_stand_in_a_document_alone(make, rater):
    with pytest.raises(ArtefactError, match="parameters of a rater don't stand in a tuned.json"):
        self_contained(make(rater=rater))


def test_it_is_told_of(make, rater):
    kind = rater.settings["kind"]
    line = f"rater of sequences: {kind}, 1,040 parameters, for all of the training; "
    assert f"{line}`metatune score` rates texts with it" in what_is_tuned(make(rater=rater))


def test_a_target_that_takes_it_is_suggested(make, rater):
    assert suited(make(rater=rater)) == "json"
