"""What is waited for, and what is remembered of how long programs take to compile."""

import dataclasses

import pytest
from jax import monitoring
from recipes import CODE, tiny

from metatune.fit.process.compiler import COMPILED, TRACED
from metatune.fit.telling.waits import HYPERGRADIENT, TRAINING, Durations, Waits, durations_of
from metatune.hypergrad import Progress
from metatune.recipe import schema

RECIPE = tiny(
    data={"domains": {"code": CODE}},
    tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec()),
)


class Clock:
    """Seconds, as they are said."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def complaints():
    return []


@pytest.fixture
def waits(tmp_path, clock, complaints):
    return Waits(Durations(tmp_path / "cache" / "it.json"), complaints.append, clock)


def at(phase, step):
    return Progress(phase, step, 4, 2.5)


def test_a_program_compiles_until_its_first_segment_has_run(waits, clock, tmp_path):
    waits.begin("hypergradient", HYPERGRADIENT)
    assert waits.sentence == "compiling the hypergradient"
    clock.now = 21.0
    assert waits.seconds == 21
    waits.heard(at("forward", 2))
    assert waits.compiling is None
    assert waits.sentence == "hypergradient forward, inner step 2/4"
    clock.now = 22.0
    waits.heard(at("forward", 4))
    assert waits.sentence == "compiling the rest of the hypergradient"
    clock.now = 52.0
    waits.heard(at("backward", 2))
    assert waits.sentence == "hypergradient backward, inner step 2/4"
    again = Durations(tmp_path / "cache" / "it.json")
    assert [again.last(program) for program in HYPERGRADIENT] == [21, 30]
    assert again.last("another") is None


def test_what_was_traced_alone_is_not_told_of_the_next_wait(waits):
    monitoring.record_event_duration_secs(TRACED, 0.1, fun_name="jit(pullback)")
    waits.begin("hypergradient", HYPERGRADIENT)
    assert waits.sentence == "compiling the hypergradient"
    monitoring.record_event_duration_secs(TRACED, 0.1, fun_name="jit(pullback)")
    assert waits.sentence == "compiling the hypergradient: the sweep back"
    monitoring.record_event_duration_secs(COMPILED, 0.1, fun_name="jit(pullback)")
    assert waits.sentence == "compiling the hypergradient"


def test_a_program_compiles_once_in_a_process(waits, clock):
    for number in (1, 2):
        waits.begin(f"judge {number}", TRAINING)
        assert (waits.compiling is None) == (number == 2)
        waits.heard(at("forward", 4))
        assert (waits.compiling is None) == (number == 2)
        clock.now += 3


def test_the_next_process_tells_what_it_took(tmp_path, clock, complaints):
    path = tmp_path / "it.json"
    for told in ("compiling a training", "compiling a training (took 21 s last time)"):
        waits = Waits(Durations(path), complaints.append, clock)
        waits.begin("judge 1", TRAINING)
        assert waits.sentence == told
        clock.now += 21
        waits.heard(at("forward", 1))
    assert not complaints


def test_what_compiles_nothing_is_named_alone(waits):
    waits.begin("judge 1")
    assert (waits.compiling, waits.sentence) == (None, "judge 1")
    waits.end()
    assert waits.sentence == ""


def test_without_a_place_to_keep_it_a_run_goes_on_and_says_so_once(tmp_path, clock, complaints):
    (tmp_path / "cache").write_text("no folder")
    waits = Waits(Durations(tmp_path / "cache" / "it.json"), complaints.append, clock)
    waits.begin("hypergradient", HYPERGRADIENT)
    for phase in ("forward", "backward"):
        waits.heard(at(phase, 4))
    (complaint,) = complaints
    assert complaint.startswith("how long programs take to compile can't be kept: ")


def test_a_file_that_was_cut_off_is_written_anew(tmp_path):
    path = tmp_path / "it.json"
    path.write_text('{"a training": 2')
    durations = Durations(path)
    assert durations.last("a training") is None
    durations.took("a training", 3.0)
    assert Durations(path).last("a training") == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["it.json"]


def test_what_programs_depend_on_tells_recipes_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("METATUNE_CACHE", str(tmp_path))
    durations_of(RECIPE).took("a training", 2.0)
    longer = dataclasses.replace(RECIPE.outer, steps=9, test=schema.FinalTestSpec(seeds=9))
    same = dataclasses.replace(RECIPE, outer=longer, seed=7)
    wider = dataclasses.replace(RECIPE, model=schema.ModelSpec(config={"hidden_size": 9}))
    assert durations_of(same).last("a training") == 2
    assert durations_of(wider).last("a training") is None
    assert [path.suffix for path in (tmp_path / "compiling").iterdir()] == [".json"]
