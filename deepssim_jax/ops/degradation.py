"""What the tasks of `utility` take away from an image: clean signal, or three of four rows and columns.

Contract: images float32 [n, s, s] in [0, 1], s a multiple of 4; results have the same shape. A result
depends on the key alone.
"""

import enum

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products
from deepssim_jax.typing import Array, Images

# Photons at intensity 1, and the width of the electronic noise.
PHOTONS, SIGMA = 200.0, 0.03
FACTOR = 4


class Task(enum.StrEnum):
    """What a network learns to undo."""

    DENOISING = "denoising"
    SUPER_RESOLUTION = "super_resolution"


def degrade(key: Array, images: Images, *, task: Task) -> Array:
    """Images as a network gets them.

    Denoising: Poisson(200 x) / 200 and Gaussian noise of width 0.03 on top. Super-resolution: every
    fourth pixel along both axes, interpolated linearly to the full size; the last ones are repeated.

    Args:
      key: of the noise.
      images: [n, s, s].
      task: which of the two.
    """
    images = jnp.asarray(images, jnp.float32)
    if task is Task.DENOISING:
        quanta, electronic = jax.random.split(key)
        counts = jax.random.poisson(quanta, PHOTONS * images) / PHOTONS
        return counts + SIGMA * jax.random.normal(electronic, images.shape)
    between = jnp.asarray(_interpolation(images.shape[-1]))
    return products.einsum("ia,nab,jb->nij", between, images[:, ::FACTOR, ::FACTOR], between)


def _interpolation(side: int) -> np.ndarray:
    """[side, side / 4]: linear weights of the pixels kept for every pixel."""
    place = np.minimum(np.arange(side) / FACTOR, side // FACTOR - 1)
    distance = np.abs(place[:, None] - np.arange(side // FACTOR)[None])
    return np.maximum(1 - distance, 0).astype(np.float32)
