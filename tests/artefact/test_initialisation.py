"""The start of an artefact: written, read back, exported, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from metatune import artefact
from metatune.artefact import ArtefactError, Initialisation, Interpolated, load, write
from metatune.artefact.exporters import export

RANDOM = np.random.default_rng(0)
WEIGHTS = {
    name: RANDOM.normal(size=shape).astype(np.float32)
    for name, shape in {"a.weight": (3, 2), "b.weight": (2,), "c.bias": ()}.items()
}
STARTS = {
    "point": Initialisation("point", WEIGHTS),
    "interpolation": Initialisation(
        "interpolation",
        WEIGHTS,
        Interpolated({"other": {"ab": 0.3, "c": -0.1}}, {"ab": ("a.weight", "b.weight"), "c": ()}),
    ),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
def test_a_start_comes_back_as_it_was_written(make, tmp_path, start):
    write(tmp_path / "run", make(initialisation=start), "")
    found = load(tmp_path / "run").initialisation
    assert found is not None and found.kind == start.kind
    assert (found.interpolated is None) == (start.interpolated is None)
    if found.interpolated is not None and start.interpolated is not None:
        assert vars(found.interpolated) == vars(start.interpolated)
    assert found.parameters.keys() == WEIGHTS.keys()
    for name, weights in WEIGHTS.items():
        np.testing.assert_array_equal(found.parameters[name], weights)
        assert found.parameters[name].dtype == np.float32


def test_an_artefact_without_one_has_no_key(make, tmp_path):
    write(tmp_path / "run", make(), "")
    assert "initialisation" not in json.loads((tmp_path / "run" / "tuned.json").read_text())
    assert load(tmp_path / "run").initialisation is None


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ({**WEIGHTS, "a.weight": np.full((3, 2), np.nan, np.float32)}, "weights must be finite"),
        ({**WEIGHTS, "b.weight": np.zeros(2)}, r"float64 \[2\].*: must be float32 \[2\]"),
        ({"a.weight": WEIGHTS["a.weight"]}, "must have every parameter"),
    ],
)
def test_what_is_no_start_is_not_written(make, tmp_path, weights, line):
    wrong = make(initialisation=Initialisation("point", weights))
    with pytest.raises(ArtefactError, match=line):
        write(tmp_path / "run", wrong, "")


def test_a_point_between_checkpoints_is_refused(make, tmp_path):
    wrong = Initialisation("point", WEIGHTS, STARTS["interpolation"].interpolated)
    with pytest.raises(ArtefactError, match="if, and only if, kind is interpolation"):
        write(tmp_path / "run", make(initialisation=wrong), "")


def test_an_export_carries_the_start_and_names_it(make, tmp_path):
    whole = make(initialisation=STARTS["point"], loss_weights=None)
    export(whole, "hf-trainer", tmp_path / "out")
    held = load_file(tmp_path / "out" / artefact.INITIALISATION)
    np.testing.assert_array_equal(held["a.weight"], WEIGHTS["a.weight"])
    assert "starts from tuned weights" in (tmp_path / "out" / "README.md").read_text()
    assert load(tmp_path / "out").initialisation is not None
    save_file({"a.weight": np.zeros(2, np.float32)}, tmp_path / "out" / artefact.INITIALISATION)
    with pytest.raises(ArtefactError, match="isn't the one that was written"):
        load(tmp_path / "out")
    (tmp_path / "out" / artefact.INITIALISATION).unlink()
    with pytest.raises(ArtefactError, match="where the weights of the start must be"):
        load(tmp_path / "out")


def test_a_target_that_takes_no_start_refuses_or_drops_it(make, tmp_path):
    whole = make(initialisation=STARTS["point"])
    with pytest.raises(ArtefactError, match="csv can't express it: a start of 9 weights"):
        export(whole, "csv", tmp_path / "out")
    exported = export(whole, "csv", tmp_path / "out", lossy=True)
    assert exported.dropped == ("a start of 9 weights",)
    assert not (tmp_path / "out" / artefact.INITIALISATION).exists()
    with pytest.raises(ArtefactError, match="don't stand in a tuned.json"):
        artefact.self_contained(whole)
