"""Rules on the terms of the training loss."""

import pytest

from metatune.recipe import reading
from metatune.recipe.faults import RecipeError


def recipe(loss, tune, kind="adamw"):
    return {
        "model": {"config": {"model_type": "llama"}},
        "data": {
            "domains": {"a": {"shipped": "code_stdlib"}},
            "target": {"a": 1.0},
            "sequence_length": 16,
            "batch_size": 4,
        },
        "inner": {"optimizer": {"kind": kind, "learning_rate": 1e-3}, "steps": 10, "loss": loss},
        "tune": {"learning_rates": {}, **tune},
        "outer": {"steps": 1},
    }


def faults(*args, **options):
    with pytest.raises(RecipeError) as refused:
        reading.parse(recipe(*args, **options), "mine.yaml")
    return [str(fault) for fault in refused.value.faults]


def test_a_recipe_with_terms_is_read():
    found = reading.parse(
        recipe({"z_loss": 1e-4}, {"loss_terms": {"z_loss": {"windows": 5}}}), "mine.yaml"
    )
    assert found.inner.loss is not None and found.inner.loss.z_loss == 1e-4
    keys = [(key, path) for key, path, _ in found.tune.entries()]
    assert ("z_loss", "tune.loss_terms.z_loss") in keys


def test_what_is_tuned_is_there():
    assert faults(None, {"loss_terms": {}}) == [
        "tune.loss_terms = {}: nothing of the loss is tuned; write one of z_loss, "
        "label_smoothing, multi_token_prediction, router_balance, e.g. `z_loss: {}`, or take "
        "tune.loss_terms out"
    ]
    terms = {"z_loss": {}, "label_smoothing": {}}
    assert faults({"label_smoothing": 0.1}, {"loss_terms": terms}) == [
        "tune.loss_terms.z_loss = {'windows': 1}: inner.loss.z_loss is 0, which no factor changes; "
        "give inner.loss.z_loss a value above 0 to start from, or take this out"
    ]


def test_coefficients_have_ranges():
    found = faults({"z_loss": -1.0, "label_smoothing": 1.0}, {})
    assert found[0].startswith("inner.loss.z_loss = -1.0: must be 0 or above")
    assert found[1].startswith("inner.loss.label_smoothing = 1.0: must be a fraction from 0 up to")


def test_balance_of_experts_is_of_whole_batches():
    found = recipe({"router_balance": 0.1}, {})
    found["inner"]["micro_batch"] = 2
    with pytest.raises(RecipeError) as refused:
        reading.parse(found, "mine.yaml")
    assert [str(fault) for fault in refused.value.faults] == [
        "inner.micro_batch = 2: inner.loss.router_balance is over all tokens of a batch together; "
        "take one of the two out"
    ]


def test_windows_have_steps():
    (fault,) = faults({"z_loss": 0.1}, {"loss_terms": {"z_loss": {"windows": 11}}})
    assert fault.startswith("tune.loss_terms.z_loss.windows = 11: must be at most inner.steps, 10")


def test_lion_takes_the_sign_of_what_they_change():
    (fault,) = faults({"z_loss": 0.1}, {"loss_terms": {"z_loss": {}}}, kind="lion")
    assert fault.startswith("tune.loss_terms = {'z_loss'")
    assert "has a hypergradient of zero: lion takes the sign of the gradient" in fault


def test_a_multi_token_head_has_a_weight_and_something_to_predict():
    found = reading.parse(
        recipe(
            {"multi_token_prediction": {}},
            {"loss_terms": {"multi_token_prediction": {"windows": 2}}},
        ),
        "mine.yaml",
    )
    assert found.inner.loss is not None
    assert found.inner.loss.coefficients() == {
        "z_loss": 0.0,
        "label_smoothing": 0.0,
        "auxiliary": 0.3,
        "router_balance": 0.0,
    }
    assert faults(None, {"loss_terms": {"multi_token_prediction": {}}}) == [
        "tune.loss_terms.multi_token_prediction = {'windows': 1}: "
        "inner.loss.multi_token_prediction is null: there is no head whose weight to tune; write "
        "inner.loss.multi_token_prediction: {weight: 0.3}, or take this out"
    ]
    (fault,) = faults({"multi_token_prediction": {"weight": 0.0}}, {})
    assert fault.startswith("inner.loss.multi_token_prediction.weight = 0.0: must be ")
    (fault,) = faults({"multi_token_prediction": {"kind": "third"}}, {})
    assert fault.startswith("inner.loss.multi_token_prediction.kind = 'third'")
    short = recipe({"multi_token_prediction": {}}, {})
    short["data"]["sequence_length"] = 2
    with pytest.raises(RecipeError, match="data.sequence_length = 2: no token is two after"):
        reading.parse(short, "mine.yaml")
