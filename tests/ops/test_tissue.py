"""Tissues are found where they were drawn: on maps of real people, and on phantoms of nobody."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.data.anatomy import procedural
from deepssim_jax.data.volume import oriented
from deepssim_jax.ops.tissue import tissue_labels

MEANS = np.array([0.0, 0.2, 0.55, 0.85])


def scanned(labels: np.ndarray, seed: int) -> np.ndarray:
    """T1-like: tissue means, the blur of voxels, a coil's shading of about 30 %, 3 % noise."""
    image = ndimage.gaussian_filter(MEANS[labels], 0.4)
    axes = np.meshgrid(*(np.linspace(-1, 1, s) for s in labels.shape), indexing="ij")
    image = image * np.exp(0.08 * axes[0] - 0.1 * axes[1] + 0.12 * axes[2])
    noisy = image + 0.03 * np.random.default_rng(seed).standard_normal(image.shape)
    return np.where(labels > 0, np.clip(noisy, 0.0, None), 0).astype(np.float32)


def dice(a: np.ndarray, b: np.ndarray, label: int) -> float:
    return float(
        2 * ((a == label) & (b == label)).sum() / ((a == label).sum() + (b == label).sum())
    )


def test_tissues_of_a_procedural_brain() -> None:
    maps = procedural().maps
    labels = np.where(maps[:3].sum(0) > 0.5, maps[:3].argmax(0) + 1, 0)
    found = tissue_labels(scanned(labels, 0)[None])[0]
    assert min(dice(found, labels, k) for k in (2, 3)) > 0.9
    # Another unit changes nothing, and a prior that knows better helps where it says so.
    np.testing.assert_array_equal(tissue_labels(3000 * scanned(labels, 0)[None])[0], found)
    prior = np.stack([labels == k for k in (1, 2, 3)], -1).astype(float)
    informed = tissue_labels(scanned(labels, 0)[None], prior=prior)[0]
    assert dice(informed, labels, 2) >= dice(found, labels, 2)


@pytest.mark.parametrize("person", ["01", "02", "03"])
def test_tissues_of_real_anatomies(data_dir: Path, person: str) -> None:
    image = nibabel.load(data_dir / "brain3d" / "tissue" / f"training{person}_tissue.nii.gz")
    labels, spacing = oriented(np.asarray(image.dataobj).astype(np.uint8), image.affine)
    step = np.maximum(np.round(2.0 / spacing).astype(int), 1)  # about 2 mm: a test is no study
    labels = labels[tuple(slice(None, None, s) for s in step)]
    places = np.argwhere(labels > 0)
    box = tuple(slice(a, b) for a, b in zip(places.min(0), places.max(0) + 1, strict=True))
    labels = np.pad(labels[box], 2)
    found = tissue_labels(scanned(labels, 1)[None])[0]
    assert dice(found, labels, 2) > 0.9
    assert dice(found, labels, 3) > 0.9
