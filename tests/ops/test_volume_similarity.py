"""Measures of pairs of volumes equal those of scikit-image and scikit-learn, and a closed form."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import mutual_info_score

from deepssim_jax.ops.volume_similarity import BINS, MAX_PSNR, volume_similarity


def pairs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(seed).standard_normal((2, 3, 20, 24, 18))
    a, b = ndimage.gaussian_filter(noise, (0, 0, 1.5, 1.5, 1.5))
    return 5 * (0.8 * a + 0.2 * b) + 3, b


def test_equals_independent_computations() -> None:
    moving, fixed = pairs()
    found = volume_similarity(moving, fixed)
    for i, (x, y) in enumerate(zip(moving, fixed, strict=True)):
        u, v = ((z - z.min()) / np.ptp(z) for z in (x, y))
        assert float(found.ncc[i]) == pytest.approx(
            np.corrcoef(x.ravel(), y.ravel())[0, 1], abs=1e-5
        )
        blurred = ndimage.gaussian_filter(
            (y - y.mean()) / y.std(), 24 / 32, mode="nearest", radius=2
        )
        body = blurred > 0
        inside = [ndimage.gaussian_filter(z, 0.7, mode="nearest", radius=3)[body] for z in (x, y)]
        assert float(found.body_ncc[i]) == pytest.approx(np.corrcoef(*inside)[0, 1], abs=1e-4)
        assert float(found.mae[i]) == pytest.approx(np.abs(u - v).mean(), abs=1e-5)
        assert float(found.rmse[i]) == pytest.approx(np.sqrt(((u - v) ** 2).mean()), abs=1e-5)
        assert float(found.psnr[i]) == pytest.approx(
            peak_signal_noise_ratio(v, u, data_range=1), abs=1e-3
        )
        s, t = ((z - z.mean()) / z.std() for z in (x, y))
        assert float(found.ssim[i]) == pytest.approx(
            structural_similarity(t, s, data_range=np.ptp(t)), abs=1e-5
        )
        bins = [np.minimum(z.astype(np.float32) * BINS, BINS - 1).astype(int) for z in (u, v)]
        assert float(found.mutual_information[i]) == pytest.approx(
            mutual_info_score(bins[0].ravel(), bins[1].ravel()), abs=2e-3
        )


def test_a_volume_with_itself_in_another_unit() -> None:
    _, fixed = pairs()
    found = volume_similarity(2 * fixed + 1, fixed)
    np.testing.assert_allclose(found.ncc, 1, atol=1e-5)
    np.testing.assert_allclose(found.ssim, 1, atol=1e-4)
    np.testing.assert_allclose(found.mae, 0, atol=1e-6)
    assert np.asarray(found.psnr).min() > MAX_PSNR - 1
    entropy = [
        mutual_info_score(*(2 * [np.minimum((v - v.min()) / np.ptp(v) * BINS, BINS - 1).astype(int).ravel()]))
        for v in fixed
    ]  # fmt: skip
    np.testing.assert_allclose(found.mutual_information, entropy, rtol=2e-3)


def test_a_flat_volume_gives_numbers() -> None:
    _, fixed = pairs()
    found = volume_similarity(np.zeros_like(fixed), fixed)
    for name in ("ncc", "mutual_information", "psnr", "rmse", "mae"):
        assert np.isfinite(getattr(found, name)).all(), name


def test_golden_values_of_real_brains(data_dir: Path, golden_dir: Path) -> None:
    def read(name: str) -> np.ndarray:
        image = nibabel.load(data_dir / "brain3d" / "mni" / f"{name}.nii.gz")
        return np.asarray(image.dataobj, np.float32)[20:160:2, 20:200:2, 20:160:2]

    rows = json.loads((golden_dir / "pairwise_3d.json").read_text())[1:3]
    a = np.stack([read(row["a"]) for row in rows])
    b = np.stack([read(row["b"]) for row in rows])
    found = volume_similarity(b, a)
    np.testing.assert_allclose(found.ncc, [row["ncc"] for row in rows], atol=1e-5)
    np.testing.assert_allclose(found.ssim, [row["ssim_reference"] for row in rows], atol=1e-5)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"one\s+size first"):
        volume_similarity(np.zeros((1, 8, 8, 8)), np.zeros((1, 8, 8, 9)))
