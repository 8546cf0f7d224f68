"""What a point looks like: RootSIFT in two parts, one that a mirror keeps and one that it negates.

Contract: descriptors are relative to the point's own position, scale, orientation and polarity, so
rotation, zoom and a negative leave them. A mirror image permutes the 4 x 4 x 8 numbers (cells across
the orientation change places, directions change sign); so (d + Pd) / 2 stays and (d - Pd) / 2
changes its sign. The cosine of two points is the sum of both parts' products, that of one with the
other's mirror image their difference: one product serves both.

RootSIFT: Lowe, IJCV 60, 2004, section 6; Arandjelovic and Zisserman, CVPR 2012, section 3.
"""

import math

import jax.numpy as jnp
import numpy as np

from deepssim_jax.features.keypoints import GradientField, Points, circular
from deepssim_jax.ops.products import einsum
from deepssim_jax.typing import Array

CELLS, DIRECTIONS = 4, 8
LENGTH = CELLS * CELLS * DIRECTIONS
SAMPLES = 16  # a side
_CELL_WIDTH = 3.0  # sigmas
_CLIP = 0.2


def _pooling() -> np.ndarray:
    """float32 [SAMPLES, CELLS]: how much of each sample goes to each cell."""
    position = (np.arange(SAMPLES) + 0.5) / (SAMPLES // CELLS) - 0.5
    distance = np.abs(np.arange(CELLS)[None] - position[:, None])
    return np.maximum(1 - distance, 0).astype(np.float32)


def _places() -> tuple[Array, Array]:
    """float32 [1, 1, SAMPLES^2]: in sigmas along and across the orientation, where a point is looked at."""
    steps = (np.arange(SAMPLES) - (SAMPLES - 1) / 2) * (_CELL_WIDTH * CELLS / SAMPLES)
    along, across = (
        jnp.asarray(a.reshape(1, 1, -1), jnp.float32)
        for a in np.meshgrid(steps, steps, indexing="ij")
    )
    return along, across


def around(field: GradientField, points: Points, angles: Array) -> Array:
    """Gradients, complex64 [n, k, SAMPLES^2], where each point is looked at; their axes are the image's."""
    along, across = _places()
    angle, sigma = angles[..., None], points.sigma[..., None]
    c, s = jnp.cos(angle) * sigma, jnp.sin(angle) * sigma
    return field.sample(points, s * along + c * across, c * along - s * across)


def describe(field: GradientField, points: Points, angles: Array) -> Array:
    """RootSIFT float32 [n, k, 128] of unit norm: cells along and across the orientation, directions."""
    along, across = _places()
    window = jnp.exp(-(along**2 + across**2) / (2 * (_CELL_WIDTH * CELLS / 2) ** 2))
    gradient = around(field, points, angles)
    magnitude = jnp.abs(gradient) * window
    direction = jnp.angle(gradient) - angles[..., None]
    direction = direction * (DIRECTIONS / (2 * math.pi))
    away = circular(direction[..., None] - jnp.arange(DIRECTIONS)[None, None, None], DIRECTIONS)
    soft = jnp.maximum(1 - away, 0.0) * magnitude[..., None]
    soft = soft.reshape(*soft.shape[:2], SAMPLES, SAMPLES, DIRECTIONS)
    pool = jnp.asarray(_pooling())
    cells = einsum("nkuvo,ui,vj->nkijo", soft, pool, pool)
    d = cells.reshape(*cells.shape[:2], LENGTH)
    d = d / (jnp.sqrt((d**2).sum(-1, keepdims=True)) + 1e-9)
    d = jnp.minimum(d, _CLIP)
    return jnp.sqrt(d / (d.sum(-1, keepdims=True) + 1e-9))


def mirrored() -> np.ndarray:
    """int [128]: where each number of a descriptor stands in that of the mirror image."""
    index = np.arange(LENGTH).reshape(CELLS, CELLS, DIRECTIONS)
    return index[:, ::-1][:, :, -np.arange(DIRECTIONS) % DIRECTIONS].reshape(-1)
