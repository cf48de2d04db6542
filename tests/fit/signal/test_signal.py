"""What is followed where growth dominates, in one training and in a population, and in a search."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import prepared, tiny
from rich.console import Console

from metatune.fit.outer_loop import fit
from metatune.fit.run_folder import RunFolder
from metatune.fit.searching.hypergradients import source
from metatune.fit.searching.meta_update import meta_update
from metatune.fit.searching.phases import begin
from metatune.fit.searching.truncation import next_span
from metatune.fit.signal.signal import signal
from metatune.hypergrad import Growth, measured, train
from metatune.recipe import schema
from metatune.recipe.phases import resolved

LIMIT = 10.0


class Case:
    """A search at its first point, its estimate, and a signal that takes one pair."""

    def __init__(self, tmp_path, seeds=1, **outer):
        spec = schema.SignalSpec(growth=LIMIT, pairs=1, step=0.2, seeds=seeds)
        self.training = prepared(tiny(outer={"signal": spec} | outer))
        (self.phase,) = resolved(self.training.recipe.outer)
        self.search = begin(self.training, self.phase, self.training.initial_eta())
        self.span = next_span(self.training.recipe, self.phase, self.search)
        self.source = source(self.training, tmp_path, lambda: lambda heard: None)
        found = signal(self.training, self.source, lambda name: lambda heard: None)
        assert found is not None
        self.signal = found
        self.estimate = self.source(self.search, self.phase, self.span)

    def with_growth(self, first, search=None, **gradient):
        """Search, estimate and what is told of `followed`."""
        return self.followed(first, search, **gradient)[:3]

    def followed(self, first, search=None, **gradient):
        """What is followed where the adjoint behind the first windows has grown so many times."""
        params = jnp.asarray([first, first, 1.0])
        growth = Growth(np.array([0, 1, 6]), params, params, jnp.zeros(2))
        estimate = self.estimate._replace(
            gradient=self.estimate.gradient | gradient,
            diagnostics=self.estimate.diagnostics._replace(growth=growth),
        )
        return self.signal(search or self.search, self.phase, self.span, estimate)

    def objective(self, eta, number=0, beside=0):
        """By a training of its own."""
        members, options = self.source.trainings(self.search, self.phase, self.span, beside=beside)
        one = members[number]
        state, _ = train(options["problem"], eta, one.begin(), one.batches, steps=6, segment=6)
        return measured(options["problem"], state.params, options["outer_batches"])


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("case"))


def test_without_growth_nothing_changes(case):
    search, estimate, told = case.with_growth(0.99 * LIMIT)
    assert told is None
    assert search is case.search
    assert estimate.gradient is not None
    for key, leaf in case.estimate.gradient.items():
        assert estimate.gradient[key] is leaf


def test_a_noisy_window_follows_the_difference_along_all_its_rates(case):
    """The sum over its rates is the blend, and what they differ by is shrunk; the rest stays."""
    growth = 3 * LIMIT
    search, estimate, told = case.with_growth(growth)
    eta, before = case.search.eta, case.estimate.gradient["learning_rates"]
    sides = [
        case.objective(eta | {"learning_rates": eta["learning_rates"].at[0].add(step)})
        for step in (0.2, -0.2)
    ]
    slope = (sides[0] - sides[1]) / 0.4
    weight = 1 / (1 + 3**2)
    after, exact = estimate.gradient["learning_rates"], float(before[0].sum())
    assert float(after[0].sum()) == pytest.approx(
        weight * exact + (1 - weight) * slope, rel=1e-3, abs=1e-6
    )
    differ = before[0] - before[0].mean()
    np.testing.assert_allclose(after[0] - after[0].mean(), weight * differ, rtol=1e-3, atol=1e-8)
    np.testing.assert_array_equal(after[1:], before[1:])
    np.testing.assert_array_equal(
        estimate.gradient["mixture"][1], case.estimate.gradient["mixture"][1]
    )
    assert told is not None
    assert told["windows"][0] == {
        "tunable": "learning_rates",
        "window": 0,
        "growth": pytest.approx(growth),
        "weight": pytest.approx(weight),
        "exact": pytest.approx(exact, rel=1e-5),
        "smoothed": pytest.approx(slope, rel=1e-3, abs=1e-6),
        "measured": True,
        "trainings": 1,
        "errors": None,  # infinite: of one training no noise is known
        "kept": 1.0,
    }
    assert told["origin"]["before"] == 1
    assert search.signal.measured.tolist() == [0, -1, -1, -1, -1]


def test_the_budget_goes_round(case):
    """One pair an outer step: rates first, then shares, which stood still till then."""
    first, estimate, told = case.with_growth(3 * LIMIT)
    assert told is not None
    assert [(each["tunable"], each["measured"]) for each in told["windows"]] == [
        ("learning_rates", True),
        ("mixture", False),
    ]
    weight = told["windows"][1]["weight"]
    np.testing.assert_allclose(
        estimate.gradient["mixture"][0], weight * case.estimate.gradient["mixture"][0], rtol=1e-5
    )
    second, _, again = case.with_growth(3 * LIMIT, first._replace(step=1))
    assert again is not None
    assert [each["measured"] for each in again["windows"]] == [False, True]
    assert again["windows"][0]["smoothed"] == pytest.approx(told["windows"][0]["smoothed"])
    assert second.signal.measured.tolist() == [0, -1, -1, 1, -1]


def test_what_is_remembered_of_shares_keeps_its_direction(case):
    """The hypergradient that says the direction may have turned round meanwhile: it is noise."""
    shares = case.estimate.gradient["mixture"]
    known = case.search._replace(
        signal=case.search.signal._replace(measured=jnp.asarray([0, 0, 0, -1, 0], jnp.int32))
    )
    first, estimate, told = case.with_growth(1e6 * LIMIT, known)
    assert told is not None and told["windows"][1]["measured"]
    turned = first._replace(step=1)
    _, again, told = case.with_growth(1e6 * LIMIT, turned, mixture=-shares)
    assert told is not None and not told["windows"][1]["measured"]
    before, after = estimate.gradient["mixture"][0], again.gradient["mixture"][0]
    assert np.abs(before).max() > 0
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-9)


def test_steps_of_a_window_that_was_never_measured_shrink_with_growth(case):
    """An outer optimizer that divides by the size of gradients would move them in full."""
    found = case.followed(3 * LIMIT)
    assert found.kept is not None
    np.testing.assert_allclose(found.kept["learning_rates"], [1, 1, 1])
    np.testing.assert_allclose(found.kept["mixture"], [1 / (1 + 0.3**2), 1])
    beyond = case.followed(100 * LIMIT).kept
    assert beyond is not None
    np.testing.assert_allclose(beyond["mixture"], [1 / (1 + 10**2), 1])
    update = meta_update(case.training)
    whole, _ = update(case.search, found.estimate)
    after, _ = update(case.search, found.estimate, found.kept)
    for key in ("learning_rates", "mixture"):
        part = np.reshape(found.kept[key], (-1, 1))
        before = np.asarray(case.search.eta[key])
        np.testing.assert_allclose(
            after.eta[key] - before, part * (whole.eta[key] - before), rtol=1e-5, atol=1e-7
        )


def test_where_a_window_is_measured_first_the_noise_of_its_slope_is_too(tmp_path):
    """Of the training that is differentiated and two others, each with its own seed and data."""
    case = Case(tmp_path, seeds=3)
    found = case.followed(1e6 * LIMIT)
    assert found.told is not None and found.kept is not None
    eta = case.search.eta
    slopes = np.array(
        [
            np.diff(
                [
                    case.objective(
                        eta | {"learning_rates": eta["learning_rates"].at[0].add(step)}, number, 2
                    )
                    for step in (-0.2, 0.2)
                ]
            )[0]
            / 0.4
            for number in range(3)
        ]
    )
    assert np.ptp(slopes) > 1e-4
    assert slopes[0] == pytest.approx(
        np.diff(
            [
                case.objective(eta | {"learning_rates": eta["learning_rates"].at[0].add(step)})
                for step in (-0.2, 0.2)
            ]
        )[0]
        / 0.4
    )
    first = found.told["windows"][0]
    below = case.followed(9 * LIMIT).told
    assert below is not None and below["windows"][0]["trainings"] == 1
    assert first["smoothed"] == pytest.approx(slopes.mean(), rel=1e-3)
    errors = abs(slopes.mean()) / (slopes.std(ddof=1) / np.sqrt(3))
    assert first["errors"] == pytest.approx(errors, rel=1e-2)
    assert first["trainings"] == 3
    assert found.kept["learning_rates"][0] == pytest.approx(max(0, 1 - errors**-2), abs=1e-3)
    assert found.kept["mixture"][0] == pytest.approx(0, abs=1e-9)


def test_what_is_not_finite_is_left_out(case):
    """The differences alone are followed, and the windows that are finite stay."""
    broken = case.estimate.gradient["learning_rates"].at[0, 0].set(jnp.nan)
    _, estimate, told = case.with_growth(np.inf, learning_rates=broken)
    assert told is not None
    first = told["windows"][0]
    assert (first["weight"], first["exact"], first["growth"]) == (0.0, None, None)
    after = np.asarray(estimate.gradient["learning_rates"])
    np.testing.assert_allclose(after[0].sum(), first["smoothed"], rtol=1e-5)
    assert np.ptp(after[0]) == pytest.approx(0, abs=1e-7)
    json.dumps(told, allow_nan=False)


def test_each_member_of_a_population_has_its_own_difference(tmp_path):
    case = Case(tmp_path, population=schema.PopulationSpec(members=2))
    _, estimate, told = case.with_growth(3 * LIMIT)
    members, before = estimate.diagnostics.members, case.estimate.diagnostics.members
    assert told is not None and members is not None and before is not None
    eta = case.search.eta
    for number in range(2):
        sides = [
            case.objective(eta | {"learning_rates": eta["learning_rates"].at[0].add(step)}, number)
            for step in (0.2, -0.2)
        ]
        expected = 0.1 * float(before["learning_rates"][number, 0].sum())
        expected += 0.9 * (sides[0] - sides[1]) / 0.4
        found = float(members["learning_rates"][number, 0].sum())
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    jax.tree.map(
        lambda mean, each: np.testing.assert_allclose(mean, each.mean(0), rtol=1e-5, atol=1e-9),
        dict(estimate.gradient),
        dict(members),
    )
    errors = np.asarray(estimate.diagnostics.standard_errors["learning_rates"])
    two = np.asarray(members["learning_rates"])
    np.testing.assert_allclose(errors, np.abs(two[0] - two[1]) / 2, rtol=1e-4, atol=1e-9)


def searched(tmp_path, name, steps, spec, resume=False):
    recipe = tiny(outer={"signal": spec, "steps": steps})
    recipe = dataclasses.replace(recipe, inner=dataclasses.replace(recipe.inner, steps=12))
    with (tmp_path / f"{name}.log").open("a") as said:
        console = Console(file=said, width=1000)
        outcome = fit(prepared(recipe), tmp_path / name, resume=resume, console=console)
    return outcome, (tmp_path / f"{name}.log").read_text()


FOLLOWED = schema.SignalSpec(growth=1.0 + 1e-6, pairs=2)
"""With a limit that every training is above."""


def test_a_search_tells_of_it(tmp_path):
    """Told once for a window, kept in each line."""
    _, said = searched(tmp_path, "whole", 2, FOLLOWED)
    lines = RunFolder(tmp_path / "whole").read_metrics()
    assert all(line["blended"]["windows"] for line in lines[:-1])
    windows = {(w["tunable"], w["window"]) for x in lines[:-1] for w in x["blended"]["windows"]}
    named = [text for text in said.splitlines() if "is dominated by growth" in text]
    assert 1 <= len(named) <= len(windows)
    assert "differences of whole trainings are followed instead" in named[0]


# The state of a search is kept as a whole: tests/fit/test_outer_loop.py resumes others.
@pytest.mark.thorough
def test_a_search_that_is_blended_goes_on_exactly(tmp_path):
    whole, _ = searched(tmp_path, "whole", 3, FOLLOWED)
    lines = RunFolder(tmp_path / "whole").read_metrics()
    searched(tmp_path, "parted", 2, FOLLOWED)
    parted, _ = searched(tmp_path, "parted", 3, FOLLOWED, resume=True)
    for key, leaf in whole.artefact.result.items():
        if key in ("before", "after", "best_outer_step"):
            assert parted.artefact.result[key] == leaf
    again = RunFolder(tmp_path / "parted").read_metrics()
    assert [x.get("blended") for x in again] == [x.get("blended") for x in lines]
    assert [x["held_out"] for x in again] == [x["held_out"] for x in lines]


def test_off_follows_all_as_they_are(tmp_path):
    _, said = searched(tmp_path, "off", 2, "off")
    assert "dominated" not in said
    assert all("blended" not in line for line in RunFolder(tmp_path / "off").read_metrics())
