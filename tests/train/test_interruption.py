"""The first Ctrl-C is noted, the second ends the process whatever it does."""

import os
import signal
import subprocess
import sys
import time

from metatune.train.interruption import Interruption

BUSY = """
import os, signal, sys, threading, time
from metatune.train.interruption import Interruption
with Interruption(lambda text: print(text, flush=True)):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()
    threading.Event().wait(60)
"""


def test_the_first_is_noted_and_then_all_is_as_before():
    said, before = [], signal.getsignal(signal.SIGINT)
    with Interruption(said.append) as interruption:
        assert not interruption.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.asked
        deadline = time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said == ["interrupted: these steps are finished and kept; Ctrl-C again ends now"]
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_the_second_ends_the_process():
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=50)
    assert done.returncode == 130, done.stderr
    assert done.stdout.startswith("interrupted: these steps")
    assert time.monotonic() - began < 40
