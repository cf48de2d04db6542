"""What is said of an artefact, and what is refused rather than ignored."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from metatune.artefact import (
    Artefact,
    ArtefactError,
    ClassWeights,
    LearningRates,
    LossWeights,
    Mixture,
    Optimizer,
)
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.train import matching
from metatune.train.following import FOLLOWERS

NAMES = ("a.weight", "b.weight", "c.bias")
ADAMW = schema.AdamWSpec(learning_rate=1.0, weight_decay=0.1, b1=0.9, b2=0.95)


DOMAINS = ("code", "drama", "é")
SETTINGS = {"kind": "adamw", "weight_decay": 0.1, "b1": 0.9, "b2": 0.95, "clip_norm": 1.0}
TUNED = Artefact(
    horizon_steps=20,
    horizon_tokens=20 * 512,
    learning_rates=LearningRates((0.0,), "constant", {name: np.ones(1) for name in NAMES}),
    mixture=Mixture((0.0,), "constant", DOMAINS, np.full((1, 3), 1 / 3)),
    loss_weights=LossWeights((0.0,), "constant", DOMAINS, np.ones((1, 3))),
    optimizer=Optimizer(SETTINGS, NAMES[:1]),
    provenance={"tokenizer_sha256": "ab", "model_config": {"hidden_size": 8}},
    result={"status": "complete"},
)


def training(**changes) -> Any:
    """As much of a training as is looked at; its data has 10 tokens of text and 5 of prompts."""
    inner = SimpleNamespace(optimizer=ADAMW, steps=20, loss=None)
    known = {
        "recipe": SimpleNamespace(
            inner=inner, data=SimpleNamespace(batch_size=8, sequence_length=64)
        ),
        "names": {name: ParameterNames((name,), False) for name in NAMES},
        "corpus": SimpleNamespace(
            names=("code", "drama", "é"),
            tokenizer=SimpleNamespace(sha256="ab"),
            class_tokens=lambda: np.array([[10, 0, 0, 0, 0], [0, 5, 0, 0, 0]]),
        ),
        "model": SimpleNamespace(config_json=lambda: {"hidden_size": 8}),
        "decayed": lambda: ("a.weight",),
    }
    return SimpleNamespace(**(known | changes))


def test_what_fits_is_taken_without_a_word():
    matching.refuse_misfit(TUNED, training(), "mine")
    assert list(matching.remarks(TUNED, training())) == []


def test_what_differs_is_said():
    tuned = dataclasses.replace(
        TUNED,
        result={"status": "unfinished"},
        provenance={"tokenizer_sha256": "cd", "model_config": {"hidden_size": 16}},
    )
    optimizer = schema.AdamWSpec(learning_rate=1.0, b2=0.99)
    recipe = SimpleNamespace(
        inner=SimpleNamespace(optimizer=optimizer, steps=200, loss=None),
        data=SimpleNamespace(batch_size=8, sequence_length=64),
    )
    decayed = ("a.weight", "b.weight")
    said = list(matching.remarks(tuned, training(recipe=recipe, decayed=lambda: decayed)))
    assert said[0].startswith("warning: the artefact is of a search that isn't finished")
    assert "tuned for an optimizer with b2 0.95; the recipe's 0.99 is used" in said[1]
    assert "of 1 parameters, such as b.weight, weight decay" in said[2]
    assert "another tokenizer" in said[3]
    assert "another model config" in said[4]
    assert "10 times the updates" in said[5]
    assert len(said) == 6


def test_classes_must_be_those_of_the_data():
    classes = ("prompt", "completion")
    weights = ClassWeights((0.0,), "constant", classes, np.full(2, 0.5), np.ones((1, 2)))
    with pytest.raises(ArtefactError) as error:
        matching.refuse_misfit(dataclasses.replace(TUNED, loss_weights=weights), training(), "mine")
    lines = str(error.value).splitlines()
    assert lines[0] == "--with: doesn't fit mine, nothing is trained:"
    assert lines[1:] == [
        "  1 classes of tokens of the artefact that mine doesn't have:",
        "    completion",
        "  1 classes of tokens of mine that the artefact doesn't have:",
        "    text",
    ]


def test_sections_that_are_not_followed_are_refused(monkeypatch):
    monkeypatch.delitem(FOLLOWERS, "learning_rates")
    with pytest.raises(ArtefactError, match="learning_rates = 'tuned': .* can't follow it"):
        matching.refuse_misfit(TUNED, training(), "mine")
