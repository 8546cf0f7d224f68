"""An audit that is killed at any moment, and run again, writes the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from deepssim_jax.testing import outputs
from tests.kept import deepssim, share_secret, write_phantoms


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("killed")
    write_phantoms(root / "real", 24, size=(64, 64), seed=1)
    write_phantoms(root / "synthetic", 6, size=(64, 64), seed=2)
    for number in range(3):
        shutil.copy(root / "real" / f"p{number:04d}_t1.png", root / "synthetic" / f"c{number}.png")
    return root


def command(folders: Path, out: Path) -> list[str]:
    return [
        *("audit", f"--real={folders / 'real'}", f"--synthetic={folders / 'synthetic'}"),
        *(f"--out={out}", "--size=64", "--plant=4", "--subject_regex=^([pc][0-9]+)"),
    ]


def start(folders: Path, out: Path) -> subprocess.Popen:
    """In a process of its own, on as many devices as this one has."""
    return subprocess.Popen(
        [sys.executable, "-m", "deepssim_jax", *command(folders, out)],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(jax.device_count())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(folders: Path, out: Path) -> dict[str, bytes]:
    """Runs to the end, and gives every file outside of `work`; with one secret, so that aliases are equal."""
    share_secret(out, command="audit")
    ended = deepssim(*command(folders, out))
    assert ended.returncode == 0, ended.stderr
    return outputs(out)


@pytest.fixture(scope="module")
def clean(folders: Path) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    return finish(folders, folders / "clean")


@pytest.fixture(scope="module")
def seconds(folders: Path, clean: dict[str, bytes]) -> float:
    """What a run of its own process takes once everything is compiled."""
    begin = time.monotonic()
    process = start(folders, folders / "timed")
    process.communicate()
    assert process.returncode == 0
    return time.monotonic() - begin


def interrupt(folders: Path, out: Path, once: str, how: signal.Signals) -> int:
    """Sends the signal as soon as `once`, a pattern under `work`, is on the disk.

    A moment of the work, not of the clock: how long a run takes depends on the machine and on what
    is compiled already.
    """
    process = start(folders, out)
    while not any((out / "work").glob(once)):
        assert process.poll() is None, f"ended before {once} was written"
        time.sleep(0.005)
    process.send_signal(how)
    _, errors = process.communicate()
    print(errors.decode())  # pytest shows it where the status is a wrong one
    return process.returncode


@pytest.mark.parametrize(
    "once", [pytest.param("cache/pixels-*/*", marks=pytest.mark.slow), "cache/search.pairs-*/*"]
)
def test_killed_in_the_middle(folders: Path, clean, tmp_path: Path, once: str) -> None:
    out = tmp_path / "out"
    assert interrupt(folders, out, once, signal.SIGKILL) == -signal.SIGKILL
    assert finish(folders, out) == clean


# That a command answers so is in tests/cli/test_main.py, that a killed audit goes on above.
@pytest.mark.slow
def test_a_signal_that_asks_is_answered_with_75(folders: Path, clean, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert interrupt(folders, out, "cache/search.pairs-*/*", signal.SIGTERM) == 75
    assert finish(folders, out) == clean


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_random_moments(folders: Path, clean, seconds, tmp_path: Path, seed: int) -> None:
    """Killed two times on end, so that a resumed run is killed as well."""
    rng = random.Random(seed)
    for _ in range(2):
        process = start(folders, tmp_path / "out")
        time.sleep(rng.uniform(0.05, 1.0) * seconds)
        process.kill()
        process.communicate()
    assert finish(folders, tmp_path / "out") == clean
