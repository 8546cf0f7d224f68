"""Distances and FSIM against the golden values, NumPy and closed forms."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from deepssim_jax.ops import distances, fsim


def test_golden_films(golden_dir: Path, data_dir: Path) -> None:
    records = json.loads((golden_dir / "pairwise_2d.json").read_text())
    films = {
        name: np.asarray(Image.open(data_dir / "cxr" / name), np.float32)
        for name in {r["a"] for r in records} | {r["b"] for r in records}
    }
    a, b = (np.stack([films[r[side]] for r in records]) for side in "ab")
    found = {
        "ncc": distances.ncc(a, b),
        "mae": distances.mae(a / 255, b / 255),
        "rmse": distances.rmse(a / 255, b / 255),
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
    np.testing.assert_allclose(distances.ncc(a, b), [r["ncc"] for r in records], atol=1e-5)


def test_correlation_knows_neither_scale_nor_offset_and_survives_flat_images() -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(size=(3, 9, 11))
    b = np.stack([5 * a[0] + 1000, -a[1], np.ones((9, 11))])
    np.testing.assert_allclose(distances.ncc(a, b), [1, -1, 0], atol=1e-5)


def test_errors_equal_numpy() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 4, 6, 7, 3))
    np.testing.assert_allclose(distances.mae(a, b), np.abs(a - b).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(
        distances.rmse(a, b), np.sqrt(((a - b) ** 2).mean((1, 2, 3))), rtol=1e-5
    )


def test_fsim_of_equal_and_of_flat_images_is_one() -> None:
    image = np.random.default_rng(2).uniform(0, 255, (1, 12, 14))
    flat = np.full((1, 12, 14), 7.0)
    assert float(fsim.fsim(image, image)[0]) == pytest.approx(1.0, abs=1e-6)
    assert float(fsim.fsim(flat, 2 * flat)[0]) == 1.0
    assert float(fsim.fsim(image, flat)[0]) < 0.2


def test_shapes_must_agree() -> None:
    a = np.zeros((2, 8, 8))
    with pytest.raises(ValueError, match=r"\(2, 8, 8\).*\(1, 8, 8\)"):
        distances.ncc(a, a[:1])
    with pytest.raises(ValueError, match=r"\[n, h, w\]"):
        fsim.fsim(a[0], a[0])
