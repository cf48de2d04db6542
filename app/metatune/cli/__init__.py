"""The command line, a file a command. Thin: what takes long to import is imported inside them."""

import gc
import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from metatune.runs import stops

_python_line = warnings.formatwarning

YOUNG = 50_000
"""Objects made before Python looks for circles among them. Traces make them by the million, and few
circles. Until a command begins (`metatune.cli.root.begun`) it doesn't look at all: what is imported
stays.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line on `arguments`, those of the process by default.

    Raises:
        SystemExit: always, with the exit code, but after a signal, which ends the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A console that isn't UTF-8 can't show every name; that ends no command.
            stream.reconfigure(errors="replace")
    warnings.formatwarning = _line
    young, *older = gc.get_threshold()
    gc.set_threshold(max(young, YOUNG), *older)
    gc.disable()
    try:
        with stops.listening():
            from metatune.cli.commands import app  # the first to take long

            app(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        _end(stops.exit_code())
    except SystemExit as end:
        if stops.heard():
            _end(end.code)
        raise


def _line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: Any = None
) -> str:
    """A warning of ours in one line, as others of the command line; else Python's."""
    if category.__module__.startswith("metatune."):
        return f"warning: {message}\n"
    return _python_line(message, category, filename, lineno, line)


def _end(code: object) -> NoReturn:
    """Ends the process after a signal, and waits for nothing that was begun.

    Python would wait for threads that compile, minutes perhaps and deaf to another signal, and call
    modules whose import was cut off, some of which crash.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
