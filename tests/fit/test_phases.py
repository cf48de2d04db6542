"""A search in phases: a cheap biased hypergradient first, another to finish."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny
from rich.console import Console

from metatune.fit import outer_loop
from metatune.fit.outer_loop import fit
from metatune.fit.searching import hypergradients as hypergradients_of
from metatune.fit.searching.phases import End, begin, end_of, enter
from metatune.fit.searching.points import taken
from metatune.fit.searching.search import Search
from metatune.hypergrad import Diagnostics, Hypergradient, hypergradient
from metatune.inner import prepare
from metatune.recipe import phases, schema

RECIPE = tiny(
    outer=schema.OuterSpec(
        phases=(
            schema.PhaseSpec(
                2,
                schema.MixFlowSpec(segment=4),
                schema.TruncatedSpec(window=2),
                schema.AdamSpec(learning_rate=0.2),
            ),
            schema.PhaseSpec(
                3,
                schema.ForwardGradientSpec(directions=2, segment=4, control_variate=True),
                schema.FullSpec(fractions=(0.5, 1.0)),
                schema.SignSpec(learning_rate=0.1),
            ),
        ),
        objective=schema.ObjectiveSpec(sequences=8, micro_batch=8),
        validation=schema.ValidationSpec(seeds=1, sequences=8),
        test=schema.FinalTestSpec(seeds=1, sequences=8),
    ),
)


def with_outer(**changes):
    return dataclasses.replace(RECIPE, outer=dataclasses.replace(RECIPE.outer, **changes))


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


def changed(training, **changes):
    """The same training with another search, compiled with it."""
    return dataclasses.replace(training, recipe=with_outer(**changes))


def run(training, out, **options):
    with open(os.devnull, "w") as nowhere:
        return fit(training, out, console=Console(file=nowhere), **options)


@pytest.fixture
def imagined(monkeypatch):
    """Nothing is trained: hypergradients and judgements are as said; seen is what was asked for."""
    seen = []

    def imagine(gradient=lambda step: 1.0, losses=lambda step: 3.0 - 0.1 * step):
        def estimate(problem, eta, state, batches, outer_batches, **options):
            slope = gradient(len(seen))
            seen.append({**options, "batches": batches, "state": state, "eta": eta})
            return Hypergradient(
                jnp.float32(1.0),
                jax.tree.map(lambda leaf: jnp.full_like(leaf, slope), eta),
                state,
                Diagnostics(jnp.ones(options["steps"])),
            )

        def measured(*_, split, **__):
            return losses(next(judged)) if split == "validation" else 1.0

        judged = iter(range(1000))
        monkeypatch.setattr(hypergradients_of, "hypergradient", estimate)
        monkeypatch.setattr(outer_loop, "held_out_loss", measured)
        return seen

    return imagine


def test_a_run_of_two_phases_goes_on_within_the_second_bit_for_bit(training, tmp_path, monkeypatch):
    def measured(training, eta, **_):
        """Hypergradients are real; judging them takes a training, which other tests have."""
        return float(sum(jnp.sum((leaf - 0.1) ** 2) for leaf in jax.tree.leaves(eta)))

    monkeypatch.setattr(outer_loop, "held_out_loss", measured)
    asked, controls = [], []

    def spy(problem, eta, *args, **options):
        if len(asked) == stop_at:
            raise KeyboardInterrupt
        estimator = type(options["estimator"]).__name__
        asked.append((options["steps"], options["window"], estimator, measured(None, eta)))
        controls.append(options["control"])
        return hypergradient(problem, eta, *args, **options)

    monkeypatch.setattr(hypergradients_of, "hypergradient", spy)
    stop_at = None
    whole = run(training, tmp_path / "whole")
    assert [part[:3] for part in asked] == [
        (6, 2, "MixFlow"),
        (6, 2, "MixFlow"),
        (3, None, "ForwardGradient"),
        (6, None, "ForwardGradient"),
        (6, None, "ForwardGradient"),
    ]
    # The second phase begins with a guess of zero and learns.
    assert controls[:2] == [None, None] and not any(map(jnp.any, jax.tree.leaves(controls[2])))
    assert all(jnp.all(leaf != 0) for leaf in jax.tree.leaves(controls[3]["mixture"]))
    lines = whole.folder.read_metrics()
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert [line["phase"] for line in lines] == [0, 0, 1, 1, 1, 1]
    assert [line["inner_steps"] for line in taken(lines)] == [6, 6, 3, 6, 6]
    assert [line["held_out"] for line in taken(lines)] == [part[3] for part in asked]
    result = whole.artefact.result
    assert (result["status"], result["outer_steps"]) == ("complete", 5)

    asked.clear()
    stop_at = 3  # in the middle of the second phase
    stopped = run(training, tmp_path / "again")
    assert stopped.interrupted and len(stopped.folder.read_metrics()) == 3
    stop_at = None
    resumed = run(training, tmp_path / "again", resume=True)
    for name in ("tuned.json", "README.md"):
        first, again = ((r.folder.artefact / name).read_bytes() for r in (whole, resumed))
        assert first == again
    timeless = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in r.folder.read_metrics()]
        for r in (whole, resumed)
    ]
    assert timeless[0] == timeless[1]


def test_the_best_is_that_of_all_phases(training, tmp_path, imagined):
    told = [3.0, 1.5, 2.5, 2.4, 2.3, 2.2]
    imagined(losses=lambda number: told[number])
    outcome = run(training, tmp_path)
    assert [line["held_out"] for line in outcome.folder.read_metrics()] == told
    assert outcome.artefact.result["best_outer_step"] == 1


def test_patience_ends_a_phase_and_counts_anew_in_the_next(training, tmp_path, imagined):
    told = [3.0, 2.0, 2.5, 2.4, 2.3, 2.2, 2.1, 2.6]
    imagined(losses=lambda number: told[number])
    both = (schema.PhaseSpec(6), schema.PhaseSpec(6, optimizer=schema.AdamSpec(learning_rate=0.01)))
    outcome = run(changed(training, phases=both, patience=1), tmp_path)
    lines = outcome.folder.read_metrics()
    # Best at 1; 2 and 3 are two steps without: over. From 4 on, without a new best: 4 and 5.
    # The point that the search ends at isn't judged any more.
    assert [line["phase"] for line in lines] == [0, 0, 0, 1, 1, 1]
    assert [line["held_out"] for line in lines] == [*told[:5], None]
    assert outcome.artefact.result["best_outer_step"] == 1


def test_a_phase_that_has_converged_ends_and_the_last_is_judged(training, tmp_path, imagined):
    """0.1 flips to 0.05, which isn't below 0.05, and to 0.025, which is."""
    seen = imagined(gradient=lambda number: (-1.0) ** number)
    sign = schema.SignSpec(learning_rate=0.1, per_tunable={"mixture": 0.06})
    both = (schema.PhaseSpec(9, optimizer=sign), schema.PhaseSpec(9, optimizer=sign))
    outcome = run(changed(training, phases=both), tmp_path)
    assert [line["phase"] for line in outcome.folder.read_metrics()] == [0, 0, 0, 1, 1, 1, 1]
    moves = [
        float(np.ravel(after["eta"]["learning_rates"] - before["eta"]["learning_rates"])[0])
        for before, after in zip(seen[:-1], seen[1:], strict=True)
    ]
    # The second phase has step sizes of its own: those that have converged aren't handed on.
    np.testing.assert_allclose(moves, [-0.1, 0.05, -0.025, 0.1, -0.05], rtol=1e-5)
    result = outcome.artefact.result
    assert (result["outer_steps"], result["best_outer_step"]) == (6, 6)


def test_the_first_of_a_phase_is_judged(training, tmp_path, imagined):
    imagined()
    validation = dataclasses.replace(RECIPE.outer.validation, every=10)
    outcome = run(changed(training, validation=validation), tmp_path)
    judged = [line["held_out"] is not None for line in outcome.folder.read_metrics()]
    assert judged == [True, False, True, False, False, True]


def test_an_online_training_begins_anew_in_its_phase(training, tmp_path, imagined):
    seen = imagined()
    online = schema.OnlineSpec(window=4)
    three = (
        schema.PhaseSpec(2),
        schema.PhaseSpec(3, unroll=online),
        schema.PhaseSpec(2, unroll=online),
    )
    run(changed(training, phases=three), tmp_path / "whole")
    assert [(part["start"], part["steps"]) for part in seen] == [
        *((0, 6), (0, 6)),
        *((0, 4), (4, 2), (0, 4)),
        *((0, 4), (4, 2)),
    ]
    orders = [part["batches"](0).tokens.tobytes() for part in seen if part["start"] == 0]
    assert len(set(orders)) == len(orders)
    whole = list(seen)
    seen.clear()

    def stopping(number):
        if number == 4:
            raise KeyboardInterrupt
        return 1.0

    imagined(gradient=stopping)
    run(changed(training, phases=three), tmp_path / "again")
    assert len(seen) == 4
    imagined()
    run(changed(training, phases=three), tmp_path / "again", resume=True)
    for first, again in zip(whole, seen, strict=True):
        assert (first["start"], first["steps"]) == (again["start"], again["steps"])
        jax.tree.map(np.testing.assert_array_equal, first["state"], again["state"])
        jax.tree.map(np.testing.assert_array_equal, first["eta"], again["eta"])


@pytest.mark.parametrize("reset", [False, True])
def test_moments_are_handed_on_unless_reset(training, reset):
    both = (
        schema.PhaseSpec(1),
        schema.PhaseSpec(1, optimizer=schema.AdamSpec(learning_rate=0.01), reset=reset),
    )
    training = changed(training, phases=both)
    resolved = phases.resolved(training.recipe.outer)
    search = begin(training, resolved[0], training.initial_eta())
    moved = jax.tree.map(lambda leaf: leaf + 1, search.opt_state)
    search = search._replace(step=1, opt_state=moved)
    found = enter(training, resolved, search)
    expected = begin(training, resolved[1], search.eta).opt_state if reset else moved
    jax.tree.map(np.testing.assert_array_equal, found.opt_state, expected)
    assert (found.phase, found.phase_start, found.life, found.age) == (1, 1, 1, 0)


def test_why_a_phase_is_over():
    phase = phases.Phase(1, 3, schema.MixFlowSpec(), schema.FullSpec(), schema.AdamSpec())
    search = Search(5, None, (), None, best_step=4, phase=1, phase_start=5)
    assert end_of(phase, 1, search) is None
    assert end_of(phase, 1, search._replace(step=6)) is None
    assert end_of(phase, 1, search._replace(step=7)) is End.PATIENCE
    assert end_of(phase, 1, search._replace(step=7, best_step=6)) is None
    assert end_of(phase, 1, search._replace(step=8, best_step=7)) is End.STEPS
    assert end_of(phase, None, search._replace(step=7)) is None
