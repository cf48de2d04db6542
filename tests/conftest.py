"""What every test shares: JAX's strictness, and its compilation cache."""

import contextlib
import gc
import itertools
import os
import signal
from importlib.metadata import version
from pathlib import Path

import jax_environment  # first: JAX reads it when it is imported
import shape_checks  # before any module that it may check

# isort: split
import shared_trainings  # noqa: F401  before any module that prepares

# isort: split
import jax
import jax.extend
import jaxtyping
import pytest

from metatune.fit.process.compilation import set_option

pytest_plugins = ["optional_packages", "thumbnails_in_haste"]

# Traces make objects by the million and few circles of them: Python looks for these every 700
# objects and tells JAX each time, which took a tenth of the tests' processor time.
gc.set_threshold(200_000, 10, 10)

# Programs are small, and each is compiled in several runs: keep them all.
for option, value in {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}.items():
    # In the environment, for the processes that tests start.
    if option.upper() not in os.environ and set_option(option, value):
        os.environ[option.upper()] = str(value)


def pytest_report_header():
    """Which jaxlib runs the tests, with which flags, and whether shapes are checked."""
    said = f"jaxlib {version('jaxlib')}, XLA_FLAGS: {os.environ['XLA_FLAGS']}"
    if jax_environment.left_out:
        said += f" (left out, as it doesn't know: {' '.join(jax_environment.left_out)})"
    return [said, f"shapes of signatures are {'' if shape_checks.ON else 'not '}checked"]


LONG = {
    "bench",
    "check",
    "fit",
    "hypergrad",
    "inner",
    "ladder",
    "plan",
    "train",
    "transfer",
    "verdict",
    "test_api.py",
    "test_cli.py",
}
"""Folders and modules of tests that train."""


def pytest_collection_modifyitems(items):
    """The long ones first: at the end processes share what is short, and end together."""
    tests = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(tests).parts[0] not in LONG)


def pytest_collection_finish():
    """What is there before the first test stays: no search for circles goes through it again."""
    gc.collect()
    gc.freeze()


HASTE = "jax_disable_most_optimizations"


@pytest.fixture(autouse=True, scope="session")
def signals_are_heard():
    """In a shell's background Ctrl-C is ignored, under nohup a hang-up, also by what is started."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def strict_ranks():
    """A shape that is broadcast by accident is an error."""
    with jax.numpy_rank_promotion("raise"):
        yield


@contextlib.contextmanager
def compiled(optimized):
    """Within, programs are optimized or not, here and in processes that are started."""
    known = set_option(HASTE, not optimized)
    if known and optimized:
        jax.clear_caches()  # what was compiled in haste
    with pytest.MonkeyPatch.context() as patch:
        if known:
            patch.setenv(HASTE.upper(), str(not optimized))
        yield
    if known:
        set_option(HASTE, False)


@pytest.fixture(autouse=True, scope="module")
def compiled_in_haste(request):
    """Programs are hardly optimized, but for modules that compare two of them bit for bit.

    Without optimization equal sums in two programs are rounded differently.
    """
    with compiled(request.node.get_closest_marker("optimized") is not None):
        yield


@pytest.fixture(autouse=True)
def optimized_alone(request, compiled_in_haste):
    """A test that compares two programs bit for bit by itself, in a module that doesn't."""
    node = request.node
    if node.get_closest_marker("optimized") and not node.parent.get_closest_marker("optimized"):
        with compiled(optimized=True):
            yield
        jax.clear_caches()
        set_option(HASTE, True)
    else:
        yield


TESTS = itertools.count(1)
BETWEEN = 50
"""Tests after which it is asked whether compiled programs must be let go."""
MAPS = 20_000
"""Memory maps of a process at which they are: it has 65,530 on Linux, and some tests compile enough
for hundreds each."""


@pytest.fixture(autouse=True)
def programs_let_go():
    """Lets go of compiled programs before there are too many; else tests share them."""
    yield
    if next(TESTS) % BETWEEN == 0 and memory_maps() > MAPS:
        jax.clear_caches()


def memory_maps():
    """Memory maps of this process; too many where they can't be counted."""
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else MAPS + 1


@pytest.fixture
def float64():
    """Runs a test in double precision."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked():
    """Runs a test as users run what it tests: without checks of types and shapes."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def largest_array():
    """`(function, *args)` to the elements of the largest array that computing it gives rise to."""

    def equations(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from equations(inner)

    def largest(function, *args):
        jaxpr = jax.make_jaxpr(function)(*args).jaxpr
        return max(out.aval.size for equation in equations(jaxpr) for out in equation.outvars)

    return largest
