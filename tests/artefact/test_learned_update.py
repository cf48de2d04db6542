"""Learned updates in the format."""

import json
from importlib import resources

import jsonschema
import numpy as np
import pytest

from metatune import artefact
from metatune.artefact import ArtefactError, LearnedUpdate
from metatune.artefact.document import faults, tensor_faults
from metatune.artefact.exporters import suited
from metatune.report.artefact_readme import what_is_tuned


@pytest.fixture
def learned():
    random = np.random.default_rng(0)
    shapes = {"hidden": (2, 4 + 2 + 3, 8), "bias": (2, 8), "output": (2, 8)}
    weights = {key: random.normal(size=size).astype(np.float32) for key, size in shapes.items()}
    return LearnedUpdate(
        groups={"first": ("a.weight",), "rest": ("b.weight",)},
        decays=(0.5, 0.9),
        second_moment_decay=0.99,
        time_scales=(0.1, 0.3, 1.0),
        max_multiplier=4.0,
        step_size="kept",
        **weights,
    )


@pytest.fixture
def written(make, learned, tmp_path):
    artefact.write(tmp_path / "artefact", make(learned_update=learned), "")
    return tmp_path / "artefact"


def test_every_weight_comes_back(written, learned):
    read = artefact.load(written)
    found = read.learned_update
    assert found is not None
    assert found.document() == learned.document()
    assert found.tensors.keys() == learned.tensors.keys()
    for name, weights in learned.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], weights)
    text = (resources.files("metatune.artefact") / "schema.json").read_text()
    jsonschema.validate(json.loads((written / "tuned.json").read_text()), json.loads(text))
    assert "learned update: 2 networks of 176 weights" in "".join(what_is_tuned(read))


def test_it_has_no_place_in_a_document_alone(make, learned):
    with pytest.raises(ArtefactError, match="networks don't stand in a tuned.json"):
        artefact.self_contained(make(learned_update=learned))


@pytest.mark.parametrize(
    ("key", "to", "said"),
    [
        ("hidden_size", 4, "hidden = 'float32 [2, 9, 8]': must be float32 [2, 9, 4]"),
        ("decays", [0.5], "learned_update.hidden = 'float32 [2, 9, 8]': must be float32 [2, 8, 8]"),
        ("decays", [1.5], "learned_update.decays[0] = 1.5: must be a number above 0, below 1"),
        ("second_moment_decay", 1, "learned_update.second_moment_decay = 1: must be between 0 and"),
        ("max_multiplier", 1, "learned_update.max_multiplier = 1: must be a number above 1"),
        ("step_size", "any", "learned_update.step_size = 'any': must be learned or kept"),
        ("groups", {"a": ["nobody"]}, "learned_update.groups.a = 'nobody': must be a name of"),
    ],
)
def test_a_wrong_value_is_named(written, learned, key, to, said):
    document = json.loads((written / "tuned.json").read_text())
    document["learned_update"][key] = to
    found = faults(document, "mend it") or tensor_faults(document, learned.tensors, "mend it")
    assert any(said in str(fault) for fault in found), found


def test_weights_are_numbers_and_stand_beside(written, learned):
    document = json.loads((written / "tuned.json").read_text())
    spoilt = {**learned.tensors, "learned_update.bias": learned.bias * np.nan}
    assert "learned_update.bias" in str(tensor_faults(document, spoilt, "mend it")[0])
    del document["tensors"]
    assert "something has numbers outside" in str(faults(document, "mend it")[0])


def test_a_target_that_takes_it_is_suggested(make, learned):
    assert suited(make()) == "hf-trainer"
    assert suited(make(learned_update=learned)) == "torch"
