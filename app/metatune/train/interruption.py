"""Ctrl-C: the first lets a training end where it can go on from, the second ends it at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class Interruption:
    """Within its `with`, whether Ctrl-C was pressed; to be used in the main thread.

    Python runs handlers of signals between two of its instructions alone, which may be minutes
    apart while a program is compiled. So a thread listens too, to what the interpreter writes into
    a pipe as soon as a signal comes.
    """

    def __init__(self, say: Callable[[str], None]):
        """Nothing is changed before the `with`; `say` tells what the first one leads to."""
        self.asked = False
        self._say = say

    def __enter__(self) -> "Interruption":
        """Listens to Ctrl-C."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._handler = signal.signal(signal.SIGINT, self._hear)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leaves Ctrl-C as it was."""
        signal.set_wakeup_fd(self._wakeup)
        signal.signal(signal.SIGINT, self._handler)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def _listen(self) -> None:
        """Counts until the pipe is closed."""
        heard = 0
        while came := os.read(self._read, 1):
            heard += came[0] == signal.SIGINT
            if heard == 1:
                self.asked = True
                self._say("interrupted: these steps are finished and kept; Ctrl-C again ends now")
            elif heard > 1:
                os._exit(INTERRUPTED)  # nothing is half-written: files are renamed when complete
