"""Freed memory stays with the process of the command, and only there."""

import platform
import subprocess
import sys

import pytest

from deepssim_jax.cli import memory

FAULTS = """
import resource
from deepssim_jax.cli import memory
assert memory.keep()
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for _ in range(50):
        np.ones(2_000_000)  # 16 MB, freed at once
work()
before = faults()
work()
print(faults() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="there is no glibc to be kept from it"
)
def test_blocks_are_not_fetched_again_page_by_page(monkeypatch) -> None:
    for name in ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-c", FAULTS]
    faults = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert faults < 500


def test_the_users_own_settings_stand(monkeypatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not memory.keep()
