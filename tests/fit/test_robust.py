"""Tuning for transfer: the mean over sizes, each as the rule carries what is tuned to it."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells
from recipes import tiny
from rich.console import Console
from typer.testing import CliRunner

from metatune.cli.commands import app
from metatune.fit import outer_loop
from metatune.fit.making import artefact_of
from metatune.fit.outer_loop import fit
from metatune.fit.searching import robust
from metatune.fit.searching.hypergradients import OfSizes, source
from metatune.fit.searching.phases import begin
from metatune.fit.searching.truncation import next_span
from metatune.fit.trainers.evaluation import held_out_loss
from metatune.hypergrad import hypergradient, hypergradients, measured, train
from metatune.inner import prepare, rescaled
from metatune.inner.seeds import Purpose
from metatune.ladder.measuring import following
from metatune.ladder.measuring import held_out_loss as followed_loss
from metatune.recipe import checks, schema, writing
from metatune.recipe.faults import RecipeError
from metatune.recipe.phases import resolved
from metatune.transfer import carry, of_artefact, of_training
from metatune.transfer.rules import RULES
from metatune.transfer.rung import Rung, recipe_at
from metatune.transfer.sized import at_size, rungs, sizes

SPEC = schema.RobustSpec(widths=(1, 2), depths=(1, 2), seeds=2)
TUNE = {
    "learning_rates": schema.LearningRatesSpec(per="tensor", windows=2, max_multiplier=20.0),
    "optimizer": schema.OptimizerFieldsSpec(
        weight_decay=schema.WeightDecaySpec(per={"mlp": "mlp", "others": "weight"})
    ),
}
DEEP = {"num_hidden_layers": 2}


def robust_recipe(config=DEEP, spec: schema.RobustSpec | None = SPEC, **sections):
    outer = {"robust": spec, "signal": "off"} | sections.pop("outer", {})
    return tiny(config, **({"tune": TUNE} | sections), outer=outer)


def elsewhere(training, dtype="float32"):
    """Meta-parameters away from the start, so that every factor acts."""
    draw = np.random.default_rng(5)
    return {
        key: jnp.asarray(leaf + 0.3 * draw.normal(size=leaf.shape), dtype)
        for key, leaf in training.initial_eta().items()
    }


def asked(recipe, tmp_path, eta=None):
    """The trainings of the first outer step, and what is asked of them."""
    training = prepare(recipe)
    (phase,) = resolved(recipe.outer)
    search = begin(training, phase, training.initial_eta())
    search = search if eta is None else search._replace(eta=eta(training))
    span = next_span(recipe, phase, search)
    found = source(training, tmp_path, lambda: lambda heard: None)
    return found, (search, phase, span)


def in_double(member):
    """A member whose state is of doubles, as its parameters begin in single precision."""

    def begin():
        return jax.tree.map(
            lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf,
            member.begin(),
        )

    return member._replace(begin=begin)


@pytest.fixture(scope="module")
def training():
    return prepare(robust_recipe())


WIDE = dataclasses.replace(SPEC, depths=(2,))


@pytest.fixture
def wide(float64, tmp_path):
    """In double precision: members, the problem of each, what is asked of all, and the estimate."""
    recipe = robust_recipe(spec=WIDE, inner={"steps": 4})
    model = dataclasses.replace(recipe.model, dtype="float64")
    recipe = dataclasses.replace(recipe, model=model)
    here, at = asked(recipe, tmp_path, lambda training: elsewhere(training, "float64"))
    members, options = here.trainings(*at)
    members = [in_double(each) for each in members]
    problems = [each.problem for each in members if each.problem is not None]
    assert len(members) == len(problems) == 4
    found = hypergradients(members=members, vmap=False, states=False, **options)
    options = dict(options)
    del options["problem"]
    return members, problems, options, found


def test_the_hypergradient_is_the_mean_of_those_of_each_size(wide):
    """Against `hypergradient` of each alone."""
    members, problems, options, found = wide
    alone = [
        hypergradient(problem, state=each.begin(), batches=each.batches, **options)
        for problem, each in zip(problems, members, strict=True)
    ]
    for key, leaf in found.gradient.items():
        mean = np.mean([np.asarray(each.gradient[key]) for each in alone], axis=0)
        np.testing.assert_allclose(leaf, mean, rtol=1e-12, atol=1e-14)
    assert float(found.value) == pytest.approx(np.mean([float(each.value) for each in alone]))
    told = robust.objectives(WIDE, found)
    assert told is not None
    assert list(told) == ["depth x2", "width x2, depth x2"]
    values = [float(each.value) for each in alone]
    assert list(told.values()) == pytest.approx(np.reshape(values, (2, 2)).mean(axis=1))


# That of each size is one as any other's, which tests/inner holds against differences.
@pytest.mark.thorough
def test_the_hypergradient_is_that_of_differences_of_the_mean(wide):
    members, problems, options, found = wide
    eta = options["eta"]

    def objective(eta):
        of_each = []
        for problem, each in zip(problems, members, strict=True):
            state, _ = train(problem, eta, each.begin(), each.batches, steps=4, segment=4)
            of_each.append(measured(problem, state.params, options["outer_batches"], np.float64))
        return np.mean(of_each)

    draw = np.random.default_rng(6)
    along = {key: draw.choice([-1.0, 1.0], size=leaf.shape) for key, leaf in eta.items()}
    slope = sum(np.sum(np.asarray(found.gradient[key]) * along[key]) for key in eta)
    step = 1e-7  # the mixture bends much within 1e-4, as Adam's first steps do
    sides = [
        objective({key: leaf + sign * step * along[key] for key, leaf in eta.items()})
        for sign in (1, -1)
    ]
    assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(slope, rel=1e-6)


PER = {"tensor": "tensor", "kind": "kind", "layer": "layer", "own": (r"layers\.0\.mlp", "norm")}
SHARED = {f"{name}, {rule}": (per, rule) for name, per in PER.items() for rule in (None, "mup")}


@pytest.mark.parametrize(
    ("per", "rule"),
    cells(SHARED, {"tensor, mup", "kind, None", "kind, mup", "layer, mup", "own, None"}),
)
def test_at_each_size_what_is_used_is_what_the_artefact_becomes_there(per, rule):
    """By another way: through an artefact, its curves and `carry`, not through η."""
    rates = schema.LearningRatesSpec(per=per, windows=2, max_multiplier=20.0)
    spec = dataclasses.replace(SPEC, rule=rule or "complete_d_p")
    training = prepare(robust_recipe(spec=spec, tune={**TUNE, "learning_rates": rates}))
    eta = elsewhere(training)
    tuned = artefact_of(training, eta, {})
    proxy = of_artefact(tuned)
    for each in sizes(training):
        side = of_training(each.training, each.name)
        carried = carry(tuned, proxy, side, spec.rule).artefact
        used = each.training.trajectory(eta)
        curves = carried.learning_rates.over(range(6), 6)
        for column, name in enumerate(carried.learning_rates.parameters):
            np.testing.assert_allclose(used.learning_rates[name], curves[:, column], rtol=2e-6)
        schedules = carried.optimizer.schedules
        assert schedules is not None and schedules.weight_decay is not None
        decays = carried.optimizer.tables(range(6), 6)["weight_decay"]
        assert set(decays) == set(used.optimizer["weight_decay"])
        for name, curve in decays.items():
            np.testing.assert_allclose(used.optimizer["weight_decay"][name], curve, rtol=2e-6)


# What is used at a size is held above, how it starts and runs in tests/transfer/test_training.py.
@pytest.mark.thorough
def test_a_training_at_a_size_is_that_of_a_carried_artefact(training):
    """From fresh numbers, by decays and eps of the rule: to the same held-out loss."""
    eta = elsewhere(training)
    tuned = artefact_of(training, eta, {})
    rung = Rung(2, 2)
    sized = at_size(training, rung, "complete_d_p")
    there = prepare(recipe_at(training.recipe, rung))
    carried = carry(tuned, of_artefact(tuned), of_training(there, rung.name), "complete_d_p")
    sequences = training.recipe.outer.test.sequences
    ours = held_out_loss(
        sized.training, eta, purpose=Purpose.TEST, index=3, split="test", sequences=sequences
    )
    theirs = followed_loss(following(there, carried.artefact), 3)
    assert ours == pytest.approx(theirs, rel=1e-5)
    plain = held_out_loss(
        prepare(recipe_at(tiny(DEEP), rung)),
        tiny_eta(rung),
        purpose=Purpose.TEST,
        index=3,
        split="test",
        sequences=sequences,
    )
    assert abs(plain - ours) > 1e-3


def tiny_eta(rung):
    return prepare(recipe_at(tiny(DEEP), rung)).initial_eta()


def test_an_average_begins_at_the_scaled_start():
    tune = {"learning_rates": TUNE["learning_rates"], "averaging": schema.AveragingSpec()}
    sized = at_size(prepare(robust_recipe(tune=tune)), Rung(2), "mup").training
    state = sized.initialise(jax.random.key(0))
    for param, average in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(state.opt_state.average), strict=True
    ):
        np.testing.assert_array_equal(param, average)


# The mean above is that of each size's training by itself.
@pytest.mark.thorough
def test_the_recipe_s_own_size_is_the_training_that_it_has_without_others(tmp_path):
    """To the bit, with one seed: robustness adds trainings, and changes none."""
    spec = schema.RobustSpec(widths=(1, 2))
    found, alone = (
        here(*at)
        for here, at in (asked(robust_recipe(spec=each), tmp_path) for each in (spec, None))
    )
    for key, leaf in alone.gradient.items():
        np.testing.assert_array_equal(found.diagnostics.members[key][0], leaf)


def test_members_of_a_seed_have_the_same_data_at_all_sizes(tmp_path):
    here, at = asked(robust_recipe(), tmp_path)
    members, _ = here.trainings(*at)
    first, second = (jax.tree.leaves(members[number].batches(0))[0].tolist() for number in (0, 1))
    assert first != second
    for number, each in enumerate(members):
        batch = jax.tree.leaves(each.batches(0))[0].tolist()
        assert batch == (second if number % 2 else first)


def run(training, out, **options):
    with open(os.devnull, "w") as nowhere:
        return fit(training, out, console=Console(file=nowhere), **options)


def without_seconds(folder):
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


# What it tells is held below, and the state of a search is kept as a whole, whatever its sizes.
@pytest.mark.thorough
def test_a_search_tells_of_each_size_and_goes_on_bit_for_bit(tmp_path, monkeypatch):
    training = prepare(
        robust_recipe(spec=schema.RobustSpec(widths=(1, 2)), outer={"steps": 3, "signal": "auto"})
    )
    finished = run(training, tmp_path / "whole")
    lines = without_seconds(finished.folder)
    names = ["proxy", "width x2"]
    for line in lines:
        assert list(line["held_out_sizes"]) == names
        assert np.mean([*line["held_out_sizes"].values()]) == pytest.approx(line["held_out"])
    for line in lines[:-1]:
        assert list(line["objective_sizes"]) == names
        assert np.mean([*line["objective_sizes"].values()]) == pytest.approx(line["objective"])
        assert set(line["standard_error"]) == {"learning_rates", "mixture", "weight_decay"}
    calls = []

    def stop(self, *arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return estimate(self, *arguments)

    estimate = OfSizes.__call__
    with monkeypatch.context() as patch:
        patch.setattr(OfSizes, "__call__", stop)
        assert run(training, tmp_path / "again").interrupted
    again = run(training, tmp_path / "again", resume=True)
    assert without_seconds(again.folder) == lines
    for name in ("tuned.json", "README.md"):
        ours, theirs = ((each.folder.artefact / name).read_bytes() for each in (again, finished))
        assert ours == theirs


def test_a_search_tells_of_each_size_and_its_result_is_of_the_recipe_s_own(tmp_path, monkeypatch):
    """So that it says what training the recipe gives; the ladder says the rest."""
    seen = []

    def spy(at, eta, *, purpose, **options):
        seen.append((purpose, at.model.config.hidden_size))
        return 1.0

    monkeypatch.setattr(outer_loop, "held_out_loss", spy)
    recipe = robust_recipe(spec=schema.RobustSpec(widths=(1, 2)), outer={"steps": 1})
    first, last = without_seconds(run(prepare(recipe), tmp_path).folder)
    assert first["held_out_sizes"] == last["held_out_sizes"] == {"proxy": 1.0, "width x2": 1.0}
    assert list(first["objective_sizes"]) == ["proxy", "width x2"]
    assert np.mean([*first["objective_sizes"].values()]) == pytest.approx(first["objective"])
    assert "objective_sizes" not in last
    assert {size for purpose, size in seen if purpose == Purpose.VALIDATION} == {8, 16}
    assert {size for purpose, size in seen if purpose == Purpose.TEST} == {8}


def test_the_sizes_are_all_widths_at_all_depths():
    found = rungs(schema.RobustSpec(widths=(1, 4), depths=(1, 2)))
    assert found == (Rung(1, 1), Rung(1, 2), Rung(4, 1), Rung(4, 2))


def test_sizes_are_prepared_once_for_a_training_and_anew_for_another_horizon(training):
    """So that planning and searching share programs; the search's own choices are current."""
    first, again = sizes(training), sizes(training)
    assert [each.training.reweighted for each in first] == [
        each.training.reweighted for each in again
    ]
    outer = dataclasses.replace(training.recipe.outer, steps=9)
    other = dataclasses.replace(training, recipe=dataclasses.replace(training.recipe, outer=outer))
    assert sizes(other)[-1].training.recipe.outer == dataclasses.replace(outer, robust=None)
    assert sizes(other)[-1].training.reweighted is first[-1].training.reweighted
    shorter = sizes(rescaled(training, 3))[-1].training
    assert shorter.recipe.inner.steps == 3
    curves = shorter.trajectory(shorter.initial_eta()).learning_rates
    assert {len(curve) for curve in curves.values()} == {3}


def test_groups_that_other_depths_part_are_refused():
    decay = schema.OptimizerFieldsSpec(weight_decay=schema.WeightDecaySpec(per="layer"))
    training = prepare(robust_recipe(tune={"optimizer": decay}))
    with pytest.raises(RecipeError, match=r"tune\.optimizer\.weight_decay\.per"):
        sizes(training)


def test_validate_names_the_sizes_and_refuses_what_has_none(tmp_path):
    def validated(recipe):
        file = tmp_path / "recipe.yaml"
        file.write_text(writing.to_yaml(recipe))
        return CliRunner().invoke(app, ["validate", str(file)])

    done = validated(robust_recipe(spec=schema.RobustSpec()))
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "tuned for transfer at proxy: 5,464 parameters; width x2: 13,488 parameters" in said
    decay = schema.OptimizerFieldsSpec(weight_decay=schema.WeightDecaySpec(per="layer"))
    done = validated(robust_recipe(tune={"optimizer": decay}))
    assert done.exit_code == 2
    assert "tune.optimizer.weight_decay.per" in done.output


def test_the_optimizers_of_the_rules_are_theirs():
    assert checks.robust.OPTIMIZERS == {name: rule.optimizers for name, rule in RULES.items()}
