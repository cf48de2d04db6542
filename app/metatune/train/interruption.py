"""Ctrl-C: the first lets a training end where it can go on from, the second ends it at once."""

import signal
from types import FrameType, TracebackType


class Interruption:
    """Within its `with`, whether Ctrl-C was pressed; to be used in the main thread.

    A second one is the system's: it ends the process even within a compilation.
    """

    def __init__(self):
        """Nothing is changed before the `with`."""
        self.asked = False

    def __enter__(self) -> "Interruption":
        """Listens to Ctrl-C."""
        self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leaves Ctrl-C as it was."""
        signal.signal(signal.SIGINT, self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
