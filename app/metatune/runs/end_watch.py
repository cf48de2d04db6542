"""Watches over the processes of a run: where one has ended, the others do.

A process that dies is noticed by JAX's service, by its heartbeats; here a thread asks for it, and
ends this process with the last line that the dead one printed: each tells the service its own, and
keeps that of the first at hand, as the service lives there. Where the first dies, JAX's client
calls `abort` before Python can catch anything, so that the handler of that signal is C's.
"""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from metatune.runs import stops
from metatune.runs.last_line import LastLine

HEARTBEAT_SECONDS: Final = 10
"""Without a sign of life, after which a process is dead."""
LOOK_SECONDS: Final = 0.5
"""Between looks for those that have ended."""
LAST_LINE: Final = "metatune/last_line/"
"""Of JAX's key-value store, with the number of a process the key for what it printed last."""
ENDED: Final = 1
"""Exit code where another process has ended: nothing is wrong with what was asked."""

_Aborted = ctypes.CFUNCTYPE(None, ctypes.c_int)


class EndWatch:
    """Ends this process where another has ended."""

    def __init__(self, index: int, count: int, last: LastLine):
        """Begins, where the processes have met.

        Args:
            index: of this process, from 0.
            count: of them.
            last: what this one prints last, for the others.
        """
        from jax._src import distributed  # nothing public tells who lives outside of `with`

        self._client: Any = distributed.global_state.client
        self._index, self._count, self._last = index, count, last
        self._of_first = ""
        self._over = threading.Event()
        self._handler = _Aborted(self._coordinator_gone)  # kept, or it is freed under C
        if index:
            libc = ctypes.CDLL(None)
            libc.signal(signal.SIGABRT, self._handler)
        for work in (self._watch, self._tell_each):
            threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        """Watches no more."""
        self._over.set()

    def leave(self) -> None:
        """Leaves in peace, the first process last: the others would take it for dead."""
        import jax

        deadline = time.monotonic() + HEARTBEAT_SECONDS
        while not self._index and time.monotonic() < deadline:
            if len(self._client.get_live_nodes([0, *range(1, self._count)])) == 1:
                break
            time.sleep(0.1)
        jax.distributed.shutdown()

    def expect_an_end(self) -> None:
        """A program failed, perhaps because another process has ended: waits until that is known.

        Returns where none has.
        """
        self._over.wait(HEARTBEAT_SECONDS + 3)

    def tell(self, text: str) -> None:
        """Tells the others what this process ends with.

        Args:
            text: of any number of lines.
        """
        self._last.note(" ".join(text.split()))
        self._tell()
        self._let_all_look()

    def _let_all_look(self) -> None:
        """In the first process, which takes the service with it: waits until all have asked."""
        if not self._index:
            time.sleep(3 * LOOK_SECONDS)

    def _tell_each(self) -> None:
        """Tells each line as soon as it is printed."""
        while not self._over.is_set():
            if self._last.changed.wait(LOOK_SECONDS):
                self._last.changed.clear()
                self._tell()

    def _tell(self) -> None:
        key = f"{LAST_LINE}{self._index}"
        with suppress(Exception):  # of the service, which is going, or gone
            self._client.key_value_set(key, str(self._last), allow_overwrite=True)

    def _said_by(self, number: int) -> str:
        """What a process printed last; nothing where that isn't known."""
        try:
            return self._client.key_value_try_get(f"{LAST_LINE}{number}")
        except Exception:  # it hasn't printed anything, or the service is going
            return ""

    def _watch(self) -> None:
        everyone = list(range(self._count))
        while not self._over.wait(LOOK_SECONDS):
            if self._index:
                self._of_first = self._said_by(0) or self._of_first
            try:
                live = self._client.get_live_nodes(everyone)
            except Exception:  # of the service, which is going, or gone
                continue
            gone = [number for number in everyone if number not in live]
            if gone and not self._over.is_set():
                self._end(gone)

    def _coordinator_gone(self, number: int) -> None:
        if not self._over.is_set():
            self._end([0])
        os._exit(128 + number)

    def _end(self, gone: Sequence[int]) -> None:
        # Where the first is gone nothing answers any more.
        said = {0: self._of_first} if 0 in gone else {each: self._said_by(each) for each in gone}
        lines = "".join(
            f"; the last line of process {n}: {line}" for n, line in said.items() if line
        )
        if self._count > 1 + len(gone):  # or they would take this one for the dead
            self._let_all_look()
        which = ", ".join(map(str, gone))
        several = len(gone) > 1
        stops.end_now(
            f"error: process{'es' if several else ''} {which} of {self._count} "
            f"{'have' if several else 'has'} ended, and so does process {self._index}; "
            f"what was kept before is whole: begin all again with --resume{lines}",
            ENDED,
        )
