"""Penalties move the search, averages of its steps may win it; no training is done here."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny
from rich.console import Console

from metatune import artefact, tunables
from metatune.fit import outer_loop
from metatune.fit.outer_loop import fit
from metatune.fit.searching import hypergradients as hypergradients_of
from metatune.fit.searching.points import taken
from metatune.hypergrad import Diagnostics, Hypergradient
from metatune.inner import prepare
from metatune.recipe import schema

RECIPE = tiny(
    tune=schema.TuneSpec(
        learning_rates=schema.LearningRatesSpec(per="global", windows=2),
        mixture=schema.MixtureSpec(
            windows=2, initial={"code": 1, "drama": 3}, kl=0.3, smoothness=0.2
        ),
    ),
    outer={
        "optimizer": schema.DescentSpec(learning_rate=0.5, momentum=0.0),
        "clip_norm": None,
        "objective": schema.ObjectiveSpec(sequences=8, micro_batch=8, deviation=0.4),
        "test": schema.FinalTestSpec(seeds=1, sequences=8),
    },
)
SLOPES = {"learning_rates": [[0.5], [-0.25]], "mixture": [[-1.0, 1.0], [0.5, 0.0]]}


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


def changed(training, **changes):
    outer = dataclasses.replace(RECIPE.outer, **changes)
    return dataclasses.replace(training, recipe=dataclasses.replace(RECIPE, outer=outer))


def run(training, out, **options):
    with open(os.devnull, "w") as nowhere:
        return fit(training, out, console=Console(file=nowhere), **options)


@pytest.fixture
def visited(monkeypatch):
    """The meta-parameters that a hypergradient of `SLOPES` is asked for at."""
    seen = []

    def estimate(problem, eta, state, batches, outer_batches, **options):
        seen.append(jax.tree.map(np.asarray, eta) | {"points": options["points"]})
        slopes = {key: jnp.asarray(slope) for key, slope in SLOPES.items()}
        return Hypergradient(jnp.float32(2.0), slopes, state, Diagnostics(jnp.ones(1)))

    monkeypatch.setattr(hypergradients_of, "hypergradient", estimate)
    monkeypatch.setattr(outer_loop, "held_out_loss", lambda *_, **__: 1.0)
    return seen


def test_penalties_join_the_hypergradient_and_no_loss(training, visited, tmp_path):
    lines = run(training, tmp_path).folder.read_metrics()
    first = training.initial_eta()

    def price(eta):
        """As the recipe says it, of shares by hand."""
        shares = jax.nn.softmax(eta["mixture"], axis=-1)
        prior = jnp.array([[0.25, 0.75]])
        divergence = jnp.mean(jnp.sum(shares * jnp.log(shares / prior), axis=-1))
        changes = jnp.sum((shares[1] - shares[0]) ** 2)
        away = sum(jnp.mean((eta[key] - first[key]) ** 2) for key in eta)
        return 0.3 * divergence + 0.2 * changes + 0.4 * away

    assert (len(visited), [line["step"] for line in lines]) == (4, [0, 1, 2, 3, 4])
    assert price({key: visited[3][key] for key in first}) > 0.1
    for at, after, line in zip(visited, visited[1:], lines, strict=False):
        here = {key: at[key] for key in first}
        assert line["penalty"] == pytest.approx(float(price(here)), rel=1e-5, abs=1e-6)
        assert (line["objective"], line["held_out"]) == (2.0, 1.0)
        assert line["hypergradient_norm"]["learning_rates"] == pytest.approx(0.3125**0.5)
        assert at["points"] == {6: 1.0}
        slopes = jax.grad(price)(here)
        for key, slope in SLOPES.items():
            expected = at[key] - 0.5 * (np.array(slope) + np.asarray(slopes[key]))
            np.testing.assert_allclose(after[key], expected, atol=1e-5)


def test_without_penalties_the_search_is_that_of_the_hypergradient(training, visited, tmp_path):
    free = dataclasses.replace(
        training,
        tunables=tuple(
            dataclasses.replace(each, kl=0.0, smoothness=0.0) if each.key == "mixture" else each
            for each in training.tunables
        ),
    )
    objective = dataclasses.replace(RECIPE.outer.objective, deviation=0.0)
    lines = run(changed(free, objective=objective), tmp_path).folder.read_metrics()
    assert {line["penalty"] for line in taken(lines)} == {0.0}
    for key, slope in SLOPES.items():
        expected = visited[0][key] - 1.5 * np.array(slope)
        np.testing.assert_allclose(visited[3][key], expected, atol=1e-6)


@pytest.fixture
def goal(training, monkeypatch):
    """A quadratic bowl in place of the trainings, whose slope is `steepness` times the way."""
    return Bowl(jax.tree.map(lambda leaf: leaf + 0.3, training.initial_eta()), monkeypatch)


class Bowl:
    def __init__(self, at, monkeypatch):
        self.at, self.steepness = at, 0.0
        self.asked, self.stop_at = [], None
        monkeypatch.setattr(hypergradients_of, "hypergradient", self.estimate)
        monkeypatch.setattr(outer_loop, "held_out_loss", self.score)

    def away(self, eta):
        return jax.tree.map(lambda leaf, there: leaf - there, eta, self.at)

    def estimate(self, problem, eta, state, batches, outer_batches, **options):
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(jax.tree.map(np.asarray, eta))
        slopes = jax.tree.map(lambda leaf: self.steepness * leaf, self.away(eta))
        return Hypergradient(jnp.float32(2.0), slopes, state, Diagnostics(jnp.ones(1)))

    def score(self, training, eta, **_):
        return float(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(self.away(eta))))


def averaging(training):
    """The training whose search follows the hypergradient alone, and judges its average too."""
    objective = dataclasses.replace(RECIPE.outer.objective, deviation=0.0)
    plain = dataclasses.replace(
        training,
        tunables=tuple(
            dataclasses.replace(each, kl=0.0, smoothness=0.0) if each.key == "mixture" else each
            for each in training.tunables
        ),
    )
    return changed(plain, objective=objective, ema=0.9)


def test_the_average_may_be_the_best_and_a_run_goes_on_with_it(training, goal, tmp_path):
    """Steps of a length that leaps over the goal to and fro: their average is nearer."""
    goal.steepness = 3.6
    whole = run(averaging(training), tmp_path / "whole")
    lines = whole.folder.read_metrics()
    assert [line["held_out_average"] < line["held_out"] for line in lines] == [False] + [True] * 4
    assert whole.artefact.result["best_is_average"] is True
    assert whole.artefact.result["best_outer_step"] in (1, 2, 3, 4)
    weights = 0.9 ** np.arange(1, -1, -1)
    of_two = {
        key: (weights[0] * goal.asked[0][key] + weights[1] * goal.asked[1][key]) / weights.sum()
        for key in goal.asked[0]
    }
    assert lines[1]["held_out_average"] == pytest.approx(goal.score(None, of_two), rel=1e-4)
    goal.asked, goal.stop_at = [], 2
    stopped = run(averaging(training), tmp_path / "stopped")
    assert stopped.interrupted
    goal.stop_at = None
    run(averaging(training), tmp_path / "stopped", resume=True)
    for name in ("tuned.json", "README.md"):
        again = (tmp_path / "stopped" / "artefact" / name).read_bytes()
        assert again == (tmp_path / "whole" / "artefact" / name).read_bytes()
    assert "moving average" in (whole.folder.artefact / "README.md").read_text()
    assert artefact.load(whole.folder.path).result["best_is_average"] is True


def test_a_search_whose_average_is_worse_says_so(training, goal, tmp_path):
    """Steps that go straight to the goal: their average comes after."""
    goal.steepness = 0.5
    done = run(averaging(training), tmp_path)
    lines = done.folder.read_metrics()
    assert [line["held_out_average"] > line["held_out"] for line in lines] == [False] + [True] * 4
    result = done.artefact.result
    assert (result["best_is_average"], result["best_outer_step"]) == (False, 4)
    assert "moving average" not in (done.folder.artefact / "README.md").read_text()


def test_of_an_average_that_is_as_good_the_point_stays(training, visited, tmp_path):
    result = run(changed(training, ema=0.5), tmp_path).artefact.result
    assert result["best_is_average"] is False


def test_deviation_is_a_mean_over_each_tunable(training):
    eta = jax.tree.map(lambda leaf: leaf + 2.0, training.initial_eta())
    without = float(tunables.penalty(training.tunables, eta))
    found = float(tunables.penalty(training.tunables, eta, deviation=0.5)) - without
    assert found == pytest.approx(0.5 * 2 * 4.0, rel=1e-5)


def test_the_objective_is_asked_for_along_the_training(training, visited, tmp_path):
    along = dataclasses.replace(
        RECIPE.outer.objective, trajectory=schema.TrajectorySpec(points=3, exponent=1.0)
    )
    run(changed(training, objective=along, steps=1), tmp_path)
    assert visited[0]["points"] == pytest.approx({2: 1 / 6, 4: 2 / 6, 6: 3 / 6})
