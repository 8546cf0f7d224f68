"""Freed memory stays with the process of the command, and only there."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from deepssim_jax.cli import memory

FAULTS = """
import os, resource, sys
from deepssim_jax.cli import memory
memory.keep()
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for _ in range(50):
        np.ones(2_000_000)  # 16 MB, freed at once
work()
before = faults()
work()
print(faults() - before, *sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))
"""
NO_GLIBC = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="there is no glibc to be kept from it"
)


def answer(tmp_path: Path, **environment: str) -> list[str]:
    """What the program prints: page faults, its arguments, the settings."""
    (tmp_path / "program.py").write_text(FAULTS)
    command = [sys.executable, str(tmp_path / "program.py"), "--one", "two"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=clean | environment
    )
    return done.stdout.split()


@NO_GLIBC
def test_blocks_are_not_fetched_again_page_by_page(tmp_path: Path) -> None:
    faults, *arguments, settings = answer(tmp_path)
    assert int(faults) < 500
    assert arguments == ["--one", "two"]
    assert settings == memory.KEPT


@NO_GLIBC
def test_the_users_own_settings_stand(tmp_path: Path) -> None:
    assert answer(tmp_path, MALLOC_ARENA_MAX="4")[-1] == "None"
    own = "glibc.malloc.hugetlb=0"
    assert answer(tmp_path, GLIBC_TUNABLES=own)[-1] == own
