"""What every test shares: JAX's strictness, and its compilation cache."""

import itertools
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".venv" / "jax-cache")
)
os.environ.setdefault("METATUNE_CACHE", str(pathlib.Path(__file__).parents[1] / ".venv" / "cache"))
# Tests compile thousands of small programs, in half the time without much of what makes them fast.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
)
# Each of them in several runs: keep them all.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import jax.extend
import pytest


@pytest.fixture(autouse=True)
def strict_ranks():
    """A shape that is broadcast by accident is an error."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(autouse=True, scope="module")
def compiled_in_haste(request):
    """Programs are hardly optimized, but for modules that compare two of them bit for bit.

    Without optimization equal sums in two programs are rounded differently.
    """
    exact = request.node.get_closest_marker("optimized")
    jax.config.update("jax_disable_most_optimizations", exact is None)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


TESTS = itertools.count(1)
BETWEEN = 50
"""Tests after which compiled programs are let go: a process has 65,530 memory maps on Linux, and
some tests compile enough for hundreds each."""


@pytest.fixture(autouse=True)
def programs_let_go():
    """Lets go of compiled programs now and then."""
    yield
    if next(TESTS) % BETWEEN == 0:
        jax.clear_caches()


@pytest.fixture
def float64():
    """Runs a test in double precision."""
    with jax.enable_x64(True):
        yield


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
