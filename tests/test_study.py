"""The study of memorization runs from trainings to records, and does not do a finished cell again."""

import json
import subprocess
import sys
from pathlib import Path

from configs import ldm_laptop
from deepssim_jax.training.generator import train_autoencoder
from deepssim_jax.training.generator_config import AutoencoderConfig

ROOT = Path(__file__).resolve().parent.parent


def test_the_small_version_and_its_records(tmp_path: Path) -> None:
    config = ldm_laptop.get_config("vae_smoke")
    assert isinstance(config, AutoencoderConfig)
    train_autoencoder(config, tmp_path / "vae")
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "memorization_study.py")]
    command += ["--small", "--images=6", "--controls=4", f"--vae={tmp_path / 'vae'}"]
    command += [f"--work={tmp_path / 'work'}", f"--out={tmp_path / 'out'}"]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    path = tmp_path / "out" / "memorization.jsonl"
    before = path.read_bytes()
    none, high = (json.loads(line) for line in before.splitlines())
    assert (none["duplication"], high["duplication"]) == ("none", "high")
    for record in (none, high):
        assert sum(record["classes"].values()) == record["images"] == 6
        assert record["patients"] == 8
        for attack in record["membership"].values():
            assert (attack["members"], attack["held_out"]) == (8, 4)
            assert 0 <= attack["area"] <= 1
        assert 0 <= record["recall"] <= 1 and record["frechet"] >= 0
    again = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert path.read_bytes() == before
    assert [json.loads(line) for line in again.splitlines()] == [none, high]
