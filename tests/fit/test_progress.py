"""What a user sees of a search: in a terminal of 80 columns, and in a log."""

import io
import re
import time

import pytest
from rich.console import Console

from metatune.fit.telling.progress import SearchDisplay
from metatune.fit.telling.waits import HYPERGRADIENT
from metatune.hypergrad import Progress
from metatune.report import progress as displays

LINE = {
    "step": 3,
    "phase": 0,
    "inner_steps": 100,
    "objective": 2.1717,
    "held_out": 2.171,
    "held_out_average": 2.18,
    "best_held_out": 2.1701,
    "hypergradient_norm": {"learning_rates": 0.0602, "mixture": 0.0581},
    "signal": {"learning_rates": {"median": 1.2}, "mixture": {"median": None}},
    "seconds": 12.34,
}
LAST = {"step": 4, "phase": 0, "held_out": 2.16, "best_held_out": 2.16, "seconds": 3.0}
RATES = "rates x0.35 to x2.92"
FIELDS = [
    "point 3/4",
    "objective 2.1717",
    "held-out 2.1710 (best 2.1701)",
    "average 2.1800",
    "|d learning_rates| 0.0602 (signal 1.2)",
    "|d mixture| 0.0581",
    RATES,
    "12.3 s",
    "the result is next",
]


def shown(terminal: bool, width: int = 80) -> tuple[SearchDisplay, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=width, color_system=None)
    return SearchDisplay(console, 4), output


def plain(output: io.StringIO) -> list[str]:
    """The lines that stay, without those that are drawn over."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.getvalue()).replace("\r", "\n")
    return [line.rstrip() for line in text.split("\n")]


def test_what_is_left_is_of_the_search_and_the_clock_goes_on_while_the_result_is_measured():
    display, output = shown(terminal=False)
    display.point({**LINE, "step": 1, "seconds": 60.0})
    assert output.getvalue().endswith("about 2 min left, then the result\n")
    display.point(LINE)
    (task,) = display._outer.tasks
    task.get_time = lambda: (task.start_time or 0.0) + 3725.0
    assert task.finished
    assert displays.Clock().render(task).plain == "1:02:05"


def test_in_a_log_a_point_is_one_line():
    display, output = shown(terminal=False)
    display.point(LINE, rates=RATES)
    display.point(LAST, rates=RATES, note="a note")
    assert output.getvalue().split("\n") == [
        "  ".join(FIELDS),
        f"point 4/4  held-out 2.1600 (best 2.1600)  {RATES}  a note  3.0 s",
        "",
    ]


@pytest.mark.parametrize("width", [50, 80, 100])
def test_in_a_terminal_lines_break_between_fields(width):
    display, output = shown(terminal=True, width=width)
    display.point(LINE, rates=RATES)
    lines = [line for line in plain(output) if line]
    assert max(map(len, lines)) <= width
    assert [field for line in lines for field in line.strip().split("  ")] == FIELDS
    assert all(line.startswith("    ") for line in lines[1:])


def test_in_a_terminal_sentences_break_between_words():
    display, output = shown(terminal=True)
    said = "a sentence of many words " * 9
    display.say(said.strip())
    lines = [line for line in plain(output) if line]
    assert max(map(len, lines)) <= 80 and len(lines) > 2
    assert " ".join(line.strip() for line in lines) == said.strip()


def test_brackets_of_a_message_stay():
    display, output = shown(terminal=False)
    display.say("outer.phases[1] and [bold]")
    assert output.getvalue() == "outer.phases[1] and [bold]\n"


def test_a_terminal_is_drawn_while_nothing_is_heard():
    """What compiles has a clock and a spinner, which move though no listener is told anything."""
    display, output = shown(terminal=True)

    def frames():
        return {line for line in plain(output) if "compiling the hypergradient" in line}

    with display:
        display.listener("hypergradient", HYPERGRADIENT)
        deadline = time.monotonic() + 60
        spinners = clocks = set()
        while len(spinners) < 3 or len(clocks) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
            parts = [line.split(" compiling the hypergradient, ") for line in frames()]
            spinners, clocks = ({part[at] for part in parts} for at in (0, 1))


def test_a_log_has_a_line_now_and_then_while_nothing_is_heard(monkeypatch):
    monkeypatch.setattr(displays, "QUIET_SECONDS", 0.1)
    display, output = shown(terminal=False)
    with display:
        display.listener("hypergradient", HYPERGRADIENT)
        deadline = time.monotonic() + 30
        while output.getvalue().count("\n") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert set(output.getvalue().splitlines()) == {"  compiling the hypergradient, 0 s so far"}
    output.truncate(0)
    time.sleep(0.3)
    assert not output.getvalue()  # and none after the run


def test_what_is_going_on_is_known():
    display, _ = shown(terminal=False)
    hear = display.listener("hypergradient", HYPERGRADIENT)
    assert display.doing == "compiling the hypergradient"
    hear(Progress("forward", 2, 4, 2.5))
    assert display.doing == "hypergradient forward, inner step 2/4"
    with display.waiting("writing the artefact"):
        assert display.doing == "writing the artefact"
    assert display.doing == ""
    with pytest.raises(KeyboardInterrupt), display.waiting("writing the artefact"):
        raise KeyboardInterrupt
    assert display.doing == "writing the artefact"
