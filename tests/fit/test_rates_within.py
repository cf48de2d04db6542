"""A whole search for a rate of every element: what it leaves behind."""

import os

import pytest
from recipes import CODE, tiny
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metatune import artefact
from metatune.fit.outer_loop import fit
from metatune.fit.searching.points import taken
from metatune.inner import prepare
from metatune.recipe import schema

RECIPE = tiny(
    {"intermediate_size": 12, "initializer_range": 0.3},
    data={"domains": {"code": CODE}, "batch_size": 2},
    inner={"steps": 4},
    tune=schema.TuneSpec(
        learning_rates=schema.LearningRatesSpec(
            per="element", windows=2, interpolation="linear", smoothness=0.1, prior=0.3
        )
    ),
    outer=schema.OuterSpec(
        steps=2,
        estimator=schema.MixFlowSpec(segment=2),
        objective=schema.ObjectiveSpec(sequences=2, micro_batch=2),
        validation=schema.ValidationSpec(seeds=1, sequences=4),
        test=schema.FinalTestSpec(seeds=1, sequences=4),
    ),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with open(os.devnull, "w") as nowhere:
        return fit(prepare(RECIPE), tmp_path_factory.mktemp("run"), console=Console(file=nowhere))


def test_the_artefact_holds_a_factor_for_each_element(finished):
    rates = artefact.load(finished.folder.path).learning_rates
    assert rates.elements is not None
    assert rates.elements.interpolation == "linear"
    assert set(rates.elements.parameters) == set(rates.parameters)
    text = (finished.folder.artefact / "README.md").read_text()
    assert "multipliers within 12 parameters, on lines between 2 knots" in text
    assert "model.norm.weight median" in text
    # No line for each element.
    assert len(text.splitlines()) < 250


def test_the_penalty_is_zero_at_the_start_and_then_paid(finished):
    first, second = taken(finished.folder.read_metrics())
    assert first["penalty"] == 0
    # Adam's first step moves every log multiplier by its rate, 0.1 by default, or nowhere.
    assert 0 < second["penalty"] <= 0.3 * 0.1**2 + 0.1 * 0.2**2


def test_tensorboard_shows_quantiles_of_each_tensor(finished):
    events = EventAccumulator(str(finished.folder.tensorboard))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("window_mean/learning_rate/")]
    names = len(artefact.load(finished.folder.path).learning_rates.parameters)
    assert len(tags) == names * 3 * 2  # quantiles, windows
    low, middle, high = (
        events.Scalars(
            f"window_mean/learning_rate/mlp/model.layers.0.mlp.up_proj.weight {label}/2"
        )[1].value
        for label in ("10 %", "median", "90 %")
    )
    assert low <= middle <= high
    assert low < high
