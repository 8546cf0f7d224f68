"""An audit that is killed at any moment, and run again, writes the same bytes."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.audit import planted
from tests.kept import share_secret


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
    """Runs to the end, and gives every file outside of `work`; with one secret, so that aliases are equal."""
    share_secret(out, command="audit")
    process = start(films, out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def clean(films: Path) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    return finish(films, films / "clean")


@pytest.fixture(scope="module")
def seconds(films: Path, clean: dict[str, bytes]) -> float:
    """What a run takes once everything is compiled."""
    begin = time.monotonic()
    assert finish(films, films / "timed") == clean
    return time.monotonic() - begin


def interrupt(films: Path, out: Path, once: str, how: signal.Signals) -> int:
    """Sends the signal as soon as `once`, a pattern under `work`, is on the disk.

    A moment of the work, not of the clock: how long a run takes depends on the machine and on what
    is compiled already.
    """
    process = start(films, out)
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
def test_killed_in_the_middle(films: Path, clean, tmp_path: Path, once: str) -> None:
    out = tmp_path / "out"
    assert interrupt(films, out, once, signal.SIGKILL) == -signal.SIGKILL
    assert finish(films, out) == clean


def test_a_signal_that_asks_is_answered_with_75(films: Path, clean, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert interrupt(films, out, "cache/search.pairs-*/*", signal.SIGTERM) == 75
    assert finish(films, out) == clean


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_random_moments(films: Path, clean, seconds, tmp_path: Path, seed: int) -> None:
    """Killed two times on end, so that a resumed run is killed as well."""
    rng = random.Random(seed)
    for _ in range(2):
        process = start(films, tmp_path / "out")
        time.sleep(rng.uniform(0.05, 1.0) * seconds)
        process.kill()
        process.communicate()
    assert finish(films, tmp_path / "out") == clean
