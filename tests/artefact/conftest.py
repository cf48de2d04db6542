import dataclasses
import importlib
import json
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from metatune.artefact import (
    Artefact,
    ClassWeights,
    LearningRates,
    LossWeights,
    Mixture,
    Multipliers,
    Optimizer,
)
from metatune.artefact.manifest import hashes
from metatune.artefact.writing import integrity

ADAMW = {
    "kind": "adamw",
    "weight_decay": 0.1,
    "b1": 0.9,
    "b2": 0.95,
    "eps": 1e-8,
    "eps_root": 1e-12,
    "clip_norm": 1.0,
}
SGD = {
    "kind": "sgd",
    "weight_decay": 0.0,
    "momentum": 0.0,
    "nesterov": False,
    "clip_norm": None,
}


@pytest.fixture(params=["adamw", "sgd"])
def settings(request):
    return {"adamw": ADAMW, "sgd": SGD}[request.param]


@pytest.fixture
def make():
    """An artefact of `names`; rates are random numbers with all their digits."""

    def build(names=("a.weight", "b.weight", "c.bias"), steps=20, settings=ADAMW, **changes):
        random = np.random.default_rng(0)
        names = tuple(names)
        shares = random.dirichlet(np.ones(3), size=4)
        weights = random.uniform(0.5, 1.5, size=(2, 3))
        whole = Artefact(
            horizon_steps=steps,
            horizon_tokens=steps * 512,
            learning_rates=LearningRates(
                tuple(t / steps for t in range(steps)),
                "constant",
                {name: random.uniform(1e-4, 1e-1, size=steps) for name in names},
                Multipliers((0.0, 0.5), {"all": (0.3, 1.7)}, {"all": names}),
            ),
            mixture=Mixture((0.0, 0.25, 0.5, 0.75), "constant", ("code", "drama", "é"), shares),
            loss_weights=LossWeights(
                (0.0, 0.5),
                "linear",
                ("code", "drama", "é"),
                weights / weights.mean(axis=1, keepdims=True),
            ),
            optimizer=Optimizer(settings, names[:1]),
            provenance={"metatune": "0.1.0", "data_sha256": {"code": "0f"}, "packages": {}},
            result={"objective_before": 3.5, "objective_after": 3.25, "held_out_seeds": [1, 2]},
        )
        return dataclasses.replace(whole, **changes)

    return build


@pytest.fixture
def by_class():
    """Loss weights of two classes of tokens, on lines between two knots."""
    shares = np.array([0.7, 0.3])
    weights = np.random.default_rng(1).uniform(0.5, 1.5, size=(2, 2))
    weights /= (weights @ shares)[:, None]
    return ClassWeights((0.0, 0.5), "linear", ("prompt", "completion"), shares, weights)


@pytest.fixture
def edit():
    """Changes a tuned.json in place; with `sign`, as another writer would have written it."""

    def change(file, *keys, to, sign=False):
        document = json.loads(file.read_text())
        at = document
        for key in keys[:-1]:
            at = at[key]
        if to is KeyError:
            del at[keys[-1]]
        else:
            at[keys[-1]] = to
        if sign:
            beside = {path.name: path.read_bytes() for path in file.parent.iterdir()}
            if "files" in document["integrity"]:
                document["integrity"]["files"] = hashes(beside)
            document["integrity"]["sha256"] = integrity(document)
        file.write_text(json.dumps(document))

    return change


@pytest.fixture
def load_module(monkeypatch):
    """Imports a module of an export, and those that it needs, from its folder alone."""

    def load(folder, name="metatune_schedules"):
        for known in [key for key in sys.modules if key.startswith("metatune_")]:
            monkeypatch.delitem(sys.modules, known)
        monkeypatch.syspath_prepend(str(folder))
        return importlib.import_module(name)

    return load


@pytest.fixture
def stub(monkeypatch):
    """Puts a module in the place of one that can't be had, and those above it."""

    def put(name, **held) -> Any:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules:
                module = ModuleType(path)
                module.__path__ = []
                monkeypatch.setitem(sys.modules, path, module)
        for key, value in held.items():
            setattr(sys.modules[name], key, value)
        return sys.modules[name]

    return put
