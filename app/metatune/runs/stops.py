"""How a process is asked to end: Ctrl-C, SIGTERM (kill, schedulers), SIGHUP (a closed terminal).

The first signal raises `Stopped` in the main thread, as Ctrl-C does by itself; what must not be cut
is done within `held`, after which it is raised, or which looks at `asked` and ends by itself. The
second signal ends the process at once, whatever it does.

Python throws away what is raised within some calls: finalizers, and the one that JAX has made with
each garbage collection, which after a long program is the likeliest to meet the signal. The
interpreter tells of that, and the signal is sent again, until it is raised where it counts.

An import that is cut off leaves half a module, and libraries written in C turn what is raised
within theirs into other errors, or crash. So a signal that meets one ends the process there.

Python runs handlers of signals between two of its instructions alone, which may be minutes apart
while a program is compiled. So a thread listens too, to what the interpreter writes into a pipe as
soon as a signal comes: it says what was heard, and ends the process itself where the main thread is
in such a program for longer than whoever sent the signal may wait. Nothing is lost by that: outside
of `held` all that is kept is on the disk, and files there are renamed when complete.

Where a machine is about to be taken away some schedulers write a file instead of sending a signal:
once the one that `METATUNE_PREEMPTION_FILE` names is there, it counts as a SIGTERM.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
PATIENCE_SECONDS: Final = 10.0
"""For the main thread outside of `held`. Slurm and Kubernetes kill after 30."""
QUIET_SECONDS: Final = 1.0
"""Without an answer of the main thread, after which the signal is answered here."""
IMPORT_SYSTEM: Final = "<frozen importlib._bootstrap>"
"""What Python says is the file of its own code that imports."""
NOTICE: Final = "METATUNE_PREEMPTION_FILE"
"""Names a file that counts as a SIGTERM as soon as there is one."""
NOTICE_SECONDS: Final = 0.5
"""Between looks for it."""
SHOW_CURSOR: Final = "\x1b[?25h"
"""Which a progress bar has hidden."""


class Stopped(KeyboardInterrupt):
    """This process is asked to end."""


class Hold:
    """A stretch that isn't cut."""

    @property
    def asked(self) -> bool:
        """Whether this process was asked to end meanwhile, or before."""
        return _listener is not None and _listener.number is not None


_listener: "_Listener | None" = None
_heard: int | None = None
_farewell = ""
_endings: list[Callable[[], object]] = []


def exit_code() -> int:
    """The exit code of a process that was asked to end, as shells have it: 130 after Ctrl-C."""
    return 128 + (_heard or signal.SIGINT)


def heard() -> str | None:
    """The name of the signal that asked this process to end, if one did."""
    return None if _heard is None else signal.Signals(_heard).name


def number() -> int | None:
    """The number of that signal."""
    return _heard


def hear(number: int) -> None:
    """Takes a signal for heard that another process of the same run was sent."""
    global _heard
    _heard = _heard or number


def end_now(text: str, code: int) -> NoReturn:
    """Ends the process from any thread, for what isn't a signal.

    Args:
        text: is said.
        code: the exit code.
    """
    _run_endings()
    _tell(text + (SHOW_CURSOR if sys.stderr and sys.stderr.isatty() else ""))
    os._exit(code)


def always_before_the_end(ending: Callable[[], object]) -> None:
    """Has something done before a process ends at once; it must be quick."""
    _endings.append(ending)


@contextmanager
def before_the_end(ending: Callable[[], object]) -> Iterator[None]:
    """As `always_before_the_end`, within a `with`."""
    _endings.append(ending)
    try:
        yield
    finally:
        _endings.remove(ending)


def farewell(text: str) -> None:
    """What is said where a process ends without its main thread."""
    global _farewell
    _farewell = text


def end_at_once() -> None:
    """Ends a process that was asked to, whatever its threads do, where there is a listener."""
    if _listener is not None:
        _listener.end(_farewell or "interrupted")


@contextmanager
def listening() -> Iterator[None]:
    """Listens to the signals, in the main thread; elsewhere, and within another, does nothing.

    A signal that whoever started the process ignores (nohup, a shell's background) stays ignored.
    """
    global _listener, _heard
    if _listener is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _heard = None
    _listener = _Listener()
    try:
        yield
    finally:
        _listener.close()
        _listener = None


@contextmanager
def held(say: Callable[[str], None] | None = None, *, raises: bool = True) -> Iterator[Hold]:
    """A stretch that isn't cut by the first signal.

    Args:
        say: is told at once of the first signal, by another thread.
        raises: whether `Stopped` is raised at the end; else whoever looks at `asked` ends.
    """
    with listening():
        listener = _listener
        if listener is None or threading.current_thread() is not threading.main_thread():
            yield Hold()
            return
        listener.holds.append(say)
        try:
            yield Hold()
        finally:
            listener.holds.pop()
        if raises:
            listener.raise_if_asked()
        else:
            listener.answered = listener.answered or listener.number is not None


class _Listener:
    """The handlers, the pipe and the thread."""

    def __init__(self):
        self.number: int | None = None
        self.answered = False
        self.lost = False
        self.holds: list[Callable[[str], None] | None] = []
        self._main = threading.get_ident()
        self._imports = _imports(sys._getframe())  # of a module that searches, perhaps
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        ours = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._hear) for number in ours}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._hear_unraisable
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leaves everything as it was."""
        sys.unraisablehook = self._unraisable
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def raise_if_asked(self) -> None:
        """Raises `Stopped` once, where nothing is held."""
        if self.number is not None and not self.holds and not self.answered:
            self.answered = True
            raise Stopped

    def forget(self) -> None:
        """Of a copy of this process: signals do what they do without us."""
        signal.set_wakeup_fd(-1)
        for number in self._handlers:
            signal.signal(number, signal.SIG_DFL)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._note(number)
        if not (self.holds or self.answered) and _imports(frame) > self._imports:
            self.end(_farewell or "interrupted")
        self.raise_if_asked()

    def _hear_unraisable(self, thrown_away: "sys.UnraisableHookArgs") -> None:
        """Has the signal sent again whose `Stopped` ended a call that nothing may end."""
        if isinstance(thrown_away.exc_value, Stopped):
            # By the thread: what is raised in here is thrown away, too.
            self.answered, self.lost = False, True
        else:
            self._unraisable(thrown_away)

    def _note(self, number: int) -> None:
        global _heard
        if self.number is None:
            self.number = _heard = number

    def _listen(self) -> None:
        """Counts until the pipe is closed."""
        count, again, first, told = 0, 0, 0.0, False
        notice = Path(named) if (named := os.environ.get(NOTICE)) else None
        while True:
            wait = 0.1 if count else NOTICE_SECONDS if notice else None
            if notice and notice.exists():
                notice = None
                os.kill(os.getpid(), signal.SIGTERM)
            if select.select([self._read], [], [], wait)[0]:
                came = os.read(self._read, 1)
                if not came:
                    return
                if came[0] not in self._handlers:
                    continue
                if again:  # sent from here
                    again -= 1
                    continue
                count, first = count + 1, first or time.monotonic()
                if count > 1:
                    self.end("ended at once")
                self._note(came[0])
                say = next((say for say in reversed(self.holds) if say), None)
                if say:
                    told = True
                    say("interrupted: these steps are finished and kept; a second one ends now")
            elif count and not (self.answered or self.holds):
                if self.lost and self.number:
                    self.lost, again = False, again + 1
                    signal.pthread_kill(self._main, self.number)
                since = time.monotonic() - first
                if since > PATIENCE_SECONDS:
                    self.end(_farewell or "interrupted")
                if since > QUIET_SECONDS and not told:
                    told = True
                    _tell("interrupted: ends when what runs now allows it; a second one ends now")

    def end(self, text: str) -> None:
        """Ends the process without its main thread."""
        end_now(text, exit_code())


def _run_endings() -> None:
    for ending in list(_endings):
        with suppress(Exception):  # the others have their turn, and the end comes
            ending()


def _imports(frame: FrameType | None) -> int:
    """How deep in imports of modules a frame is; 0 for not at all."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename == IMPORT_SYSTEM
        frame = frame.f_back
    return count


def _tell(text: str) -> None:
    """Past Python's files, which the main thread may have locked."""
    with suppress(OSError):
        os.write(2, (text + "\n").encode())


def _after_fork() -> None:
    global _listener
    if _listener is not None:
        _listener.forget()
        _listener = None
        _endings.clear()


os.register_at_fork(after_in_child=_after_fork)
