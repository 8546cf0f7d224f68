"""Distances and correlations of image pairs, pixel by pixel.

Contract: a and b are real arrays of one shape, [n, *space] or [n, *space, c]; row i of a is compared
with row i of b over all axes but the first; results are float32 [n]. No alignment, no windows.
"""

import jax
import jax.numpy as jnp

from deepssim_jax.typing import Array, Images

# Norms below this are those of flat images: dividing by them would amplify rounding.
_FLAT = 1e-12


def _pair(a: Images, b: Images) -> tuple[Array, Array]:
    if a.shape != b.shape:
        raise ValueError(f"a {a.shape} and b {b.shape} must have the same shape")
    rows = a.shape[0]
    a, b = (jnp.asarray(x, jnp.float32).reshape(rows, -1) for x in (a, b))
    return a, b


@jax.jit
def ncc(a: Images, b: Images) -> Array:
    """Normalised cross-correlation: Pearson's correlation of the pixels.

    Args:
      a: [n, ...], any scale.
      b: same shape.

    Returns:
      float32 [n] in [-1, 1]; 0 where one of the two images is flat.

    Raises:
      ValueError: the shapes differ.
    """
    a, b = _pair(a, b)
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    norms = jnp.sqrt((a**2).sum(1) * (b**2).sum(1))
    return jnp.where(norms > _FLAT, (a * b).sum(1) / jnp.maximum(norms, _FLAT), 0.0).clip(-1, 1)


@jax.jit
def mae(a: Images, b: Images) -> Array:
    """Mean absolute error of each pair, float32 [n], in the units of the images."""
    a, b = _pair(a, b)
    return jnp.abs(a - b).mean(1)


@jax.jit
def rmse(a: Images, b: Images) -> Array:
    """Root of the mean squared error of each pair, float32 [n], in the units of the images."""
    a, b = _pair(a, b)
    return jnp.sqrt(((a - b) ** 2).mean(1))
