"""Outer steps that validation contradicts: by hand, and in a search that is driven off."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from recipes import prepared, tiny
from rich.console import Console

from metatune.fit.outer_loop import fit
from metatune.fit.run_folder import RunFolder
from metatune.fit.searching import trust
from metatune.fit.searching.search import Search
from metatune.recipe import schema

OUTER = schema.OuterSpec(steps=9, validation=schema.ValidationSpec(seeds=2))


def at(search, step, losses):
    """The search at another point, whose best is kept as validation does."""
    search = search._replace(
        step=step, eta={"x": jnp.asarray(float(step))}, opt_state={"m": jnp.asarray(10.0 * step)}
    )
    mean = float(np.mean(losses)) if losses else np.inf
    if mean < search.best_held_out:
        search = search._replace(best_eta=search.eta, best_step=step, best_held_out=mean)
    return trust.judge(search, losses)


def begun():
    empty = {"x": jnp.asarray(0.0)}
    return Search(0, empty, {}, empty, trust=trust.begin(OUTER, {"m": jnp.asarray(0.0)}))


def test_a_rise_beyond_its_noise_is_taken_back():
    """Differences of (0.02, 0), (0, 0.02), (0.02, 0): a deviation of 0.01 each way, thrice.

    So the variance of one seed's difference is 3 · 2 · 0.01² / 3, and of the mean of two half that.
    """
    search, back = at(begun(), 0, (1.0, 1.1))
    for step, losses in enumerate([(0.98, 1.1), (0.98, 1.08), (0.96, 1.08)], start=1):
        search, back = at(search, step, losses)
        assert back is None and float(search.eta["x"]) == step
    error = np.sqrt(3 * 2 * 0.01**2 / 4 / 2)  # with a fourth difference, without any deviation
    near, back = at(search, 4, (0.96 + 1.9 * error, 1.08 + 1.9 * error))
    assert back is None and float(near.eta["x"]) == 4
    search, back = at(search, 4, (0.96 + 0.05, 1.08 + 0.05))
    assert back is not None
    assert back.to == 3 and back.scale == 0.5
    assert back.rise == pytest.approx(0.05, rel=1e-5)
    assert back.standard_error == pytest.approx(error, rel=1e-5)
    assert float(search.eta["x"]) == 3 and float(search.opt_state["m"]) == 30
    # From there on a step is compared with the best again, and halved anew.
    search, back = at(search, 5, (0.96 + 0.05, 1.08 + 0.05))
    assert back is not None and back.scale == 0.25
    search, back = at(search, 6, (0.9, 1.0))
    assert back is None and float(search.trust.scale) == 0.25 and search.best_step == 6


def test_little_is_known_at_first():
    """With one seed nothing ever is."""
    search, _ = at(begun(), 0, (1.0, 1.1))
    search, back = at(search, 1, (2.0, 2.1))
    assert back is None
    one = begun()
    for step, loss in enumerate([1.0, 2.0, 1.5, 3.0, 2.0, 5.0]):
        one, back = at(one, step, (loss,))
        assert back is None


def test_a_training_that_diverged_is_taken_back_at_once():
    search, _ = at(begun(), 0, (1.0, 1.1))
    search, back = at(search, 1, ())
    assert back is not None
    assert (back.to, back.scale) == (0, 0.5)
    assert back.line() == {"to": 0, "rise": None, "standard_error": None, "scale": 0.5}
    for step in range(2, 9):
        search, back = at(search, step, ())
    assert back is not None and back.scale == trust.LEAST


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"signal": "off"}, False),
        ({"ema": 0.5}, False),
        ({"unroll": schema.OnlineSpec(window=2)}, False),
        ({"unroll": schema.TruncatedSpec(window=2)}, True),
    ],
)
def test_which_searches_keep_to_it(changes, expected):
    assert trust.trusts(tiny(outer=changes)) is expected


def searched(folder, steps, resume=False, **outer):
    """Steps so large that they lead away: what is recorded, and what is said."""
    recipe = tiny(
        outer={
            "steps": steps,
            "optimizer": schema.AdamSpec(learning_rate=1.5),
            "validation": schema.ValidationSpec(seeds=3, sequences=64),
            "clip_norm": None,
        }
        | outer
    )
    recipe = dataclasses.replace(
        recipe,
        tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="global", windows=2)),
    )
    log = folder.with_suffix(".log")
    with log.open("a") as file:
        console = Console(file=file, width=1000)
        fit(prepared(recipe), folder, resume=resume, console=console)
    return RunFolder(folder).read_metrics(), log.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("trust") / "whole", 8)


def test_a_search_that_is_driven_off_comes_back(whole, tmp_path):
    """The last is near the best."""
    lines, said = whole
    free, _ = searched(tmp_path / "free", 8, signal="off")
    backs = [line["taken_back"] for line in lines if "taken_back" in line]
    assert backs and "the best: back to point" in said
    rise = lines[-1]["held_out"] - min(line["held_out"] for line in lines)
    assert rise < free[-1]["held_out"] - min(line["held_out"] for line in free)


# The state of a search is kept as a whole: tests/fit/test_outer_loop.py resumes others.
@pytest.mark.thorough
def test_a_search_that_is_driven_off_goes_on_exactly(whole, tmp_path):
    lines, _ = whole
    searched(tmp_path / "parted", 5)
    again, _ = searched(tmp_path / "parted", 8, resume=True)
    assert [line["held_out_each"] for line in again] == [line["held_out_each"] for line in lines]
    assert [line.get("taken_back") for line in again] == [line.get("taken_back") for line in lines]
