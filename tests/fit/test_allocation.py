"""Freed memory is kept in the process, until it is released."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
from pathlib import Path

import numpy as np

from metatune.fit.process.allocation import keep_memory, release_memory

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_memory_is_kept_and_released():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    before, full, kept, released = map(int, done.stdout.split())
    assert full - before > 190
    assert kept - before > 190
    assert released - before < 20
