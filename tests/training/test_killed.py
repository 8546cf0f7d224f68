"""A training that is killed at any moment, and given again, ends in the same bytes."""

import dataclasses
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flax import nnx

from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.embedder import Embedder
from tests.training.test_loop import SPEC

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RATES = {"speed.jsonl"}  # a resumed run has other rates: nothing else may differ


@dataclasses.dataclass(frozen=True)
class Training:
    """A command without its workdir, and what an undisturbed run of it left in `workdir`."""

    command: tuple[str, ...]
    workdir: Path
    clean: dict[str, bytes]


def start(command: tuple[str, ...], workdir: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "deepssim_jax", *command, f"--workdir={workdir}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(command: tuple[str, ...], workdir: Path) -> dict[str, bytes]:
    """Runs to the end, and gives weights, metrics and records."""
    process = start(command, workdir)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    files = (path for path in workdir.iterdir() if path.is_file() and path.name not in RATES)
    return {path.name: path.read_bytes() for path in files}


def kill(command: tuple[str, ...], workdir: Path, once: str) -> None:
    """Kills the run as soon as `once`, a pattern under its workdir, is on the disk.

    A moment of the work, not of the clock: how long a step takes depends on the machine.
    """
    process = start(command, workdir)
    while not any(workdir.glob(once)):
        assert process.poll() is None, f"ended before {once} was written"
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Training:
    """Six steps of a tiny encoder: checkpoints after 2, 4 and 6, a validation after 3 and 6."""
    folder = tmp_path_factory.mktemp("encoder")
    fresh = encoders.from_module(Embedder(SPEC, rngs=nnx.Rngs(0)))
    encoders.save_encoder(folder / "fresh.safetensors", fresh, card={})
    command = (
        *("train_encoder", f"--config={CONFIGS}/deepssim_nano.py:smoke"),
        *(f"--config.initial={folder}/fresh.safetensors", "--config.size=32,32"),
        *("--config.steps=6", "--config.validate_every=3"),
    )
    return Training(command, folder / "clean", finish(command, folder / "clean"))


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory) -> Training:
    """Six steps of a tiny denoiser, in the latents of an autoencoder that hardly learned."""
    folder = tmp_path_factory.mktemp("denoiser")
    finish(("train_vae", f"--config={CONFIGS}/ldm_laptop.py:vae_smoke"), folder / "vae")
    command = (
        *("train_ldm", f"--config={CONFIGS}/ldm_laptop.py:ldm_smoke"),
        *(f"--config.autoencoder={folder}/vae", "--config.steps=6", "--config.validate_every=3"),
    )
    return Training(command, folder / "clean", finish(command, folder / "clean"))


# A run that was stopped and a checkpoint that was left broken are in test_loop and test_generator_steps.
@pytest.mark.slow
def test_an_encoders_training_is_killed_while_it_writes_a_checkpoint(
    encoder: Training, tmp_path: Path
) -> None:
    assert {"encoder.safetensors", "metrics.jsonl"} <= encoder.clean.keys()
    kill(encoder.command, tmp_path, "checkpoints/4*")  # first under a name of its own
    assert finish(encoder.command, tmp_path) == encoder.clean


@pytest.mark.slow
@pytest.mark.parametrize(
    "once",
    [
        "work/architecture.json",  # before the first step
        "checkpoints/2*",  # the first one is being written: nothing to resume from
        "checkpoints/2",  # just after it
        "checkpoints_sums/4.json",  # a whole one with its checksums
        "best/3",  # between two checkpoints: the step of the best state is taken again
        "best/6*",
        "checkpoints/6",
    ],
)
def test_an_encoders_training_is_killed(encoder: Training, tmp_path: Path, once: str) -> None:
    kill(encoder.command, tmp_path, once)
    assert finish(encoder.command, tmp_path) == encoder.clean


@pytest.mark.slow
def test_a_resumed_training_is_killed_again(encoder: Training, tmp_path: Path) -> None:
    for once in ("checkpoints/2*", "best/3", "checkpoints/4*", "checkpoints/6*"):
        kill(encoder.command, tmp_path, once)
    assert finish(encoder.command, tmp_path) == encoder.clean


@pytest.mark.slow
@pytest.mark.parametrize("once", ["phantoms/*", "latents/*", "checkpoints/4*", "checkpoints/4"])
def test_a_denoisers_training_is_killed(denoiser: Training, tmp_path: Path, once: str) -> None:
    assert {"denoiser.safetensors", "metrics.jsonl", "records.csv"} <= denoiser.clean.keys()
    kill(denoiser.command, tmp_path, once)
    assert finish(denoiser.command, tmp_path) == denoiser.clean


@pytest.mark.slow
def test_generate_is_killed_at_ten_moments(denoiser: Training, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "deepssim_jax", "generate", f"--workdir={denoiser.workdir}"]
    line += ["--n=8", "--batch=2", "--steps=3"]

    def finished(out: Path) -> dict[str, bytes]:
        subprocess.run([*line, f"--out={out}"], check=True, capture_output=True)
        found = (path for path in sorted(out.rglob("*")) if path.is_file())
        names = {path.relative_to(out).as_posix(): path for path in found}
        return {n: path.read_bytes() for n, path in names.items() if not n.startswith("work/")}

    whole = finished(tmp_path / "whole")
    begin = time.monotonic()
    assert finished(tmp_path / "timed") == whole
    assert sum(name.endswith(".png") for name in whole) == 8
    seconds, rng = time.monotonic() - begin, random.Random(0)
    for _ in range(10):
        process = subprocess.Popen(
            [*line, f"--out={tmp_path / 'killed'}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0.2, 1.0) * seconds)
        process.kill()
        process.communicate()
    assert finished(tmp_path / "killed") == whole
    now = {path.name: path.read_bytes() for path in denoiser.workdir.iterdir() if path.is_file()}
    assert {name: now[name] for name in denoiser.clean} == denoiser.clean
