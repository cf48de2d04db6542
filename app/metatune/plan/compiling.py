"""Programs compiled side by side, and what XLA's memory analysis says of them."""

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from metatune.plan import cache
from metatune.plan.progress import Tell

SECONDS_PER_KIB: Final = 0.015
"""That XLA takes for a lowered program on a CPU (130 to 900 KiB); for the time left alone."""

TICK_SECONDS: Final = 1.0


class Program(NamedTuple):
    """A program whose memory is known.

    Attributes:
        name: what it does.
        key: under which the cache knows it.
        lowered: what is compiled; JAX keeps what comes of it, so that it is compiled only once.
        temporary: bytes of its temporary arrays.
        compilation: seconds that compiling it took.
    """

    name: str
    key: str
    lowered: Any
    temporary: int
    compilation: float


class Analysed(Protocol):
    """What a cost is counted from."""

    @property
    def temporary(self) -> int:
        """Bytes of its temporary arrays."""
        ...

    @property
    def compilation(self) -> float:
        """Seconds that compiling it took."""
        ...


Found = TypeVar("Found", bound=Analysed)


class Analyse(Protocol[Found]):
    """Compiles programs, as `analysed` does here; for devices that aren't, another one does."""

    def __call__(self, trace: Mapping[str, Callable[[], Any]], tell: Tell, /) -> dict[str, Found]:
        """Programs, by what they do; arguments as of `analysed`."""
        ...


class _Lowered(NamedTuple):
    name: str
    key: str
    lowered: Any
    size: int


def analysed(trace: Mapping[str, Callable[[], Any]], tell: Tell) -> dict[str, Program]:
    """Lowers programs, and compiles those that the cache doesn't know, side by side.

    Args:
        trace: traces a program, by what it does; those that take longest come first.
        tell: is told how far it is.
    """
    found: dict[str, Program] = {}
    pending: dict[Future[float], _Lowered] = {}
    with _Pool() as pool:
        for name, make in trace.items():
            tell(f"preparing {name}", math.nan)
            lowered = make().lower()
            text = lowered.as_text()
            key = cache.key_of(text)
            if entry := cache.read(key):
                temporary = entry["temporary_bytes"]
                found[name] = Program(name, key, lowered, temporary, entry["compilation_seconds"])
            else:  # while the next one is traced
                pending[pool.submit(_compile, lowered)] = _Lowered(name, key, lowered, len(text))
        for future, of in _as_completed(pending, tell):
            analysis = of.lowered.compile().memory_analysis()
            made = Program(
                of.name, of.key, of.lowered, analysis.temp_size_in_bytes, future.result()
            )
            cache.write(made.key, _entry(made))
            found[of.name] = made
    return {name: found[name] for name in trace}


def compilation_seconds(programs: Collection[Analysed]) -> float:
    """Seconds that compiling programs takes: each of those side by side waits for the others."""
    return sum(each.compilation for each in programs) / min(cache.cores(), len(programs))


def executables(programs: Iterable[Program], tell: Tell) -> dict[str, Any]:
    """What can be run, by the names of programs: those that aren't compiled yet are now."""
    programs = tuple(programs)
    with _Pool() as pool:
        pending = {
            pool.submit(_compile, each.lowered): _Lowered(each.name, each.key, each.lowered, 0)
            for each in programs
        }
        for future, _ in _as_completed(pending, tell):
            future.result()
    return {each.name: each.lowered.compile() for each in programs}


def known_timings(program: Program, what: str) -> dict[str, Any]:
    """Timings of a program that the cache holds; empty where it has none."""
    return cache.read(program.key).get("timings", {}).get(what, {})


def keep_timings(program: Program, what: str, times: Mapping[str, Any]) -> None:
    """Keeps timings of a program beside its bytes."""
    timings = cache.read(program.key).get("timings", {}) | {what: times}
    cache.write(program.key, {**_entry(program), "timings": timings})


def _entry(program: Program) -> dict[str, Any]:
    return {
        "temporary_bytes": program.temporary,
        "compilation_seconds": program.compilation,
    }


def _compile(lowered: Any) -> float:
    """Compiles; XLA does it without Python's lock. Returns the seconds that it took."""
    began = time.perf_counter()
    lowered.compile()
    return time.perf_counter() - began


def _as_completed(
    pending: Mapping[Future[float], _Lowered], tell: Tell
) -> Iterable[tuple[Future[float], _Lowered]]:
    """Futures as they are done, telling of those that aren't in the meantime."""
    began, left = time.perf_counter(), dict(pending)
    sizes = [of.size for of in pending.values()]
    longest = max([*sizes[:1], sum(sizes) / cache.cores()], default=0) / 1024 * SECONDS_PER_KIB
    while left:
        passed = time.perf_counter() - began
        seconds = longest - passed if longest > passed else math.nan
        tell(f"compiling {', '.join(of.name for of in left.values())}", seconds)
        done, _ = wait(left, TICK_SECONDS, FIRST_COMPLETED)
        for future in done:
            yield future, left.pop(future)


class _Pool:
    """Threads, as many as cores, that aren't waited for after an interruption."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(cache.cores(), "compile")

    def __enter__(self) -> ThreadPoolExecutor:
        return self._pool

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=exception[0] is None, cancel_futures=True)
