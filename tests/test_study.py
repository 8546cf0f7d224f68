"""The study of memorization runs from trainings to records, and does not do a finished cell again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cases.patients import copy_one_image_each
from configs import ldm_laptop
from deepssim_jax.training.generator import train_autoencoder
from deepssim_jax.training.generator_config import AutoencoderConfig
from tests.kept import write_png

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
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
        assert record["set_level"]["data_copying"] is None  # of so few images
        assert 0 <= record["set_level"]["authenticity"] <= 1
    again = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert path.read_bytes() == before
    assert [json.loads(line) for line in again.splitlines()] == [none, high]


def test_one_image_a_patient_of_a_folder(tmp_path: Path) -> None:
    for patient, films in enumerate((2, 1, 3, 1, 1)):
        for film in range(films):
            name = f"{patient:03d}_{film}.png"
            write_png(tmp_path / "films" / name, np.full((8, 8), patient / 5, np.float32))
    regex, chosen = "^([0-9]+)_", tmp_path / "chosen"
    copy_one_image_each(tmp_path / "films", chosen, people=4, subject_regex=regex)
    names = sorted(path.name for path in chosen.iterdir())
    assert len({name[:3] for name in names}) == len(names) == 4
    assert all(name.endswith("_0.png") for name in names)
    with pytest.raises(ValueError, match="holds 5 patients, and 6 are needed"):
        copy_one_image_each(tmp_path / "films", chosen, people=6, subject_regex=regex)
