"""Which images hold enough structure to be compared."""

import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax import testing
from deepssim_jax.scoring.points import PointSet

Y, X = np.mgrid[:112, :112]


def blob(y: float, x: float, width: float) -> np.ndarray:
    return np.exp(-((Y - y) ** 2 + (X - x) ** 2) / (2 * width**2))


EMPTY = {
    "blob": blob(50, 60, 20),
    "wide blob": blob(58, 40, 30),
    "three blobs": blob(20, 20, 8) + 0.7 * blob(80, 60, 8) + 0.5 * blob(30, 90, 8),
    "ramp": (X + 2 * Y) / 340,
    "pale square": 0.2 + 0.02 * ((abs(Y - 50) < 30) & (abs(X - 40) < 20)),
    "hot pixel": (X == 70) & (Y == 20),
    "flat": np.full(X.shape, 0.5),
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", EMPTY)
def test_a_smooth_picture_cannot_be_compared_whatever_its_levels(name: str, bits: int) -> None:
    """Levels of 8 bits leave contours in a smooth picture; they are no structure of it."""
    levels = 2**bits - 1
    image = np.round(np.clip(EMPTY[name], 0, 1) * levels).astype(np.float32) / levels
    assert PointSet.of_images([image]).comparable.tolist() == [False]


def test_strongly_blurred_and_small_images_can_be_compared() -> None:
    image = testing.phantom_images(1, size=(128, 128))[0]
    blurred = np.round(255 * ndimage.gaussian_filter(image, 128 / 48)) / 255
    small = np.round(255 * ndimage.zoom(image, 28 / 128, order=1)) / 255
    assert PointSet.of_images([image, blurred, small]).comparable.tolist() == [True] * 3
