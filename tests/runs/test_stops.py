"""The first signal ends what can be gone on with, the second everything, whatever it does."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from metatune.runs import stops

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
BEGIN = """
import os, signal, sys, threading, time
from metatune.runs import children, stops
def send(number, seconds):
    threading.Timer(seconds, os.kill, (os.getpid(), number)).start()
def deaf(seconds):
    "As a program that is compiled: the main thread runs none of Python's instructions."
    import ctypes
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    ctypes.CDLL(None).poll(None, 0, int(seconds * 1000))  # other threads get the signals
"""


def ended(program, ignored=None):
    trap = [] if ignored is None else ["sh", "-c", f"trap '' {int(ignored)}; exec \"$@\"", "sh"]
    began = time.monotonic()
    done = subprocess.run(
        [*trap, sys.executable, "-c", BEGIN + program],
        capture_output=True,
        text=True,
        timeout=50,
    )
    return done, time.monotonic() - began


@pytest.mark.parametrize("number", NUMBERS)
def test_outside_of_a_hold_the_main_thread_is_stopped(number):
    before = signal.getsignal(number)
    with pytest.raises(stops.Stopped), stops.listening():
        os.kill(os.getpid(), number)
        time.sleep(10)
    assert stops.exit_code() == 128 + number
    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("number", NUMBERS)
def test_a_hold_looks_and_ends_by_itself(number):
    said, before = [], signal.getsignal(number)
    with stops.held(said.append, raises=False) as hold:
        assert not hold.asked
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        assert hold.asked
    assert said == ["interrupted: these steps are finished and kept; a second one ends now"]
    assert signal.getsignal(number) is before


def test_a_hold_is_stopped_at_its_end_and_once():
    done = []
    with stops.listening():
        with pytest.raises(stops.Stopped), stops.held():
            with stops.held():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        with stops.held():
            done.append("what is done because of it")
    assert done == ["inner", "outer", "what is done because of it"]


def test_the_second_ends_the_process():
    done, seconds = ended(
        "with stops.held(lambda text: print(text, flush=True)):\n"
        "    send(signal.SIGTERM, 0.2)\n    send(signal.SIGINT, 0.6)\n    deaf(40)\n"
    )
    assert done.returncode == 143, done.stderr
    assert done.stdout.startswith("interrupted: these steps")
    assert done.stderr == "ended at once\n"
    assert seconds < 30


def test_a_main_thread_that_does_not_answer_is_not_waited_for():
    done, seconds = ended(
        "stops.PATIENCE_SECONDS = 2.0\n"
        "stops.farewell('go on with this')\n"
        "with stops.listening():\n    send(signal.SIGHUP, 0.2)\n    deaf(40)\n"
    )
    assert done.returncode == 129, done.stderr
    assert done.stderr.splitlines()[0].startswith("interrupted: ends when what runs now allows it")
    assert done.stderr.splitlines()[1] == "go on with this"
    assert seconds < 30


def test_a_notice_file_counts_as_a_sigterm(tmp_path, monkeypatch):
    """Of a file that appears while the program computes."""
    notice = tmp_path / "notice"
    monkeypatch.setenv(stops.NOTICE, str(notice))
    done, seconds = ended(
        "with stops.listening():\n"
        f"    threading.Timer(0.3, lambda: open({str(notice)!r}, 'w').close()).start()\n"
        "    try:\n        time.sleep(30)\n"
        "    except KeyboardInterrupt:\n        sys.exit(stops.exit_code())\n"
    )
    assert done.returncode == 143, done.stderr
    assert seconds < 20


def test_without_a_notice_file_nothing_ends(tmp_path, monkeypatch):
    monkeypatch.setenv(stops.NOTICE, str(tmp_path / "notice"))
    done, _ = ended("with stops.listening():\n    time.sleep(2)\nprint('whole')\n")
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


def test_what_is_held_is_waited_for():
    done, _ = ended(
        "stops.PATIENCE_SECONDS = 0.2\n"
        "with stops.held():\n    send(signal.SIGTERM, 0.1)\n    deaf(2)\n    print('whole')\n"
    )
    assert done.stdout == "whole\n"
    assert "Stopped" in done.stderr


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_that_meets_a_call_whose_errors_are_thrown_away_is_not_lost(number, times):
    done, seconds = ended(
        "import gc\n"
        f"left = {times}\n"
        "def callback(*_):\n"  # as JAX has one, which a signal often meets
        "    global left\n"
        "    if left:\n"
        "        left -= 1\n"
        f"        os.kill(os.getpid(), {number}) if left == {times} - 1 else time.sleep(0.3)\n"
        "        time.sleep(0.1)\n"
        "try:\n"
        "    with stops.listening():\n"
        "        gc.callbacks.append(callback)\n"
        "        while True:\n            gc.collect()\n"
        "except stops.Stopped:\n    print('stopped')\n    sys.exit(stops.exit_code())\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "stopped\n", "")
    assert seconds < 20


MODULE = """
import os, time
try:
    os.kill(os.getpid(), {number})
    time.sleep(10)
except BaseException:
    raise ImportError("as libraries written in C make of it") from None
"""


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_that_meets_an_import_ends_the_process(tmp_path, number):
    (tmp_path / "module.py").write_text(MODULE.format(number=int(number)))
    done, _ = ended(
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "with stops.before_the_end(lambda: print('put away', flush=True)), stops.listening():\n"
        "    import module\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        128 + number,
        "put away\n",
        "interrupted\n",
    )


def test_a_module_that_searches_while_it_is_imported_is_stopped_as_others_are(tmp_path):
    (tmp_path / "module.py").write_text(
        "import os, signal, time\nfrom metatune.runs import stops\n"
        "try:\n    with stops.listening():\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n        time.sleep(10)\n"
        "except stops.Stopped:\n    print('stopped')\n"
    )
    done, _ = ended(f"sys.path.insert(0, {str(tmp_path)!r})\nimport module\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


def test_held_imports_are_whole(tmp_path):
    (tmp_path / "module.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.1)\n"
    )
    done, _ = ended(
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n    with stops.held():\n        import module\n        print('whole')\n"
        "except stops.Stopped:\n    print('stopped')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\nstopped\n", "")


@pytest.mark.parametrize("number", NUMBERS)
def test_what_the_parent_ignores_stays_ignored(number):
    done, _ = ended(
        f"with stops.listening():\n    os.kill(os.getpid(), {number})\n    time.sleep(0.3)\n"
        "    print('still here')\n",
        ignored=number,
    )
    assert (done.returncode, done.stdout) == (0, "still here\n")


def test_copies_of_the_process_end_as_processes_do():
    done, _ = ended(
        "with stops.listening():\n"
        "    if not (child := os.fork()):\n        time.sleep(60)\n"
        "    time.sleep(0.2)\n    os.kill(child, signal.SIGTERM)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert done.stdout == "-15\n" and "Traceback" not in done.stderr


def test_programs_that_were_started_end_with_a_process_that_ends_at_once():
    done, _ = ended(
        "with stops.held():\n"
        "    child = children.start([sys.executable, '-S', '-c', 'import signal, time\\n'\n"
        "        'signal.signal(signal.SIGTERM, signal.SIG_IGN)\\ntime.sleep(60)'])\n"
        "    print(child.pid, flush=True)\n"
        "    send(signal.SIGTERM, 0.2)\n    send(signal.SIGTERM, 0.5)\n    time.sleep(40)\n"
    )
    assert done.returncode == 143
    deadline = time.monotonic() + 5
    while alive(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(int(done.stdout))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_other_threads_listen_to_nothing():
    found = []

    def look():
        with stops.listening(), stops.held() as hold:
            found.append(hold.asked)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [False]
