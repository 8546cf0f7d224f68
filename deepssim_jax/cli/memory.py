"""Keeps the C library from giving large blocks back to the system and fetching them again.

XLA on a CPU asks for and frees blocks of megabytes in every call. glibc returns such blocks at once
and the system hands them out page by page, zeroed: an audit on two cores took 43 s that way and 40 s
without, and some kernels up to three times as long. Only the `deepssim` command does this; programs
that import the library are left alone.
"""

import ctypes
import os
import platform

# From malloc.h. A block above the threshold has its own mapping; 32 MiB is glibc's own maximum.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_THRESHOLD: 32 << 20, _ARENA_MAX: 1}


def keep() -> bool:
    """Sets it for this process; call it before there are threads.

    Returns:
      Whether it was done: not without glibc, nor where the user has set MALLOC_* himself.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    done = [library.mallopt(option, value) for option, value in _KEPT.items()]
    return all(done)
