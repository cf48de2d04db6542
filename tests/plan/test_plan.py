"""What a recipe is said to cost, against what it takes."""

import dataclasses
import json

import jax
import pytest
from cells import cells
from recipes import tiny
from rich.console import Console

from metatune import plan as plans
from metatune.hypergrad import CheckpointError, EstimatorError, hypergradient
from metatune.hypergrad.segments import inexact
from metatune.hypergrad.stores import tree_bytes
from metatune.inner import estimators, prepare
from metatune.plan import (
    Alternative,
    Memory,
    Pace,
    Plan,
    cost_model,
    forward_mode,
    reverse_mode,
    table,
    zeroth_order,
)
from metatune.plan.alternatives import alternatives
from metatune.plan.compiling import Program
from metatune.plan.cost import Seconds
from metatune.plan.pace import pace
from metatune.plan.timing import Line, Lines
from metatune.plan.work import Work, horizon
from metatune.recipe import schema
from metatune.recipe.trajectory import points

RECIPE = tiny(
    model={"remat": True},
    inner={"steps": 20},
    tune=schema.TuneSpec(mixture=schema.MixtureSpec(windows=2)),
    outer={
        "estimator": schema.MixFlowSpec(segment=4, checkpoints=schema.CheckpointsSpec(keep="sqrt")),
        "objective": schema.ObjectiveSpec(sequences=16, micro_batch=8),
    },
)


def with_outer(**changes):
    return dataclasses.replace(RECIPE, outer=dataclasses.replace(RECIPE.outer, **changes))


def with_checkpoints(**choices):
    estimator = schema.MixFlowSpec(segment=4, checkpoints=schema.CheckpointsSpec(**choices))
    return with_outer(estimator=estimator)


def along_the_training(recipe, along):
    objective = dataclasses.replace(recipe.outer.objective, trajectory=along)
    return dataclasses.replace(recipe, outer=dataclasses.replace(recipe.outer, objective=objective))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return plans.plan(prepare(RECIPE), folder=tmp_path_factory.mktemp("scratch"))


def test_a_plan_has_a_row_for_each_way_and_the_recipe_s_own_first(made):
    assert [way.name for way in made.alternatives] == [
        "as in the recipe",
        "mixflow, inner gradients recomputed",
        "reverse",
        "forward",
    ]
    assert all(made.fits(way) for way in made.alternatives)
    assert made.pick is not None
    assert [way.counted for way in made.alternatives] == [False, True, True, True]
    for way in made.alternatives:
        assert all(part >= 0 for part in way.memory)
        assert 0 < way.pace.hypergradient < way.pace.outer_step < way.pace.run


STORED = {
    "device": ("device", None),
    "host, along the training": ("host", schema.TrajectorySpec(points=3)),
    "disk": ("disk", None),
}


@pytest.mark.parametrize(("store", "along"), cells(STORED, {"device"}))
def test_what_is_kept_is_predicted_exactly(store, along, tmp_path):
    recipe = along_the_training(with_checkpoints(keep="sqrt", store=store), along)
    training = prepare(recipe)
    memory, _ = plans.expected(training, folder=tmp_path)
    spec = recipe.outer.estimator
    assert isinstance(spec, schema.MixFlowSpec)
    estimator = estimators.build(spec)
    work = Work(training, estimator)
    seen = hypergradient(
        training.reweighted,
        training.initial_eta(),
        training.initialise(jax.random.key(0)),
        lambda step: jax.tree.map(lambda leaf: leaf[0], work.segment(1).batches),
        work.held_out(16),
        steps=20,
        estimator=estimator,
        points=points(along, 20),
        checkpoints=estimators.checkpoints(spec, tmp_path),
    ).diagnostics
    kept = {"device": memory.carry, "host": memory.host, "disk": memory.disk}
    assert kept.pop(store) == seen.peak_bytes
    if store == "disk":  # a state and the gradients of a segment of four, on their way
        state = jax.eval_shape(training.initialise, jax.random.key(0))
        assert kept.pop("device") == tree_bytes(state) + 4 * tree_bytes(state.params)
    assert set(kept.values()) == {0}
    assert memory.recomputed_segments == seen.recomputed_segments


FEW = [
    (schema.ForwardSpec(segment=4), 4),
    (schema.ForwardGradientSpec(directions=6, segment=4, chunk=2), 2),
    (schema.ZerothOrderSpec(directions=2, segment=4), 0),
]


@pytest.mark.parametrize(("spec", "tangents"), FEW, ids=lambda spec: getattr(spec, "kind", ""))
def test_without_a_backward_sweep_tangents_are_carried(spec, tangents, tmp_path):
    training = prepare(with_outer(estimator=spec))
    memory, pace = plans.expected(training, folder=tmp_path)
    state = jax.eval_shape(training.initialise, jax.random.key(0))
    floats = tree_bytes((state.params, inexact(state.opt_state)[0]))
    directions = 2 * tangents * 4 * 4  # of four meta-parameters
    # When a second window begins, there is a copy of the tangents of the first one.
    copies = (1.0, 1.5) if spec.kind == "forward" else (1.0,)
    assert memory.carry in [more * tangents * floats + directions for more in copies]
    states = {4: 2, 2: 2, 0: 5}[tangents]  # one's own, the caller's; shared, trained, and a pair
    assert memory.state == states * tree_bytes(state)
    assert (memory.host, memory.disk, memory.recomputed_segments) == (0, 0, 0)
    assert 0 < pace.hypergradient < pace.outer_step < pace.run


def test_pairs_that_live_on_are_counted(tmp_path):
    """A window of 8 steps, three pairs, two at a time: in two chunks, of four trainings each."""
    spec = schema.PersistentESSpec(pairs=3, segment=4, chunk=2)
    online = with_outer(estimator=spec, unroll=schema.OnlineSpec(window=8))
    training = prepare(online)
    cost = cost_model.cost(training, spec, tmp_path)
    state = tree_bytes(jax.eval_shape(training.initialise, jax.random.key(0)))
    # Those before the window and those after it, and all of them together.
    assert cost.memory.state in [(2 * 6 + 1) * state, (3 * 6 + 1) * state]
    lines = {zeroth_order.ONE: Line(0.0, 1.0), zeroth_order.EACH: Line(0.0, 3.0)}
    # An objective on 16 sequences is a third of four gradients on 4.
    assert cost.seconds(lines).hypergradient == pytest.approx(2 * (8 * 3 + 4 / 3 * 3))
    assert [name for name, _, _ in alternatives(training)] == ["as in the recipe"]


def test_a_meta_parameter_costs_nothing_before_its_window(tmp_path):
    """Of 20 steps, each one second and one more a direction: two directions from 0, two from 10.

    An objective on 16 sequences takes four gradients on 4.
    """
    training = prepare(with_outer(estimator=FEW[0][0]))
    cost = cost_model.cost(training, FEW[0][0], tmp_path)
    lines = {forward_mode.PLAIN: Line(0.0, 1.0), forward_mode.PUSH: Line(0.0, 5.0)}
    assert cost.seconds(lines).hypergradient == pytest.approx(20 + 2 * 20 + 2 * 10 + 4)
    assert cost.seconds(lines).training == Line(0.0, 1.0)
    counted = cost.seconds({forward_mode.PLAIN: Line(0.0, 1.0)}).hypergradient
    assert counted == pytest.approx(20 + 2.26 * (2 * 20 + 2 * 10) + 4)
    chunked = schema.ForwardGradientSpec(directions=6, segment=4, chunk=2)
    cost = cost_model.cost(training, chunked, tmp_path)
    lines = {forward_mode.PLAIN: Line(0.0, 1.0), forward_mode.PUSH: Line(0.0, 3.0)}
    assert cost.seconds(lines).hypergradient == pytest.approx(3 * (20 + 2 * 20 + 4))


@pytest.fixture
def uncompiled(monkeypatch):
    """Programs that need no memory."""

    def analysed(lower, tell):
        return {name: Program(name, name, None, 0, 0.0) for name in lower}

    for module in (reverse_mode, forward_mode, zeroth_order):
        monkeypatch.setattr(module, "analysed", analysed)


PROGRAMS = ("forward", "pullback", "training", "trainings at a time")
SEGMENTS: Lines = dict.fromkeys(PROGRAMS, Line(1, 0))


@pytest.mark.parametrize(("spec", "passes"), [(RECIPE.outer.estimator, 2), (FEW[2][0], 3)])
def test_points_of_a_trajectory_cut_segments(spec, passes, uncompiled, tmp_path):
    """Of 20 steps in fours, 5 segments, of a second each; cut after 7 and 14 as well, 6."""
    for along, segments in ((None, 5), (schema.TrajectorySpec(points=3), 6)):
        training = prepare(along_the_training(with_outer(estimator=spec), along))
        cost = cost_model.cost(training, spec, tmp_path)
        expected = passes * segments + cost.memory.recomputed_segments
        assert cost.seconds(SEGMENTS).hypergradient == pytest.approx(expected)


def test_what_schedule_free_training_averages_is_counted(tmp_path):
    """Beside the states; of plain training nothing is."""
    optimizer = schema.ScheduleFreeAdamWSpec(learning_rate=1e-2)
    inner = dataclasses.replace(RECIPE.inner, optimizer=optimizer)
    averaging = prepare(dataclasses.replace(RECIPE, inner=inner))
    work = Work(averaging, estimators.build(RECIPE.outer.estimator))
    params = tree_bytes(work.state().params)
    assert work.averaged_bytes() == params
    assert Work(prepare(RECIPE), work.estimator).averaged_bytes() == 0


@pytest.mark.parametrize(
    ("spec", "count"), [(RECIPE.outer.estimator, 1), (FEW[1][0], 1), (FEW[2][0], 2)]
)
def test_an_average_is_predicted_by_every_estimator(spec, count, uncompiled, monkeypatch, tmp_path):
    """One so large that the moment of its making is the peak."""
    monkeypatch.setattr(Work, "averaged_bytes", lambda work: 10**12)
    cost = cost_model.cost(prepare(with_outer(estimator=spec)), spec, tmp_path)
    assert 0 < cost.memory.device - count * 10**12 < 10**9


def test_tangents_beyond_their_budget_are_an_alternative_that_can_t_be_run(tmp_path):
    spec = schema.ForwardSpec(segment=4, budget_bytes=1000)
    with pytest.raises(EstimatorError, match="4 tangents at a time .* forward_gradient with few"):
        plans.expected(prepare(with_outer(estimator=spec)), folder=tmp_path)


def test_an_external_trainer_is_not_predicted_but_counted(tmp_path):
    outer = schema.OuterSpec(steps=4, estimator=schema.ZerothOrderSpec(directions=3))
    trainer = schema.TrainerSpec("true", parallel=2)
    training = prepare(dataclasses.replace(RECIPE, outer=outer, trainer=trainer))
    for asked in (plans.plan, plans.expected):
        with pytest.raises(plans.NotPredicted, match="takes 6 of its trainings, 2 at a time"):
            asked(training, folder=tmp_path)


def test_parameters_and_optimizer_state_are_counted(made):
    """The first state, one in, one out; the adjoint of the last is as large as a state and η."""
    state = tree_bytes(jax.eval_shape(prepare(RECIPE).initialise, jax.random.key(0)))
    assert 2 * state <= made.alternatives[0].memory.state <= 4.1 * state


def test_seconds_add_up(tmp_path):
    """Of the parts of a run."""
    training = prepare(RECIPE)
    _, pace = plans.expected(training, folder=tmp_path)
    assert pace.outer_step == pytest.approx(pace.hypergradient + pace.judging)
    report = 4 * pace.judging  # two pairs, as many sequences and steps as a judge's
    whole = pace.compilation + 4 * pace.outer_step + pace.judging + report
    assert pace.run == pytest.approx(whole)


SHORT = {"of one": (1, 20), "of two": (2, 20), "a step": (4, 1)}


@pytest.mark.parametrize(("segment", "steps"), cells(SHORT, {"of two", "a step"}))
def test_short_segments_and_short_trainings(segment, steps, tmp_path):
    recipe = dataclasses.replace(
        with_outer(estimator=schema.MixFlowSpec(segment=segment)),
        inner=dataclasses.replace(RECIPE.inner, steps=steps),
        tune=schema.TuneSpec(mixture=schema.MixtureSpec()),
    )
    _, pace = plans.expected(prepare(recipe), folder=tmp_path)
    assert 0 < pace.hypergradient < pace.run


@pytest.mark.parametrize(
    ("unroll", "expected"),
    [
        (schema.FullSpec(), (20, 20)),
        (schema.TruncatedSpec(window=5), (20, 5)),
        (schema.OnlineSpec(window=5), (5, 5)),
        (schema.FullSpec(horizons=(4,)), (4, 4)),
    ],
)
def test_the_horizon_of_an_outer_step(unroll, expected):
    assert horizon(with_outer(unroll=unroll)) == expected


def test_a_budget_that_nothing_fits(tmp_path):
    training = prepare(with_checkpoints(keep="auto", budget_bytes=100))
    with pytest.raises(CheckpointError, match="the smallest that would is .* `recursive`"):
        plans.expected(training, folder=tmp_path)


MEMORY = Memory(1, 2, 3, 4, host=5, disk=6, recomputed_segments=0)
FAST, SLOW = Pace(1, 1, 2, 10, 1), Pace(2, 2, 4, 20, 1)
SMALL = MEMORY._replace(carry=0)


@pytest.mark.parametrize(
    ("ways", "limit", "pick", "why"),
    [
        ((("own", MEMORY, FAST), ("b", SMALL, SLOW)), 15, "own", "the fastest that fits"),
        ((("own", SMALL, FAST), ("b", MEMORY, FAST)), 15, "own", "others are as fast within"),
        ((("own", MEMORY, SLOW), ("b", SMALL, FAST)), 15, "b", "it is faster: set b=1"),
        ((("own", MEMORY, FAST), ("b", SMALL, SLOW)), 14, "b", "own way doesn't fit: set b=1"),
        ((("own", MEMORY, FAST), ("b", SMALL, SLOW)), 7, None, "the least is 8 bytes with b"),
        ((("own", None, None), ("b", SMALL, SLOW)), 15, "b", "because too small: set b=1"),
        ((("own", None, None),), 7, None, "nothing fits: too small"),
    ],
)
def test_the_fastest_that_fits_is_picked(ways, limit, pick, why):
    made = Plan(
        tuple(
            Alternative(name, () if name == "own" else (f"{name}=1",), memory, pace, "too small")
            for name, memory, pace in ways
        ),
        limit,
        "cpu",
    )
    assert (made.pick.name if made.pick else None) == pick
    assert why in made.why


def test_the_table_and_the_json_hold_all_numbers(made):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    console.print(table.table(made))
    text = console.export_text()
    console.file.close()
    assert "as in the recipe" in text and "pick:" in text
    numbers = json.loads(json.dumps(table.as_json(made)))
    own = numbers["alternatives"][0]
    assert own["bytes"]["device"] == made.alternatives[0].memory.device
    assert own["seconds"]["run"] == made.alternatives[0].pace.run
    assert numbers["pick"] == made.pick.name


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.05, "50 ms"), (9.96, "10.0 s"), (600, "10 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds, words):
    assert table.duration(seconds) == words


def test_a_tuned_start_lies_beside_the_state_that_it_is_made_of():
    plain = Work(prepare(RECIPE), estimators.build(schema.MixFlowSpec(segment=4)))
    assert plain.beside_bytes() == 0
    outer = dataclasses.replace(RECIPE.outer, fresh=schema.FreshSpec(initialisation=False))
    tune = schema.TuneSpec(initialisation=schema.PointSpec())
    begun = Work(prepare(dataclasses.replace(RECIPE, tune=tune, outer=outer)), plain.estimator)
    assert begun.beside_bytes() == tree_bytes(begun.state())


def test_differences_that_growth_may_ask_for_are_counted_beside_the_rest():
    """At most: two sides of each of two windows, of all seeds, or of all members; none without."""
    seconds = Seconds(8.0, Line(0.0, 1.0))

    def of(estimator=RECIPE.outer.estimator, **outer):
        training = prepare(with_outer(estimator=estimator, **outer))
        return pace(Work(training, estimators.build(estimator)), seconds, (), 0.0)

    own = of()
    # A judgement trains as often as there are seeds, and evaluates as many sequences here.
    one = own.judging / RECIPE.outer.validation.seeds
    assert own.differences == pytest.approx(4 * one, rel=0.05)
    assert of(signal=schema.SignalSpec(pairs=1)).differences == own.differences / 2
    two, still = schema.SignalSpec(seeds=2), schema.FreshSpec(initialisation=False, data=False)
    assert of(signal=two).differences == 2 * own.differences
    assert of(signal=two, fresh=still).differences == own.differences
    several = schema.PopulationSpec(members=3)
    assert of(population=several).differences == pytest.approx(3 * own.differences)
    assert of(signal="off").differences == 0
    assert of(estimator=schema.ForwardSpec(segment=4)).differences == 0
    assert of(unroll=schema.OnlineSpec(window=4)).differences == 0


def test_a_choice_by_measuring_may_take_what_its_cost_says():
    """Where outer steps enough are there for it, and the recipe leaves something to choose."""
    seconds = Seconds(8.0, Line(0.0, 1.0))

    def of(**outer):
        training = prepare(with_outer(**outer))
        work = Work(training, estimators.build(training.recipe.outer.estimator))
        return pace(work, seconds, (), 0.0).choice

    assert of(steps=19) == 0
    assert of(steps=20) == 8.0
    assert of(steps=20, signal=schema.SignalSpec(cost=3.0)) == 16.0
    assert of(steps=20, signal="off") == 0
    assert of(steps=20, population=schema.PopulationSpec(members=3)) == 0
