"""Several computations at once, in threads of this process.

A small program keeps two cores busy for a part of its time: between its short stretches of work one
waits for the other. Two such programs side by side fill both. All of them are the very programs
that run alone, so that what they compute doesn't depend on how many there are.

Threads ask for a turn, of which there are as many as streams. The main thread waits for them, and
is where signals are heard: then threads end with what they compute, at the next boundary.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from metatune.runs import stops

T = TypeVar("T")


class StreamsEnded(Exception):
    """Whoever waits for these threads has given up: one failed, or the process is to end."""


@dataclass(eq=False)
class Turn:
    """A stretch of computing.

    Attributes:
        seconds: of the machine, so far: of what runs at once with others, its part.
    """

    seconds: float = 0.0


class Streams:
    """Runs jobs in threads, and lets so many of them compute at a time.

    Attributes:
        count: how many.
    """

    def __init__(self, count: int = 1):
        """Nothing runs yet.

        Args:
            count: how many may compute at a time, one or more.

        Raises:
            ValueError: it is less than one.
        """
        if count < 1:
            raise ValueError(f"{count} streams: at least one is needed")
        self.count = count
        self._free = threading.Semaphore(count)
        self._ended = threading.Event()
        self._lock, self._running, self._since = threading.Lock(), list[Turn](), 0.0

    def each(self, jobs: Sequence[Callable[[], T]], waiting: bool = False) -> list[T]:
        """Does all jobs, and returns what they return, in their order.

        Args:
            jobs: to do; they begin in this order.
            waiting: whether jobs depend on results of their own that others must not wait for: then
                all begin at once, each in a thread of its own.

        Raises:
            StreamsEnded: an earlier call failed.
            Exception: that of the first job that failed, after all others have ended.
        """
        self.go_on()
        if self.count == 1 or len(jobs) < 2:
            return [job() for job in jobs]
        results, failures = dict[int, T](), list[BaseException]()
        numbers, lock = iter(range(len(jobs))), threading.Lock()

        def work() -> None:
            while not self._ended.is_set():
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    results[number] = jobs[number]()
                except BaseException as error:  # raised by whoever waits
                    failures.append(error)
                    self._ended.set()

        def thread(over: threading.Event) -> None:
            try:
                work()
            finally:
                over.set()

        begun = list[threading.Event]()
        try:
            for _ in range(len(jobs) if waiting else min(self.count, len(jobs))):
                over = threading.Event()
                begun.append(over)
                threading.Thread(target=thread, args=(over,), daemon=True).start()
            # Not by `join`: where a signal's handler raises in it, Python 3.11 takes a thread that
            # runs for one that has ended (python/cpython#90882).
            for over in begun:
                over.wait()
        except BaseException:
            self._ended.set()
            _leave(begun)
            raise
        if failures:
            raise failures[0]
        return [results[number] for number in range(len(jobs))]

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """A stretch of computing, which begins when a stream is free.

        Raises:
            StreamsEnded: nobody waits for it any more.
        """
        with self._free:
            self.go_on()
            mine = Turn()
            with self._lock:
                self._share_time()
                self._running.append(mine)
            try:
                yield mine
            finally:
                with self._lock:
                    self._share_time()
                    self._running.remove(mine)

    def go_on(self) -> None:
        """Asks whether to go on, at a boundary of what is computed.

        Raises:
            StreamsEnded: nobody waits for it any more.
        """
        if self._ended.is_set():
            raise StreamsEnded

    def _share_time(self) -> None:
        """Gives what has passed since the last call to those that run, in equal parts."""
        now = time.monotonic()
        for turn in self._running:
            turn.seconds += (now - self._since) / len(self._running)
        self._since = now


def _leave(begun: Sequence[threading.Event]) -> None:
    """Waits for the ends of threads, but no longer than whoever sent a signal may wait."""
    deadline = time.monotonic() + stops.PATIENCE_SECONDS
    ended = [over.wait(max(0.0, deadline - time.monotonic())) for over in begun]
    if not all(ended) and stops.heard():
        stops.end_at_once()
