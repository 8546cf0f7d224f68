"""Correlation and FSIM against the golden values, and FSIM's closed forms."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from deepssim_jax.nn.encoder import load_encoder
from deepssim_jax.ops import fsim
from deepssim_jax.ops.volume_similarity import volume_similarity
from deepssim_jax.scoring.methods import methods


def test_golden_films(golden_dir: Path, data_dir: Path) -> None:
    records = json.loads((golden_dir / "pairwise_2d.json").read_text())
    films = {
        name: np.asarray(Image.open(data_dir / "cxr" / name), np.float32)
        for name in {r["a"] for r in records} | {r["b"] for r in records}
    }
    a, b = (np.stack([films[r[side]] for r in records]) for side in "ab")
    found = {
        "ncc": methods(load_encoder())["ncc"](a, b),
        "fsim_reference": fsim.fsim(a, b),
    }
    for name, values in found.items():
        np.testing.assert_allclose(values, [r[name] for r in records], atol=1e-5, err_msg=name)


def test_golden_volumes(golden_dir: Path, data_dir: Path) -> None:
    records = json.loads((golden_dir / "pairwise_3d.json").read_text())
    volumes = {}
    for name in {r["a"] for r in records} | {r["b"] for r in records}:
        image = nibabel.load(data_dir / "brain3d" / "mni" / f"{name}.nii.gz")
        volumes[name] = np.asarray(image.dataobj, np.float32)[20:160:2, 20:200:2, 20:160:2]
        image.uncache()
    a, b = (np.stack([volumes[r[side]] for r in records]) for side in "ab")
    np.testing.assert_allclose(volume_similarity(a, b).ncc, [r["ncc"] for r in records], atol=1e-5)


def test_fsim_of_equal_and_of_flat_images_is_one() -> None:
    image = np.random.default_rng(2).uniform(0, 255, (1, 12, 14))
    flat = np.full((1, 12, 14), 7.0)
    assert float(fsim.fsim(image, image)[0]) == pytest.approx(1.0, abs=1e-6)
    assert float(fsim.fsim(flat, 2 * flat)[0]) == 1.0
    assert float(fsim.fsim(image, flat)[0]) < 0.2


def test_shapes_must_be_images() -> None:
    a = np.zeros((8, 8))
    with pytest.raises(ValueError, match=r"\[n, h, w\]"):
        fsim.fsim(a, a)
