"""SSIM against scikit-image and the golden values, alone and of all pairs."""

import json
from pathlib import Path

import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity

from deepssim_jax.ops import ssim
from deepssim_jax.ops.intensity import zscore

GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def noisy_pair(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.uniform(0, 1, shape)
    return a, np.clip(0.7 * a + 0.3 * rng.uniform(0, 1, shape) + 0.1, 0, 1)


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
@pytest.mark.parametrize("shape", [(16, 31), (40, 23), (12, 14, 17)])
def test_equals_scikit_image(window: str, shape: tuple[int, ...]) -> None:
    pairs = [noisy_pair(shape, seed) for seed in range(3)]
    options = GAUSSIAN if window == "gaussian" else {}
    expected = [structural_similarity(a, b, data_range=1.0, **options) for a, b in pairs]
    found = ssim.ssim(
        np.stack([a for a, _ in pairs]),
        np.stack([b for _, b in pairs]),
        data_range=1.0,
        window=window,
        spatial_dims=len(shape),
        reduction="none",
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_large_offsets_do_not_cancel() -> None:
    """Float32 variances of values around 1,000 are lost unless the mean is taken off first."""
    a, b = noisy_pair((20, 20), 0)
    expected = structural_similarity(a + 1000, b + 1000, data_range=1.0)
    found = ssim.ssim(a[None] + 1000, b[None] + 1000, data_range=1.0)
    assert float(found) == pytest.approx(expected, abs=1e-3)


def test_channels_are_averaged() -> None:
    a, b = noisy_pair((16, 18, 3), 1)
    expected = structural_similarity(a, b, data_range=1.0, channel_axis=-1)
    assert float(ssim.ssim(a[None], b[None], data_range=1.0)) == pytest.approx(expected, abs=1e-5)


def test_corner_cases() -> None:
    flat = np.full((1, 16, 16), 0.5)
    assert float(ssim.ssim(flat, flat, data_range=1.0)) == pytest.approx(1.0)
    a, _ = noisy_pair((1, 16, 16), 2)
    assert float(ssim.ssim(a, a, data_range="first")) == pytest.approx(1.0, abs=1e-6)
    # Contrast turned round: negative, and with scikit-image's value.
    expected = structural_similarity(a[0], 1 - a[0], data_range=1.0)
    assert expected < -0.5
    assert float(ssim.ssim(a, 1 - a, data_range=1.0)) == pytest.approx(expected, abs=1e-5)


def test_refuses_what_cannot_be() -> None:
    a = np.zeros((1, 16, 16))
    with pytest.raises(ValueError, match=r"\(1, 16, 16\).*\(1, 16, 15\)"):
        ssim.ssim(a, a[:, :, :-1], data_range=1.0)
    with pytest.raises(ValueError, match="must be a positive number"):
        ssim.ssim(a, a, data_range=0.0)
    with pytest.raises(ValueError, match="shorter than"):
        ssim.ssim(a[:, :5], a[:, :5], data_range=1.0)


def golden_2d(golden_dir: Path, data_dir: Path) -> tuple[list[dict], dict[str, np.ndarray]]:
    records = json.loads((golden_dir / "pairwise_2d.json").read_text())
    names = sorted({r["a"] for r in records} | {r["b"] for r in records})
    films = {n: np.asarray(Image.open(data_dir / "cxr" / n), np.float32) for n in names}
    return records, films


def test_golden_films(golden_dir: Path, data_dir: Path) -> None:
    records, films = golden_2d(golden_dir, data_dir)
    names = sorted(films)
    images = np.stack([films[n] for n in names])
    standard = np.asarray(zscore(images))
    reference = ssim.ssim_matrix(standard, standard)
    gaussian = ssim.ssim_matrix(images / 255, images / 255, data_range=1.0, window="gaussian")
    row = {n: i for i, n in enumerate(names)}
    for r in records:
        i, j = row[r["a"]], row[r["b"]]
        assert reference[i, j] == pytest.approx(r["ssim_reference"], abs=1e-5)
        assert gaussian[i, j] == pytest.approx(r["ssim_gaussian"], abs=1e-5)


def test_golden_volumes(golden_dir: Path, data_dir: Path) -> None:
    records = json.loads((golden_dir / "pairwise_3d.json").read_text())
    names = sorted({r["a"] for r in records} | {r["b"] for r in records})
    volumes = []
    for name in names:
        image = nibabel.load(data_dir / "brain3d" / "mni" / f"{name}.nii.gz")
        volume = np.asarray(image.dataobj, np.float32)[20:160:2, 20:200:2, 20:160:2]
        volumes.append(volume)
        image.uncache()
    standard = np.asarray(zscore(np.stack(volumes), spatial_dims=3))
    found = ssim.ssim_matrix(standard, standard, spatial_dims=3, tile=3)
    row = {n: i for i, n in enumerate(names)}
    for r in records:
        assert found[row[r["a"]], row[r["b"]]] == pytest.approx(r["ssim_reference"], abs=1e-5)


def test_the_tile_does_not_show_and_pairs_equal_the_matrix() -> None:
    rng = np.random.default_rng(0)
    real, synthetic = rng.uniform(size=(5, 17, 19)), rng.uniform(size=(7, 17, 19))
    whole = ssim.ssim_matrix(real, synthetic)
    np.testing.assert_allclose(ssim.ssim_matrix(real, synthetic, tile=3), whole, atol=1e-6)
    pairs = ssim.ssim(
        np.repeat(real, 7, axis=0),
        np.tile(synthetic, (5, 1, 1)),
        data_range="first",
        reduction="none",
    )
    np.testing.assert_allclose(jnp.reshape(pairs, (5, 7)), whole, atol=1e-6)
