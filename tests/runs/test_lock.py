"""One process at a time; a dead one's lock is taken over, another machine's named."""

import json
import os
import signal
import subprocess
import sys

import pytest

from metatune.runs.faults import RunFolderError
from metatune.runs.lock import HOLDER, locked, refuse_held

HOLD = """
import sys, time
from pathlib import Path
from metatune.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def another(tmp_path):
    """Another process, which holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_refused_by_name(tmp_path, another):
    for look in (refuse_held, lambda folder: locked(folder).__enter__()):
        with pytest.raises(RunFolderError) as refused:
            look(tmp_path)
        said = str(refused.value)
        assert f"is in use by process {another.pid} on {os.uname().nodename} since 20" in said
        assert said.startswith(f"--out {tmp_path}: ")
        assert said.endswith("; wait for its end, or give another folder")


def test_who_was_given_a_run_is_told_of_no_option(tmp_path, another):
    with pytest.raises(RunFolderError) as refused, locked(tmp_path, "RUN"):
        pass
    said = str(refused.value)
    assert said.startswith(f"RUN {tmp_path}: is in use by process {another.pid} on ")
    assert said.endswith("; wait for its end")


def test_a_killed_process_s_is_taken_over(tmp_path, another):
    another.send_signal(signal.SIGKILL)
    another.wait()
    assert (tmp_path / HOLDER).exists()
    refuse_held(tmp_path)
    with locked(tmp_path):
        assert json.loads((tmp_path / HOLDER).read_text())["process"] == os.getpid()
    assert not (tmp_path / HOLDER).exists()


def test_a_number_that_is_another_process_s_by_now_is_taken_over(tmp_path):
    with locked(tmp_path):
        held = json.loads((tmp_path / HOLDER).read_text())
    (tmp_path / HOLDER).write_text(json.dumps({**held, "process": 1}))
    with locked(tmp_path):
        pass


def test_another_machine_s_is_told_apart(tmp_path):
    with locked(tmp_path):
        held = json.loads((tmp_path / HOLDER).read_text())
    (tmp_path / HOLDER).write_text(json.dumps({**held, "host": "node17", "process": 4}))
    with pytest.raises(RunFolderError) as refused, locked(tmp_path):
        pass
    assert "was in use by process 4 of another machine, node17, since" in str(refused.value)
    assert f"if it has, delete {tmp_path / HOLDER} and go on" in str(refused.value)
    (tmp_path / HOLDER).unlink()
    with locked(tmp_path):
        pass


def test_a_live_process_is_refused_where_the_filesystem_has_no_locks(tmp_path, another):
    held = json.loads((tmp_path / HOLDER).read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / HOLDER).write_text(json.dumps(held))
    with pytest.raises(RunFolderError, match=f"in use by process {another.pid} on"), locked(other):
        pass


def test_a_holder_that_was_cut_off_is_nobody(tmp_path):
    (tmp_path / HOLDER).write_text('{"process": 4, "ho')
    with locked(tmp_path):
        pass
