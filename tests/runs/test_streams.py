"""Jobs in threads: their order, how many compute at a time, failures, time, and a signal."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from metatune.runs.streams import Streams, StreamsEnded

LONG = 20.0
"""Seconds that no thread is waited for, unless the test fails."""


def test_results_are_in_the_order_of_the_jobs_whoever_ends_first():
    second = threading.Event()

    def first():
        assert second.wait(LONG)
        return "first"

    def other():
        second.set()
        return "second"

    assert Streams(2).each([first, other, lambda: "third"]) == ["first", "second", "third"]


@pytest.mark.parametrize("waiting", [False, True])
def test_no_more_compute_at_a_time_than_there_are_streams(waiting):
    streams, lock, running, most = Streams(2), threading.Lock(), [0], [0]
    both = threading.Barrier(2)

    def job():
        with streams.turn():
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            both.wait(LONG)  # passes in pairs alone: so two do compute at a time
            with lock:
                running[0] -= 1

    streams.each([job] * 6, waiting=waiting)
    assert most == [2]


def test_one_stream_does_them_here_in_their_order():
    found = []
    jobs = [lambda i=i: found.append((i, threading.current_thread())) for i in range(3)]
    Streams().each(jobs)
    assert found == [(i, threading.main_thread()) for i in range(3)]


def test_jobs_that_wait_hold_nobody_up():
    """Three jobs, of which the first waits for what the last does, on two streams."""
    streams, last = Streams(2), threading.Event()
    waits = [lambda: last.wait(LONG), lambda: last.wait(LONG), lambda: last.set() or True]
    assert streams.each(waits, waiting=True) == [True] * 3


def test_a_failure_is_raised_and_ends_the_others():
    streams, begun, ended = Streams(2), threading.Event(), []

    def fails():
        assert begun.wait(LONG)
        raise ValueError("of the job")

    def goes_on():
        with streams.turn():
            begun.set()
            deadline = time.monotonic() + LONG
            try:
                while time.monotonic() < deadline:
                    time.sleep(0.001)
                    streams.go_on()
            except StreamsEnded:
                ended.append(True)
                raise

    never = []
    with pytest.raises(ValueError, match="of the job"):
        streams.each([fails, goes_on, lambda: never.append(True)])
    assert ended == [True]
    assert not never
    with pytest.raises(StreamsEnded):
        streams.each([lambda: None])


def test_time_of_the_machine_is_shared_by_those_that_run():
    """Two side by side have half of it each, so that the sum is what a clock tells."""
    streams, both = Streams(2), threading.Barrier(2)

    def job():
        with streams.turn() as turn:
            both.wait(LONG)
            time.sleep(0.2)
            both.wait(LONG)
        return turn.seconds

    began = time.monotonic()
    seconds = streams.each([job, job])
    took = time.monotonic() - began
    assert 0.2 <= sum(seconds) <= took
    assert all(each >= 0.09 for each in seconds)


def test_no_stream_is_refused():
    with pytest.raises(ValueError, match="0 streams: at least one is needed"):
        Streams(0)


STOPPED = """
import sys, threading, time
from metatune.runs import stops
from metatune.runs.streams import Streams, StreamsEnded

streams, lock, ended = Streams(2), threading.Lock(), []

def job():
    with streams.turn():
        with lock:
            print("began", flush=True)
        try:
            while True:
                time.sleep(0.01)
                streams.go_on()
        except StreamsEnded:
            ended.append(True)
            raise

try:
    with stops.listening():
        streams.each([job, job])
except KeyboardInterrupt:
    print(f"stopped after {len(ended)}", flush=True)
    sys.exit(stops.exit_code())
"""


def test_a_signal_ends_the_threads_at_their_next_boundary():
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["began\n"] * 2
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=60)
    assert told == "stopped after 2\n"
    assert process.returncode == 128 + signal.SIGTERM
