"""An audit that is killed at any moment, and run again, writes the same bytes."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.audit import planted


@pytest.fixture(scope="module")
def films(tmp_path_factory, data_dir: Path) -> Path:
    root = tmp_path_factory.mktemp("killed")
    planted.write_films(data_dir / "cxr", root, real=60, copies=20, others=130, seed=5)
    return root


def start(films: Path, out: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "deepssim_jax", "audit", f"--real={films / 'real'}"),
            *(f"--synthetic={films / 'synthetic'}", f"--out={out}", "--subject_regex=^([0-9]+)_"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(films: Path, out: Path) -> dict[str, bytes]:
    """Runs to the end, and gives every file outside of `work`."""
    process = start(films, out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def clean(films: Path) -> tuple[dict[str, bytes], float]:
    """The files of an undisturbed run, and the seconds that one takes."""
    finish(films, films / "warm")
    begin = time.monotonic()
    files = finish(films, films / "clean")
    return files, time.monotonic() - begin


def interrupt(films: Path, out: Path, after: float, how: signal.Signals) -> int:
    process = start(films, out)
    time.sleep(after)
    process.send_signal(how)
    process.communicate()
    return process.returncode


def test_killed_in_the_middle(films: Path, clean, tmp_path: Path) -> None:
    files, seconds = clean
    assert interrupt(films, tmp_path / "out", 0.6 * seconds, signal.SIGKILL) == -signal.SIGKILL
    assert finish(films, tmp_path / "out") == files


def test_a_signal_that_asks_is_answered_with_75(films: Path, clean, tmp_path: Path) -> None:
    files, seconds = clean
    assert interrupt(films, tmp_path / "out", 0.6 * seconds, signal.SIGTERM) == 75
    assert finish(films, tmp_path / "out") == files


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_random_moments(films: Path, clean, tmp_path: Path, seed: int) -> None:
    """Killed two times on end, so that a resumed run is killed as well."""
    files, seconds = clean
    rng = random.Random(seed)
    for _ in range(2):
        interrupt(films, tmp_path / "out", rng.uniform(0.05, 1.0) * seconds, signal.SIGKILL)
    assert finish(films, tmp_path / "out") == files
