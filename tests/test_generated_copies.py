"""The benchmark of generators' own copies runs from trainings to its record, and repeats from them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tests.kept import write_png

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_a_tiny_run_and_its_record(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for patient in range(8):
        noise = ndimage.gaussian_filter(rng.standard_normal((64, 64)), 4)
        picture = (noise - noise.min()) / np.ptp(noise)
        write_png(tmp_path / "real" / f"{patient}_0.png", picture)
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "generated_copies.py")]
    command += [
        f"--real={tmp_path / 'real'}",
        "--subject_regex=^([0-9]+)_",
        "--people=3",
        "--each=2",
    ]
    command += [f"--work={tmp_path / 'work'}", "--steps=2,2", "--methods=ncc,phash"]
    subprocess.run([*command, f"--out={tmp_path / 'out'}"], check=True, stdout=subprocess.PIPE)
    record = json.loads((tmp_path / "out" / "generated_copies.jsonl").read_text())
    assert (record["people"], record["real_images"], record["steps"]) == (3, 8, [2, 2])
    for method in ("ncc", "phash"):
        found = record["methods"][method]
        assert found["false_alarms"][1] == 2  # the reporting split of five people
        for generator in ("autoencoder", "diffusion"):
            hits, copies, low, high = found[generator]
            assert copies == 6 and low <= hits / copies <= high
            assert -1 <= record["memorised"][generator]["median_correlation"] <= 1
