"""Merged groups: the nearest curves become one, weight decays stay apart, the error is stated."""

import dataclasses
import re

import numpy as np
import pytest

from metatune.artefact import ArtefactError, LearningRates, Multipliers
from metatune.artefact.exporters import export
from metatune.artefact.horizon import base_rates
from metatune.artefact.merging import merged

NAMES = ("a", "b", "c", "d")
BASE = np.array([1e-3, 2e-3, 0.5e-3, 0.5e-3])
FACTORS = {"a": (1.0, 1.0), "b": (1.21, 1.21), "c": (1.0, 4.0), "d": (1.0, 1.0)}


@pytest.fixture
def artefact(make):
    """Four groups over two windows; `d` has the curve of `a` and no weight decay."""
    curves = {name: BASE * np.repeat(FACTORS[name], 2) for name in NAMES}
    members = {name: (name,) for name in NAMES}
    rates = LearningRates(
        (0.0, 0.25, 0.5, 0.75), "constant", curves, Multipliers((0.0, 0.5), FACTORS, members)
    )
    whole = make(NAMES, 4, learning_rates=rates)
    return dataclasses.replace(
        whole, optimizer=dataclasses.replace(whole.optimizer, decayed=("a", "b", "c"))
    )


def test_the_nearest_become_their_mean_by_size(artefact):
    changed, said = merged(artefact, 3, {"a": 30, "b": 10, "c": 1, "d": 1})
    rates = changed.learning_rates.parameters
    mean = 1.21**0.25
    np.testing.assert_allclose(rates["a"], BASE * mean, rtol=1e-12)
    np.testing.assert_allclose(rates["b"], BASE * mean, rtol=1e-12)
    np.testing.assert_array_equal(rates["c"], artefact.learning_rates.parameters["c"])
    np.testing.assert_array_equal(rates["d"], artefact.learning_rates.parameters["d"])
    off = 1 - mean / 1.21
    assert said == (
        "fitted: 4 groups of parameters merged into 3, with the geometric means of their rates, "
        f"weighted by size: a rate is off by up to {100 * off:.3g} %"
    )
    np.testing.assert_allclose(base_rates(changed), BASE, rtol=1e-12)


def test_weight_decays_stay_apart(artefact):
    changed, _ = merged(artefact, 2)
    rates = changed.learning_rates.parameters
    assert [name for name in NAMES if np.array_equal(rates[name], rates["a"])] == ["a", "b", "c"]
    np.testing.assert_array_equal(rates["d"], BASE)
    with pytest.raises(ArtefactError, match="groups = 1: parameters have 2 weight decays"):
        merged(artefact, 1)


def test_no_more_than_there_are_changes_nothing(artefact):
    changed, said = merged(artefact, 4)
    assert changed is artefact and said.startswith("4 groups of parameters: no more than the 4")


@pytest.mark.needs("torch")
def test_an_export_has_so_many_groups(artefact, tmp_path, load_module):
    import torch

    done = export(artefact, "torch", tmp_path / "out", groups=3)
    model = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.ones(2)) for name in NAMES})
    groups = load_module(tmp_path / "out").param_groups(model, 4)
    assert len(groups) == 3
    assert f"- {done.merged}" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(ArtefactError, match=re.escape("groups = 0: must be a whole number of 1")):
        export(artefact, "torch", tmp_path / "more", groups=0)
