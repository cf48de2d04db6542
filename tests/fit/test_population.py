"""Searches with populations: ages, seeds, what is followed and told, stopping and going on."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from recipes import tiny
from rich.console import Console
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from metatune.data import heldout_batches, stratified_batches
from metatune.fit import outer_loop
from metatune.fit.outer_loop import fit
from metatune.fit.searching import hypergradients as hypergradients_of
from metatune.fit.searching import population
from metatune.fit.searching.phases import begin
from metatune.fit.searching.points import taken
from metatune.fit.searching.truncation import next_span
from metatune.hypergrad import MixFlow, hypergradients, train
from metatune.inner import prepare
from metatune.inner.seeds import Purpose, model_key
from metatune.recipe import schema
from metatune.recipe.phases import resolved

RECIPE = tiny(
    outer={
        "estimator": schema.MixFlowSpec(segment=2),
        "unroll": schema.OnlineSpec(window=2),
        "population": schema.PopulationSpec(members=3),
        "validation": schema.ValidationSpec(seeds=1, sequences=8, every=4),
        "test": schema.FinalTestSpec(seeds=1, sequences=8),
    },
)


def measured(training, eta, **_):
    """Hypergradients are real; judging them takes a training, which other tests have."""
    return float(sum(jnp.sum((leaf - 0.1) ** 2) for leaf in jax.tree.leaves(eta)))


FULL = {"unroll": schema.FullSpec(), "steps": 1}


@pytest.fixture(autouse=True)
def judged_at_once(monkeypatch):
    monkeypatch.setattr(outer_loop, "held_out_loss", measured)


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


def changed(training, **changes):
    """The same training with another search, compiled with it."""
    outer = dataclasses.replace(RECIPE.outer, **changes)
    return dataclasses.replace(training, recipe=dataclasses.replace(RECIPE, outer=outer))


def run(training, out, **options):
    with open(os.devnull, "w") as nowhere:
        return fit(training, out, console=Console(file=nowhere), **options)


def spied(monkeypatch, stop=None):
    """What each outer step's population was, and came to."""
    seen = []

    def spy(problem, eta, members, outer_batches, **options):
        if len(seen) == stop:
            raise KeyboardInterrupt
        states = [member.begin() for member in members]
        found = hypergradients(problem, eta, members, outer_batches, **options)
        seen.append((members, states, eta, found))
        return found

    monkeypatch.setattr(hypergradients_of, "hypergradients", spy)
    return seen


def first_leaf(state):
    return np.asarray(jax.tree.leaves(state.params)[0])


@pytest.fixture(scope="module")
def finished(training, tmp_path_factory):
    """A whole run with members of other ages, and what was seen on the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outer_loop, "held_out_loss", measured)
        seen = spied(patch)
        return run(training, tmp_path_factory.mktemp("run")), seen


def test_members_are_of_other_ages_and_begin_anew_one_by_one(finished, training):
    _, seen = finished
    starts = [[member.start for member in members] for members, *_ in seen]
    assert starts == [[0, 2, 4], [2, 4, 0], [4, 0, 2], [0, 2, 4]]
    for before, after in zip(seen[:-1], seen[1:], strict=True):
        for number, (member, state) in enumerate(zip(*after[:2], strict=True)):
            carried = jax.tree.leaves(before[3].state.params)[0][number]
            assert (first_leaf(state) == carried).all() == (member.start > 0)
    lives = [seen[0][1][0], seen[2][1][1], seen[3][1][0]]  # as they begin
    assert len({first_leaf(state).tobytes() for state in lives}) == 3
    # The third is trained to its age before the first outer step.
    third = seen[0][0][2]
    key = model_key(RECIPE.seed, Purpose.HYPERGRADIENT, 0, 2)
    grown, _ = train(
        training.reweighted, seen[0][2], training.initialise(key), third.batches, steps=4, segment=2
    )
    np.testing.assert_array_equal(first_leaf(seen[0][1][2]), first_leaf(grown))


# As one life goes on in tests/fit/test_outer_loop.py, of the state that is kept as a whole.
@pytest.mark.thorough
def test_a_run_stopped_among_lives_goes_on_bit_for_bit(finished, training, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        spied(patch, stop=2)
        assert run(training, tmp_path).interrupted
    resumed = run(training, tmp_path, resume=True)
    for name in ("tuned.json", "README.md"):
        got = (resumed.folder.artefact / name).read_bytes()
        assert got == (finished[0].folder.artefact / name).read_bytes()


def test_what_the_spread_tells_is_written_down(finished):
    outcome, seen = finished
    lines = taken(outcome.folder.read_metrics())
    for line, (*_, found) in zip(lines, seen, strict=True):
        assert set(line["signal"]) == set(line["standard_error"]) == {"learning_rates", "mixture"}
        errors = np.ravel(found.diagnostics.standard_errors["mixture"])
        assert line["standard_error"]["mixture"] == pytest.approx(np.linalg.norm(errors), rel=1e-4)
        ratios = np.abs(np.ravel(found.gradient["mixture"])) / errors
        assert line["signal"]["mixture"]["median"] == pytest.approx(np.median(ratios), rel=1e-3)
        assert line["signal"]["mixture"]["above_2"] == np.mean(ratios > 2)
    told = outcome.artefact.result["population"]
    assert told["members"] == 3
    medians = [line["signal"]["mixture"]["median"] for line in lines]
    assert told["signal"]["mixture"]["median"] == pytest.approx(np.mean(medians))
    tags = {
        value.tag
        for file in outcome.folder.tensorboard.iterdir()
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    }
    assert {"signal/mixture/median", "signal/mixture/above_2", "standard_error/mixture"} <= tags


@pytest.mark.parametrize("kind", ["own", "shared"])
def test_each_member_is_clipped_or_their_mean(training, tmp_path, monkeypatch, kind):
    """By descent, which moves by nothing but what was clipped."""
    seen = spied(monkeypatch)
    changes = {
        **FULL,
        "steps": 2,
        "population": schema.PopulationSpec(members=3, adam=kind),
        "optimizer": schema.DescentSpec(learning_rate=1.0, momentum=0.0),
        "clip_norm": 1e-3,
    }
    run(changed(training, **changes), tmp_path)
    (*_, eta, first), (*_, moved, _) = seen
    gradients = np.asarray(jax.vmap(lambda g: ravel_pytree(g)[0])(first.diagnostics.members))
    if kind == "shared":
        gradients = gradients.mean(0, keepdims=True)
    clipped = 1e-3 * gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    step = ravel_pytree(moved)[0] - ravel_pytree(eta)[0]
    np.testing.assert_allclose(step, -clipped.mean(0), atol=3e-7)


@pytest.mark.parametrize(
    ("unroll", "on"), [(schema.FullSpec(), False), (schema.OnlineSpec(2), True)]
)
def test_members_are_asked_for_as_the_recipe_says(training, tmp_path, monkeypatch, unroll, on):
    asked = []

    def ask(problem, eta, members, outer_batches, **options):
        asked.append((len(members), options))
        raise KeyboardInterrupt

    monkeypatch.setattr(hypergradients_of, "hypergradients", ask)
    wanted = schema.PopulationSpec(members=2, vmap=False, stagger=False)
    assert run(changed(training, unroll=unroll, population=wanted), tmp_path).interrupted
    ((count, options),) = asked
    assert (count, options["vmap"], options["states"]) == (2, False, on)


def test_the_mean_over_members_errs_by_a_root_of_their_number_less(training):
    """Three members: a third of the variance, which members with common seeds wouldn't have."""
    training = changed(training, **FULL)
    recipe, eta = training.recipe, training.initial_eta()
    (phase,) = resolved(recipe.outer)
    held_out = heldout_batches(training.corpus, "validation", seed=(0,), sequences=8, micro_batch=8)
    shares = training.trajectory(eta).mixture

    def batches(number, member):
        return stratified_batches(
            training.corpus, seed=(number, member), batch_size=4, shares=shares
        )

    means, variances = [], []
    search = begin(training, phase, eta)
    for step in range(24):
        at = search._replace(step=step)
        part = next_span(training.recipe, phase, at)
        members = population.members(training, phase, at, part, batches)
        found = hypergradients(
            training.reweighted, eta, members, held_out, steps=6, estimator=MixFlow(2)
        ).diagnostics.members["learning_rates"]
        means.append(np.mean(found, axis=0))
        variances.append(np.var(found, axis=0, ddof=1))
    ratio = np.mean(np.var(means, axis=0, ddof=1)) / np.mean(variances)
    assert 0.6 / 3 < ratio < 1.6 / 3
