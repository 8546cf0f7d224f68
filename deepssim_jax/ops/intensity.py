"""Intensities inside one image.

Contract: images are real arrays whose leading axis is the batch and whose next `spatial_dims`
axes are space; every image is treated by itself. Results are float32 of the same shape.
"""

import jax
import jax.numpy as jnp

from deepssim_jax.ops import products
from deepssim_jax.ops.resample import blur_matrix
from deepssim_jax.typing import Array, Images

# Images that vary less than this are taken for flat: dividing by it would amplify rounding.
_FLAT = 1e-6


def _axes(spatial_dims: int) -> tuple[int, ...]:
    return tuple(range(1, spatial_dims + 1))


def zscore(images: Images, *, spatial_dims: int = 2) -> jax.Array:
    """Each image to mean 0 and population standard deviation 1; a flat one to zeros.

    Args:
      images: [n, *space] or [n, *space, c].
      spatial_dims: 2 or 3.
    """
    images = jnp.asarray(images, jnp.float32)
    axes = _axes(spatial_dims)
    centred = images - images.mean(axes, keepdims=True)
    deviation = jnp.sqrt((centred**2).mean(axes, keepdims=True))
    return jnp.where(deviation > _FLAT, centred / jnp.maximum(deviation, _FLAT), 0.0)


def local_zscore(images: Images, *, sigma: float) -> jax.Array:
    """Each pixel [n, h, w] against its neighbourhood: what a bias field or gamma hardly changes.

    (x - m) / sqrt(v + 0.05) with m and v the mean and variance under a Gaussian of width `sigma`
    pixels; the constant, in units of a z-scored image, keeps noise on a flat ground small.
    """
    x = jnp.asarray(images, jnp.float32)
    rows, columns = (jnp.asarray(blur_matrix(side, sigma)) for side in images.shape[1:])

    def mean(x: Array) -> Array:
        return products.einsum("ij,njk,lk->nil", rows, x, columns)

    centred = x - mean(x)
    return centred / jnp.sqrt(mean(centred * centred) + 0.05)


def rescale01(images: Images, *, spatial_dims: int = 2) -> jax.Array:
    """Each image to the range [0, 1] by its own minimum and maximum; a flat one to zeros."""
    images = jnp.asarray(images, jnp.float32)
    low, extent = extent_of(images, spatial_dims=spatial_dims)
    return jnp.where(extent > _FLAT, (images - low) / jnp.maximum(extent, _FLAT), 0.0)


def extent_of(images: Images, *, spatial_dims: int = 2) -> tuple[Array, Array]:
    """Minimum and range (maximum - minimum) of each image, with axes of length one kept."""
    axes = _axes(spatial_dims)
    low = images.min(axes, keepdims=True)
    return low, images.max(axes, keepdims=True) - low
