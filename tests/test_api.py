"""The doctests of the Python interface, on a small artefact."""

import doctest

import jax.numpy as jnp
import numpy as np
import pytest

from metatune import api
from metatune.artefact import Artefact, LearningRates, LossWeights, Mixture, Optimizer, write

NAMES = ("model.embed_tokens.weight", "model.norm.weight")


@pytest.fixture
def run(tmp_path):
    held = Artefact(
        horizon_steps=10,
        horizon_tokens=1000,
        learning_rates=LearningRates(
            (0.0, 0.5),
            "constant",
            {NAMES[0]: np.array([4e-3, 4e-3]), NAMES[1]: np.array([1e-3, 2e-3])},
        ),
        mixture=Mixture(
            (0.0, 0.5), "constant", ("code", "drama"), np.array([[0.5, 0.5], [0.75, 0.25]])
        ),
        loss_weights=LossWeights((0.0,), "constant", ("code", "drama"), np.array([[1.5, 0.5]])),
        optimizer=Optimizer(
            {
                "kind": "sgd",
                "weight_decay": 0.0,
                "momentum": 0.0,
                "nesterov": False,
                "clip_norm": None,
            },
            (),
        ),
        provenance={},
        result={},
    )
    write(tmp_path / "run" / "artefact", held, "")
    return tmp_path / "run"


@pytest.fixture
def model():
    import torch

    inner = torch.nn.ModuleDict(
        {"embed_tokens": torch.nn.Embedding(4, 2), "norm": torch.nn.RMSNorm(2)}
    )
    return torch.nn.ModuleDict({"model": inner})


def test_the_doctests_hold(run, model):
    import torch

    names = {"run": run, "tuned": api.load(run), "model": model, "torch": torch, "jnp": jnp}
    result = doctest.testmod(api, extraglobs=names)
    assert (result.attempted >= 14, result.failed) == (True, 0)


def test_optax_moves_each_parameter_by_its_rate(run):
    params = {name: jnp.ones(2) for name in NAMES}
    optimizer = api.load(run).optax()
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    for name, rate in zip(NAMES, (4e-3, 1e-3), strict=True):
        np.testing.assert_allclose(updates[name], -rate * np.ones(2), rtol=1e-6)


def test_another_model_is_refused_with_both_sides(run, model):
    model["model"]["final"] = model["model"].pop("norm")
    with pytest.raises(ValueError, match=r"final\.weight[\s\S]*1 curves have no.*\n  model\.norm"):
        api.load(run).torch_param_groups(model)
