"""Replicas of volumes made by SciPy alone: no code of the package takes part."""

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation


def make_replica(
    volume: np.ndarray, donor: np.ndarray, rng: np.random.Generator, *, window: tuple | None = None
) -> np.ndarray:
    """A volume as a generator that memorized it would give it back.

    Turned by up to 5 degrees about each axis, moved by up to 3 voxels, blurred by 0.3 to 0.9 voxels,
    a ball of 3 to 10 % of the volume taken from another person (soft edge), noise of 3 to 8 % of the
    standard deviation inside the window, and, without a window of absolute values, gamma 0.8 to 1.25.
    """
    image = volume.astype(np.float64)
    side = np.array(image.shape)
    centre = (side - 1) / 2
    place = centre + rng.uniform(-0.25, 0.25, 3) * side
    radius = (rng.uniform(0.03, 0.10) * side.prod() * 3 / (4 * np.pi)) ** (1 / 3)
    grids = np.meshgrid(*(np.arange(s) for s in side), indexing="ij", sparse=True)
    away = np.sqrt(sum((g - p) ** 2 for g, p in zip(grids, place, strict=True)))
    soft = 1 / (1 + np.exp(np.clip(away - radius, -30, 30)))
    image = image * (1 - soft) + donor * soft
    turn = Rotation.from_euler("xyz", rng.uniform(-5, 5, 3), degrees=True).as_matrix()
    offset = centre - turn @ (centre + rng.uniform(-3, 3, 3))
    image = ndimage.affine_transform(image, turn, offset=offset, order=1, mode="nearest")
    image = ndimage.gaussian_filter(image, rng.uniform(0.3, 0.9))
    if window is None:
        low, high = image.min(), image.max()
        image = ((image - low) / (high - low)) ** rng.uniform(0.8, 1.25) * (high - low) + low
        spread = image.std()
    else:
        spread = np.clip(image, *window).std()
    return image + rng.normal(0, rng.uniform(0.03, 0.08) * spread, image.shape)
