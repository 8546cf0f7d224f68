"""Moving images: affine maps, displacement fields, blur and resizing, in 2D and 3D.

Contract: images are float [n, *space]; coordinates are in pixels, in the order of the axes (y, x
or z, y, x). Affine maps are centred: they act on positions relative to (size - 1) / 2 and say
where in the input an output position is read, x_in = M x_out + t.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.typing import Array, Images


def sample_at(
    images: Images, positions: list[Array], *, fill: float | Array | None = None
) -> jax.Array:
    """Multilinear values at positions given for every axis, each [n, *out].

    Args:
      images: [n, *space].
      positions: one array an axis, in pixels from the first.
      fill: value outside, one for all or [n, 1, ...]; None, or NaN for an image, repeats the
        nearest pixel.

    Returns:
      [n, *out].
    """
    n, shape = images.shape[0], images.shape[1:]
    flat = images.reshape(n, -1)
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    base, fractions = jnp.zeros(positions[0].shape, jnp.int32), []
    for position, size, stride in zip(positions, shape, strides, strict=True):
        clipped = jnp.clip(position, 0.0, size - 1.0)
        lower = jnp.minimum(clipped.astype(jnp.int32), max(size - 2, 0))
        fractions.append(clipped - lower)
        base = base + lower * stride
    out = jnp.zeros(positions[0].shape, jnp.float32)
    for corner in itertools.product((0, 1), repeat=len(shape)):
        weight, offset = jnp.ones((), jnp.float32), 0
        for bit, fraction, size, stride in zip(corner, fractions, shape, strides, strict=True):
            weight = weight * (fraction if bit else 1 - fraction)
            offset += bit * stride * (size > 1)
        index = (base + offset).reshape(n, -1)
        values = jnp.take_along_axis(flat, index, axis=1, mode="clip").reshape(base.shape)
        out = out + weight * values
    if fill is None:
        return out
    return jnp.where(inside(positions, shape) | jnp.isnan(fill), out, fill)


def inside(positions: list[Array], shape: tuple[int, ...], *, margin: float = 0.0) -> jax.Array:
    """Boolean [n, *out]: which positions lie between the first and the last pixel of every axis.

    With `margin` pixels, those are left out that are so near to them.
    """
    within = jnp.ones(positions[0].shape, bool)
    for position, size in zip(positions, shape, strict=True):
        within &= (position >= margin) & (position <= size - 1 - margin)
    return within


def _centred_axes(shape: tuple[int, ...]) -> list[Array]:
    grids = np.meshgrid(*(np.arange(s) - (s - 1) / 2 for s in shape), indexing="ij")
    return [jnp.asarray(g, jnp.float32) for g in grids]


def warp_affine(images: Images, matrices: Array, *, fill: float | Array | None = None) -> jax.Array:
    """Reads each image through its own affine map.

    Args:
      images: [n, *space], d spatial axes.
      matrices: [n, d, d + 1], output to input, centred.
      fill: see `sample_at`.

    Returns:
      [n, *space].
    """
    shape = images.shape[1:]
    axes = _centred_axes(shape)
    lead = (slice(None),) + (None,) * len(shape)
    positions = []
    for row, size in enumerate(shape):
        position = matrices[:, row, -1][lead] + (size - 1) / 2
        for column, axis in enumerate(axes):
            position = position + matrices[:, row, column][lead] * axis[None]
        positions.append(position)
    return sample_at(images, positions, fill=fill)


def warp_displacement(images: Images, displacement: Array) -> jax.Array:
    """out(x) = in(x + u(x)) with the edge repeated; displacement is [n, *space, d] in pixels."""
    shape = images.shape[1:]
    positions = [
        axis[None] + (size - 1) / 2 + displacement[..., number]
        for number, (axis, size) in enumerate(zip(_centred_axes(shape), shape, strict=True))
    ]
    return sample_at(images, positions)


def gaussian_blur(
    images: Images, sigma: Array | float, *, radius: int, spatial_dims: int = 2
) -> jax.Array:
    """Separable Gaussian blur, each image its own width, the edge repeated.

    Args:
      images: [n, *space].
      sigma: pixels, [n] or one for all; 0 leaves the image as it is.
      radius: where the kernel is cut, pixels; 3 to 4 times the largest sigma.
      spatial_dims: 2 or 3.
    """
    images = jnp.asarray(images)
    sigma = jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), (images.shape[0],))
    taps = np.arange(-radius, radius + 1)
    squares = jnp.asarray(taps**2, jnp.float32)[None, :]
    weights = jnp.exp(-0.5 * squares / jnp.maximum(sigma, 1e-3)[:, None] ** 2)
    weights = weights / weights.sum(1, keepdims=True)
    lead = (slice(None),) + (None,) * spatial_dims
    for axis in range(1, spatial_dims + 1):
        size = images.shape[axis]
        width = [(0, 0)] * images.ndim
        width[axis] = (radius, radius)
        padded = jnp.pad(images, width, mode="edge")
        images = jnp.zeros_like(images)
        for tap in range(2 * radius + 1):
            part = jax.lax.slice_in_dim(padded, tap, tap + size, axis=axis)
            images = images + weights[:, tap][lead] * part
    return images


@functools.cache
def blur_matrix(size: int, sigma: float) -> np.ndarray:
    """Float32 [size, size]: a Gaussian blur along one axis, the edge repeated."""
    reach = int(4 * sigma + 0.5)
    out = np.zeros((size, size), np.float32)
    for offset in range(-reach, reach + 1):
        columns = np.clip(np.arange(size) + offset, 0, size - 1)
        np.add.at(out, (np.arange(size), columns), np.exp(-0.5 * (offset / sigma) ** 2))
    return out / out.sum(1, keepdims=True)


def resize(images: Images, shape: tuple[int, ...]) -> jax.Array:
    """Antialiased linear resizing of [n, *space] to [n, *shape]."""
    return jax.image.resize(images, (images.shape[0], *shape), "linear", antialias=True)
