"""Keeps memory that was freed in the process, so that XLA's next program finds it again."""

import ctypes
import platform

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8
LARGEST = 2**31 - 1
MAPPINGS = 2**16
"""Blocks that come from the system by themselves, at most: glibc's default."""
LARGEST_THRESHOLD = 2**25
"""Bytes from which on a block does: glibc takes no more."""
ARENAS = 2
"""Threads of a program and of the compiler wait for each other at the lock of a single one: on two
cores that took a third more of compiling, and a quarter more of a step. Each further one is too
small for large blocks, and gives memory back by itself.
"""


def keep_memory(whole: bool = True) -> None:
    """Tells glibc not to give large blocks back to the system.

    XLA allocates the temporary arrays of a program anew at each call on CPUs. A block from the
    system comes in pages that fault one by one: a fifth of the time of a gradient of 5 million
    parameters. Other C libraries are left as they are.

    Args:
        whole: keep blocks of 32 MiB and more, too. What a program frees between two states that
            wait for each other is a hole that the next call's temporary arrays no longer fit in,
            once a state that was read lies in it: the process grows by them at each segment. Where
            states are kept outside of the device, memory counts for more than these faults.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    options = [(M_ARENA_MAX, ARENAS), (M_TRIM_THRESHOLD, LARGEST), (M_MMAP_MAX, 0)]
    if not whole:
        options[-1:] = [(M_MMAP_MAX, MAPPINGS), (M_MMAP_THRESHOLD, LARGEST_THRESHOLD)]
    for option, value in options:
        libc.mallopt(option, value)


def release_memory() -> None:
    """Gives what is free in the process back to the system, wherever it lies.

    What `keep_memory` keeps has holes, and a large array takes new memory where none is large
    enough. Released before each hypergradient, the process holds what that one needs, not what its
    predecessors needed side by side: 7.6 instead of 12.0 GiB after three with 39M parameters.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
