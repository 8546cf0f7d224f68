"""How likely it is that two images show the same scene, when part of one was changed.

Contract: float [n, s, s] images in one frame and a mask of where both have data.

A correlation over the whole frame is ruled by its strongest region: one inverted or foreign patch
can make a wrong alignment look better than the right one. Here every tile has its own gain, offset
and noise. Of two Gaussian variables with correlation r, a pixel holds -log(1 - r^2) / 2 of mutual
information (Cover and Thomas, Elements of Information Theory, example 8.5.1); summed over the pixels
of all tiles, many tiles that agree nearly perfectly outweigh a few that do not agree at all.
"""

import jax
import jax.numpy as jnp

from deepssim_jax.ops import resample
from deepssim_jax.ops.transform import Transform, ellipsoid
from deepssim_jax.typing import Array, Images, Scores

_STABILISER = 0.01  # variances are relative to a z-scored image
_MOST = 1 - 1e-4  # r^2 that counts as perfect


def local_likelihood(a: Images, b: Images, mask: Array, *, tiles: int = 8) -> Scores:
    """Mutual information of the images' tiles, in nats a pixel of the frame.

    Args:
      a: [n, s, s], about unit variance.
      b: likewise.
      mask: [n, s, s], where both have data.
      tiles: along each axis; s is cut to a multiple of it.

    Returns:
      [n], at least 0. Tiles that correlate negatively count as if they did not.
    """
    n, side = a.shape[0], a.shape[1] // tiles

    def sums(x: Array) -> Array:
        x = x[:, : tiles * side, : tiles * side]
        return x.reshape(n, tiles, side, tiles, side).sum((2, 4))

    a, b, mask = (jnp.asarray(x, jnp.float32) for x in (a, b, mask))
    count = sums(mask)
    total = jnp.maximum(count, 1.0)
    mean_a, mean_b = sums(a * mask) / total, sums(b * mask) / total
    var_a = jnp.maximum(sums(a * a * mask) / total - mean_a**2, 0.0) + _STABILISER
    var_b = jnp.maximum(sums(b * b * mask) / total - mean_b**2, 0.0) + _STABILISER
    covariance = jnp.maximum(sums(a * b * mask) / total - mean_a * mean_b, 0.0)
    shared = jnp.minimum(covariance**2 / (var_a * var_b), _MOST)
    return -0.5 * (count * jnp.log1p(-shared)).sum((1, 2)) / (a.shape[1] * a.shape[2])


def likelihoods(
    moving: Images, fixed: Images, transforms: Transform, *, size: int, tiles: int = 8
) -> Scores:
    """How likely each of several transformations of each pair is, [n, c].

    Args:
      moving: [n, s, s].
      fixed: [n, s, s].
      transforms: [n, c], of images of side `size`, for which these stand.
      size: see there.
      tiles: as for `local_likelihood`.
    """
    shape, count = fixed.shape[1:], transforms.flip.shape[1]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), transforms)
    a, b = (jnp.repeat(jnp.asarray(x), count, axis=0) for x in (moving, fixed))
    positions = flat.positions(shape, size=(size, size))
    mask = resample.inside(positions, shape) & jnp.asarray(ellipsoid(shape, radius=0.9))[None]
    found = local_likelihood(resample.sample_at(a, positions), b, mask, tiles=tiles)
    return found.reshape(-1, count)
