"""What held-out numbers are, in words: derived in one place, from what the recipe says."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import metatune.recipe
from metatune.recipe import measures, schema

BYTES = schema.DataSpec({}, {}, sequence_length=8, batch_size=1)
WORDS = dataclasses.replace(BYTES, tokenizer="smollm2-135m")
MATCH = {"measure": "exact_match"}
ACCURACY = {"measure": "accuracy"}


def outer(classes: Any = None, average: Any = "tokens", **more: Any):
    objective = schema.ObjectiveSpec(classes=classes, average=average, **more)
    return schema.OuterSpec(steps=1, objective=objective)


def recipe(search: schema.OuterSpec, data: schema.DataSpec, **more: Any):
    """One of which nothing else counts."""
    model, tune = schema.ModelSpec(config={}), schema.TuneSpec()
    inner = schema.InnerSpec(schema.AdamWSpec(1e-3), steps=1)
    return schema.Recipe(model, data, inner, tune, search, **more)


@pytest.mark.parametrize(
    ("search", "data", "expected"),
    [
        (outer(), BYTES, "nats per byte"),
        (outer(), WORDS, "nats per token"),
        (outer(("completion",)), WORDS, "nats per completion token"),
        # The end of a completion is a token, and no byte of it.
        (outer(("completion",)), BYTES, "nats per completion token"),
        (outer(("prompt", "completion")), WORDS, "nats per prompt or completion token"),
        (outer(average="sequences"), WORDS, "nats per token, averaged over sequences"),
        (
            outer(("completion",), "sequences"),
            WORDS,
            "nats per completion token, averaged over sequences",
        ),
        (
            outer(worst_case=0.1),
            BYTES,
            "nats per byte, smooth worst case of the target's domains",
        ),
        (outer(**ACCURACY), BYTES, "of negative accuracy over bytes"),
        (outer(("completion",), **ACCURACY), WORDS, "of negative accuracy over completion tokens"),
        (
            outer(average="sequences", **ACCURACY),
            WORDS,
            "of negative accuracy over tokens, averaged over sequences",
        ),
        (outer(("completion",), **MATCH), WORDS, "of negative exact match over sequences"),
    ],
)
def test_a_unit_says_what_is_measured_and_what_it_is_the_mean_over(search, data, expected):
    wanted = recipe(search, data)
    assert measures.unit(wanted) == expected
    assert f"are {expected}" in measures.sentence(wanted)


def test_a_command_s_loss_is_its_own():
    wanted = recipe(outer(), BYTES, trainer=schema.TrainerSpec("true"))
    assert measures.unit(wanted) == "of the command's loss"
    assert measures.sentence(wanted) == "held-out numbers are of the command's loss"


@pytest.mark.parametrize("average", ["tokens", "sequences"])
def test_exact_matches_are_of_sequences(average):
    assert measures.average(outer(average=average)) == average
    assert measures.average(outer(average=average, **MATCH)) == "sequences"


def test_the_training_loss_is_of_all_tokens():
    assert measures.training_unit(BYTES) == "nats per byte"
    said = measures.sentence(recipe(outer(("completion",)), WORDS))
    assert "the inner loss is nats per token, the mean over a batch's tokens" in said


def test_no_unit_of_a_held_out_number_is_written_elsewhere():
    root = Path(metatune.recipe.__file__).parents[1]
    files = [*root.rglob("*.py"), *root.rglob("*.md")]
    assert len(files) > 200
    found = [file.name for file in files if "nats per" in file.read_text(encoding="utf-8")]
    assert found == ["measures.py"]
