"""Keeps the C library from giving large blocks back to the system and fetching them again.

XLA on a CPU asks for and frees blocks of megabytes in every call. glibc returns such blocks at once
and the system hands them out page by page, zeroed: some kernels take up to three times as long. Kept,
and in huge pages, a training step of small networks takes a fifth less time still. glibc reads these
settings when a program starts, so the `deepssim` command starts itself once more with them; programs
that import the library are left alone.
"""

import os
import platform
import sys

VARIABLE = "GLIBC_TUNABLES"
# A block above the threshold has its own mapping; 32 MiB is glibc's own maximum.
KEPT = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "hugetlb": 1,
        "mmap_threshold": 32 << 20,
        "trim_threshold": 4 << 30,
    }.items()
)


def keep() -> None:
    """Starts this program again with the settings; returns where it has them, or shall not.

    It shall not without glibc, nor where the user has set GLIBC_TUNABLES or MALLOC_* himself.
    """
    own = VARIABLE in os.environ or any(name.startswith("MALLOC_") for name in os.environ)
    linux = sys.platform.startswith("linux")
    if own or not linux or platform.libc_ver()[0] != "glibc" or not sys.executable:
        return
    os.environ[VARIABLE] = KEPT
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
