"""What is shown while a recipe is checked."""

import io

import pytest
from rich.console import Console

from metatune.check import progress
from metatune.check.progress import CheckDisplay
from metatune.check.subject import Task
from metatune.report import progress as displays


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(displays.time, "monotonic", lambda: now[0])
    return now


def shown(clock, seconds, works, total=10):
    """Lines where each work takes so many seconds before the next begins."""
    console = Console(width=200, file=(file := io.StringIO()))
    with CheckDisplay(console) as display:
        display.begin(total)
        for work, took in zip(works, seconds, strict=True):
            display.watch(work)
            clock[0] += took
    return file.getvalue().splitlines()


def test_the_time_left_is_told_from_the_pace_after_compilation(clock):
    works = [Task("hypergradient, seed 1 of 2", 4), *[Task(f"slope {i}", 1) for i in range(4)]]
    lines = shown(clock, [300, 20, 20, 20, 20], works)
    assert lines[0].startswith("as long as 10 trainings, and compilation")
    # 300 seconds of compilation are no pace: 4 of 10 are done, and nothing is known yet.
    assert lines[1] == "  4/10 slope 0"
    assert lines[2] == "  5/10 about 2 min left, slope 1"
    assert lines[3:] == ["  6/10 about 80 s left, slope 2", "  7/10 about 60 s left, slope 3"]


def test_what_was_not_foreseen_is_added(clock):
    works = [Task("first", 4), Task("slope", 1), Task("slope again", 2, further=True)]
    assert shown(clock, [20, 20, 20], works)[-1] == "  5/12 about 2 min left, slope again"


def test_a_listener_tells_the_inner_step(clock):
    console = Console(width=200, file=(file := io.StringIO()))
    with CheckDisplay(console) as display:
        display.begin(2)
        hear = display.watch(Task("first", 1))
        clock[0] += 60
        hear(progress.hypergrad.Progress("forward", 3, 8, 1.0))
    assert file.getvalue().splitlines()[-1] == "  0/2 first, forward, inner step 3/8"
