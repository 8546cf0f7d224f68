"""Pairs of keypoints of one place: of an image, and of a copy by a known map.

The copy is turned, zoomed, squashed, blurred, relit and noisy, by SciPy and NumPy alone.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from benchmarks.methods.patch_descriptor import Described

# Of a pair of keypoints: pixels, octaves and radians at most from where the map takes the first one.
_PIXELS, _OCTAVES, _RADIANS = 2.0, 0.4, 0.4


@dataclasses.dataclass(frozen=True)
class Copy:
    """An image and the map [2, 2] of positions (y, x) from the middle that made it."""

    image: np.ndarray
    matrix: np.ndarray


def changed(image: np.ndarray, rng: np.random.Generator) -> Copy:
    """A copy [s, s] of a phantom, by SciPy and NumPy alone."""
    angle, zoom, aspect = rng.uniform(-np.pi, np.pi), *np.exp(rng.uniform(-0.3, 0.3, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = zoom * turn @ np.diag([aspect**0.5, aspect**-0.5])
    back, middle = np.linalg.inv(matrix), (np.array(image.shape) - 1) / 2
    moved = ndimage.affine_transform(image, back, middle - back @ middle, order=1, mode="nearest")
    moved = ndimage.gaussian_filter(moved, rng.uniform(0, 4) ** 2 / 4)
    moved = np.clip(moved, 0, 1) ** np.exp(rng.uniform(-0.9, 0.9))
    moved = moved + rng.normal(0, rng.uniform(0, 0.2), moved.shape)
    return Copy(moved.clip(0, 1), matrix)


def pairs_of(first: Described, second: Described, row: int, matrix: np.ndarray) -> np.ndarray:
    """Patches [m, 2, 2, 16, 16] of keypoints that `matrix` takes to each other."""
    a, b = first.features, second.features
    here, there = (np.flatnonzero(x.valid[row]) for x in (a, b))
    sent = a.positions[row, here] @ matrix.T
    away = np.linalg.norm(sent[:, None] - b.positions[row, there][None], axis=-1)
    scale = np.log2(np.linalg.det(matrix)) / 2
    octaves = np.log2(a.sigmas[row, here])[:, None] + scale - np.log2(b.sigmas[row, there])
    # Angles count from x towards y: so does the direction (cos, sin) as (x, y).
    angle = a.angles[row, here]
    direction = np.stack([np.sin(angle), np.cos(angle)], -1) @ matrix.T
    turned = np.arctan2(direction[:, 0], direction[:, 1])[:, None] - b.angles[row, there]
    turned = np.abs((turned + np.pi) % (2 * np.pi) - np.pi)
    fits = (away < _PIXELS) & (np.abs(octaves) < _OCTAVES) & (turned < _RADIANS)
    cost = np.where(fits, away, np.inf)
    best = cost.argmin(1)
    mutual = np.isfinite(cost.min(1)) & (cost.argmin(0)[best] == np.arange(len(here)))
    chosen = here[mutual], there[best[mutual]]
    return np.stack([x.patches[row, c] for x, c in zip((first, second), chosen, strict=True)], 1)
