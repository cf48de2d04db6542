"""Freed memory is kept in the process, until it is released."""

import platform
import subprocess
import sys

import pytest

RESIDENT = """
from pathlib import Path

import numpy as np

from metatune.fit.process.allocation import keep_memory, release_memory

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024

"""

PROGRAM = (
    RESIDENT
    + """
keep_memory()
before = resident()
arrays = [np.ones(2**17) for _ in range(200)]  # 1 MiB each
full = resident()
pin = arrays.pop()  # lies behind all the others
del arrays
kept = resident()
release_memory()
print(before, full, kept, resident())
"""
)

IN_PART = (
    RESIDENT
    + """
keep_memory()
keep_memory(whole=False)
before = resident()
large, small = np.ones(2**23), [np.ones(2**20) for _ in range(12)]  # 64 MiB, and 8 each
full = resident()
pin = np.ones(2**18)
del large
without = resident()
del small
print(before, full, without, resident())
"""
)

GLIBC = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone"
)


def told_by(program):
    """MiB that a process prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return map(int, done.stdout.split())


@GLIBC
def test_freed_memory_is_kept_and_released():
    before, full, kept, released = told_by(PROGRAM)
    assert full - before > 190
    assert kept - before > 190
    assert released - before < 20


@GLIBC
def test_large_blocks_are_given_back_where_only_smaller_ones_are_kept():
    before, full, without, kept = told_by(IN_PART)
    assert full - before > 155
    assert full - without > 60
    assert without - kept < 10
