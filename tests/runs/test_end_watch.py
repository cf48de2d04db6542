"""The end of one of two processes: the other one's, with what was printed last."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cells import cells

from metatune.runs import processes
from metatune.runs.end_watch import ENDED, LOOK_SECONDS
from metatune.runs.last_line import LONGEST, LastLine

LIMIT_SECONDS = 15


def among_others(folder):
    """Prints a few lines, and waits to be killed, or fails where there is a file that says so."""
    with processes.joined() as here:
        print("begun")
        print(f"\x1b[2Kstep {here.index + 7}\x1b[0m of 9", end="\r", flush=True)
        (folder / f"printed {here.index}").touch()
        while not (folder / f"fail {here.index}").exists():
            time.sleep(0.05)
        raise ValueError("no such\n  domain")


@pytest.fixture
def two(tmp_path):
    """Two processes that have printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "JAX_NUM_CPU_DEVICES": "1",
                processes.COORDINATOR: f"127.0.0.1:{port}",
                processes.COUNT: "2",
                processes.INDEX: str(index),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    deadline = time.monotonic() + 300
    while not all((tmp_path / f"printed {index}").exists() for index in range(2)):
        assert time.monotonic() < deadline and all(each.poll() is None for each in started)
        time.sleep(0.05)
    time.sleep(6 * LOOK_SECONDS)  # until each has looked, however busy this machine is
    yield started
    for each in started:
        each.kill()
        each.communicate()


ENDS = {
    "the first is killed": (0, "step 7 of 9"),
    "the second is killed": (1, "step 8 of 9"),
    "the first fails": (0, "ValueError: no such domain"),
    "the second fails": (1, "ValueError: no such domain"),
}


@pytest.mark.parametrize(("which", "said"), cells(ENDS, {"the first fails", "the second fails"}))
def test_the_survivor_ends_with_the_last_line_of_the_dead(two, which, said, tmp_path):
    began = time.monotonic()
    if "Error" in said:
        (tmp_path / f"fail {which}").touch()
    else:
        two[which].send_signal(signal.SIGKILL)
    survivor = two[1 - which]
    out, problem = survivor.communicate(timeout=60)
    assert time.monotonic() - began < LIMIT_SECONDS
    assert survivor.returncode == ENDED
    assert problem.splitlines()[-1] == (
        f"error: process {which} of 2 has ended, and so does process {1 - which}; what was kept "
        "before is whole: begin all again with --resume; the last line of process "
        f"{which}: {said}"
    )
    assert ("begun" in out) == (which == 1)  # the first one alone prints


def test_a_line_is_known_before_it_ends():
    last, stream = LastLine(), io.StringIO()
    noted = last.of(stream)
    assert str(last) == "" and not last.changed.is_set()
    print("one", "two", file=noted)
    assert str(last) == "one two" and last.changed.is_set()
    noted.writelines(["\n", "\x1b[32mthr", "ee\x1b[0m"])
    assert str(last) == "three"
    noted.write("\r\n \n")
    assert str(last) == "three"
    noted.write("x" * 2 * LONGEST)
    assert len(str(last)) == LONGEST
    assert stream.getvalue().startswith("one two\n\n\x1b[32mthree\x1b[0m\r\n \n")
    assert noted.isatty() is False


if __name__ == "__main__":
    among_others(Path(sys.argv[1]))
