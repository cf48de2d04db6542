import dataclasses
import json
import math
import os
from importlib import resources

import jsonschema
import numpy as np
import pytest

from metatune.artefact import ArtefactError, LearningRates, Optimizer, load, write
from metatune.artefact import folders as folders_module
from metatune.artefact.sections import learning_rates as rates_module


def assert_same(one, other):
    for a, b in ((one.learning_rates, other.learning_rates),):
        assert (a.knots, a.interpolation, a.multipliers) == (
            b.knots,
            b.interpolation,
            b.multipliers,
        )
        assert list(a.parameters) == list(b.parameters)
        for name, curve in a.parameters.items():
            assert b.parameters[name].dtype == np.float64
            np.testing.assert_array_equal(curve, b.parameters[name], strict=True)
    for field in ("mixture", "loss_weights"):
        a, b = getattr(one, field), getattr(other, field)
        assert (a.knots, a.interpolation, a.domains) == (b.knots, b.interpolation, b.domains)
        np.testing.assert_array_equal(a.weights, b.weights, strict=True)
    for field in ("horizon_steps", "horizon_tokens", "optimizer", "provenance", "result"):
        assert getattr(one, field) == getattr(other, field)


@pytest.fixture
def schema():
    text = (resources.files("metatune.artefact") / "schema.json").read_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    return jsonschema.Draft202012Validator(json.loads(text))


@pytest.mark.parametrize("readable", [10**6, 0], ids=["in JSON", "in a tensor"])
def test_every_number_comes_back(make, settings, schema, tmp_path, monkeypatch, readable):
    monkeypatch.setattr(rates_module, "READABLE_NUMBERS", readable)
    artefact = make(settings=settings)
    file = write(tmp_path / "artefact", artefact, "# Read me\n")
    assert_same(artefact, load(file))
    schema.validate(json.loads(file.read_text()))
    names = {entry.name for entry in file.parent.iterdir()}
    assert names == {"tuned.json", "README.md"} | ({"tuned.safetensors"} if not readable else set())
    assert (file.parent / "README.md").read_text() == "# Read me\n"


def test_what_was_not_tuned_is_null(make, schema, tmp_path):
    artefact = make(mixture=None, loss_weights=None)
    rates = dataclasses.replace(artefact.learning_rates, multipliers=None)
    file = write(tmp_path / "a", dataclasses.replace(artefact, learning_rates=rates), "")
    schema.validate(json.loads(file.read_text()))
    back = load(file)
    assert (back.mixture, back.loss_weights, back.learning_rates.multipliers) == (None, None, None)


def test_a_curve_is_one_line(make, tmp_path):
    artefact = make()
    lines = write(tmp_path / "a", artefact, "").read_text().splitlines()
    curve = artefact.learning_rates.parameters["b.weight"].tolist()
    assert f'      "b.weight": {curve},' in lines
    assert len(lines) < 80


def test_the_schema_refuses_what_load_refuses(make, schema, tmp_path, edit):
    file = write(tmp_path / "a", make(), "")
    for keys, to in (
        (("version",), 2),
        (("learning_rates", "knots"), [0.0, 1.5]),
        (("learning_rates", "parameters", "b.weight"), [-1.0]),
        (("mixture", "unit"), "share of tokens"),
        (("optimizer", "momentum"), 0.5),
        (("surplus",), 1),
    ):
        write(tmp_path / "a", make(), "")
        edit(file, *keys, to=to)
        assert not schema.is_valid(json.loads(file.read_text())), keys
        with pytest.raises(ArtefactError):
            load(file)


def test_a_second_artefact_replaces_the_first_whole(make, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(rates_module, "READABLE_NUMBERS", 0)
        write(tmp_path / "a", make(), "old")
    write(tmp_path / "a", make(names=["other.weight"]), "new")
    assert {entry.name for entry in (tmp_path / "a").iterdir()} == {"tuned.json", "README.md"}
    assert list(load(tmp_path / "a").learning_rates.parameters) == ["other.weight"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("fails_at", ["first file", "last file", "first rename", "last rename"])
def test_a_failure_leaves_the_old_artefact(make, tmp_path, monkeypatch, fails_at):
    old = make()
    write(tmp_path / "a", old, "old")
    which, what = fails_at.split()
    place, name = (os, "rename") if what == "rename" else (folders_module, "_write_through")
    real, calls = getattr(place, name), []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == (1 if which == "first" else 2):
            raise OSError("no space left")
        return real(*arguments)

    monkeypatch.setattr(place, name, failing)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path / "a", make(names=["other.weight"]), "new")
    monkeypatch.undo()
    assert_same(old, load(tmp_path / "a"))
    assert (tmp_path / "a" / "README.md").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_is_put_back(make, tmp_path):
    write(tmp_path / "a", make(), "old")
    os.rename(tmp_path / "a", tmp_path / ".a.old")
    (tmp_path / ".a.new").mkdir()
    with pytest.raises(ArtefactError):
        write(tmp_path / "a", make(horizon_steps=0), "bad")
    write(tmp_path / "a", make(), "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_somebody_elses_files_are_never_replaced(make, tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(ArtefactError) as caught:
        write(tmp_path, make(), "")
    assert str(caught.value) == (
        f"writing: folder = {str(tmp_path)!r}: holds what metatune did not write there: "
        "thesis.tex; move that away, or name another folder"
    )
    with pytest.raises(ArtefactError, match="must be a folder, new or to be replaced; name anoth"):
        write(tmp_path / "thesis.tex", make(), "")
    assert (tmp_path / "thesis.tex").read_text() == "all of it"


def test_what_could_not_be_read_back_is_not_written(make, tmp_path):
    artefact = make(
        horizon_steps=0,
        optimizer=Optimizer({"kind": "adamw"}, ("d",)),
        result={"objective_after": math.inf, "seeds": {1: 2}},
    )
    with pytest.raises(ArtefactError) as caught:
        write(tmp_path / "a", artefact, "")
    text = str(caught.value)
    cure = "; an artefact can't be written with it"
    assert text.startswith(f"{tmp_path / 'a'}: ")
    number = "must be a string, a finite number, true, false, null, a list or an object"
    for line in (
        f"horizon.steps = 0: must be a whole number of 1 or above{cure}",
        f"optimizer.weight_decay: this key must be there{cure}",
        f"result.objective_after = inf: {number}{cure}",
        f"result.seeds, key = 1: must be a string{cure}",
    ):
        assert f"\n  {line}" in text
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("readable", [10**6, 0], ids=["in JSON", "in a tensor"])
def test_rates_are_checked_wherever_they_go(make, tmp_path, monkeypatch, readable):
    monkeypatch.setattr(rates_module, "READABLE_NUMBERS", readable)
    rates = LearningRates((0.0, 0.5), "constant", {"a.weight": np.array([1.0, np.nan])})
    with pytest.raises(ArtefactError) as caught:
        write(tmp_path / "a", make(learning_rates=rates, loss_weights=None), "")
    assert str(caught.value) == (
        f"{tmp_path / 'a'}: learning_rates.parameters.a.weight[1] = nan: "
        "must be a finite number of 0 or above; an artefact can't be written with it"
    )
    short = LearningRates((0.0, 0.5), "constant", {"a.weight": np.array([1.0])})
    with pytest.raises(ArtefactError, match=r"learning_rates.parameters.a.weight, (shape|length)"):
        write(tmp_path / "a", make(learning_rates=short), "")
