"""Batched alignment of image pairs: mirroring, rotation, scale and shift.

Contract: `moving` and `fixed` are float [n, s, s], square, one row a pair; transformations are
those of `ops.search_grid`. Lengths are in pixels of the arrays given, angles in radians.

The search is global first, local second: the correlation inside a central disc is evaluated at
low resolution for every transformation of a grid; from its maximum an inverse-compositional
Gauss-Newton iteration (Baker and Matthews, IJCV 56, 2004) minimises the difference of the
normalised images at growing resolution.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.search_grid import (
    FLIP_SIGNS,
    SearchGrid,
    Transform,
    coarse,
    device_operator,
    grid_transform,
    shrink,
)
from deepssim_jax.typing import Array, Images, Scores


def coordinates(transform: Transform, size: int) -> tuple[jax.Array, jax.Array]:
    """Row and column in `moving` of every pixel of `fixed`: two arrays [n, size, size]."""
    axis = jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2
    y, x = axis[None, :, None], axis[None, None, :]
    c, s = transform.linear[:, :1, None], transform.linear[:, 1:, None]
    sign = jnp.asarray(FLIP_SIGNS)[transform.flip]
    shift = transform.shift
    rows = sign[:, :1, None] * (c * y - s * x + shift[:, :1, None]) + (size - 1) / 2
    cols = sign[:, 1:, None] * (s * y + c * x + shift[:, 1:, None]) + (size - 1) / 2
    return rows, cols


def sample(images: Images, rows: Array, cols: Array) -> jax.Array:
    """Bilinear values of [n, s, s] at [n, a, b] positions; outside, the nearest pixel."""
    n, height, width = images.shape
    rows, cols = jnp.clip(rows, 0.0, height - 1.0), jnp.clip(cols, 0.0, width - 1.0)
    r0 = jnp.minimum(rows.astype(jnp.int32), height - 2)
    c0 = jnp.minimum(cols.astype(jnp.int32), width - 2)
    fr, fc = rows - r0, cols - c0
    flat = images.reshape(n, -1)
    corner = (r0 * width + c0).reshape(n, -1)

    def take(offset: int) -> Array:
        return jnp.take_along_axis(flat, corner + offset, axis=1, mode="clip").reshape(rows.shape)

    top = take(0) * (1 - fc) + take(1) * fc
    bottom = take(width) * (1 - fc) + take(width + 1) * fc
    return top * (1 - fr) + bottom * fr


def resample(moving: Images, transform: Transform) -> tuple[jax.Array, jax.Array]:
    """`moving` brought onto the frame of `fixed`, and where it had data.

    Returns:
      [n, s, s] and a boolean mask of the same shape.
    """
    size = moving.shape[-1]
    rows, cols = coordinates(transform, size)
    inside = (rows >= 0) & (rows <= size - 1) & (cols >= 0) & (cols <= size - 1)
    return sample(moving, rows, cols), inside


def refine(moving: Array, fixed: Array, transform: Transform, *, iterations: int) -> Transform:
    """Inverse-compositional Gauss-Newton on a similarity, from a good start.

    Both images are normalised inside the overlap, so a gain and an offset between them do not
    matter. The Hessian belongs to the fixed image alone and is built once.

    Args:
      moving: [n, s, s].
      fixed: [n, s, s].
      transform: start, for images of this size.
      iterations: Gauss-Newton steps, a compile-time number.

    Returns:
      The refined transformation; steps that would leave half of the frame are not taken.
    """
    size = fixed.shape[-1]
    axis = jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2
    y, x = axis[None, :, None], axis[None, None, :]
    weight = ((y**2 + x**2) <= (0.9 * size / 2) ** 2).astype(jnp.float32)
    gy, gx = (jnp.asarray(g) for g in jnp.gradient(fixed, axis=(1, 2)))
    # Derivatives by (log scale, angle, t_y, t_x): x -> s R x + t at the identity. Radians and
    # logarithms are multiplied by half the side so that all four have the unit of pixels.
    half = size / 2
    jacobian = jnp.stack([(gy * y + gx * x) / half, (gx * y - gy * x) / half, gy, gx], 1)
    jacobian = jacobian * weight[:, None]

    def step(iteration: int, current: Transform) -> Transform:
        del iteration
        warped, inside = resample(moving, current)
        mask = weight * inside
        total = jnp.maximum(mask.sum((1, 2), keepdims=True), 1.0)

        def normal(images: Array) -> tuple[Array, Array]:
            mean = (images * mask).sum((1, 2), keepdims=True) / total
            centred = (images - mean) * mask
            return centred, jnp.sqrt((centred**2).sum((1, 2), keepdims=True) / total + 1e-12)

        (a, deviation), (b, _rest) = normal(warped), normal(fixed)
        gain = (a * b).sum((1, 2), keepdims=True) / total / jnp.maximum(deviation**2, 1e-12)
        masked = jacobian * mask[:, None]
        hessian = jnp.einsum("niyx,njyx->nij", masked, jacobian)
        # A little of the trace keeps a flat image's system solvable.
        ridge = 2.5e-4 * jnp.trace(hessian, axis1=1, axis2=2) + 1e-9
        hessian = hessian + ridge[:, None, None] * jnp.eye(4)[None]
        residual = jnp.maximum(gain, 0.0) * a - b
        delta = jnp.linalg.solve(hessian, jnp.einsum("niyx,nyx->ni", masked, residual)[..., None])[
            ..., 0
        ]
        return _compose_inverse(current, jnp.clip(delta, -3.0, 3.0), half)

    return jax.lax.fori_loop(0, iterations, step, transform)


def _compose_inverse(transform: Transform, delta: Array, half: float) -> Transform:
    """transform o (1 + delta)^-1 for delta = (log scale, angle) * half, t_y, t_x."""
    log_scale, angle = -delta[:, 0] / half, -delta[:, 1] / half
    grow = jnp.exp(log_scale)
    dc, ds = grow * jnp.cos(angle), grow * jnp.sin(angle)
    ty, tx = delta[:, 2], delta[:, 3]
    # (1 + delta)^-1 (x) = G (x - t)
    uy, ux = -(dc * ty - ds * tx), -(ds * ty + dc * tx)
    c, s = transform.linear[:, 0], transform.linear[:, 1]
    linear = jnp.stack([c * dc - s * ds, c * ds + s * dc], -1)
    shift = jnp.stack([c * uy - s * ux, s * uy + c * ux], -1) + transform.shift
    return Transform(flip=transform.flip, linear=linear, shift=shift)


@functools.partial(jax.jit, static_argnames=("levels",))
def refine_pyramid(
    moving: Array, fixed: Array, start: Transform, *, levels: tuple[tuple[int, int], ...]
) -> Transform:
    """`refine` from coarse to fine; `levels` is ((side, iterations), ...), `start` at full size."""
    size = fixed.shape[-1]
    transform = start
    for side, iterations in levels:
        factor = side / size
        a = moving if side == size else shrink(moving, side)
        b = fixed if side == size else shrink(fixed, side)
        transform = refine(a, b, transform.resized(factor), iterations=iterations).resized(
            1 / factor
        )
    return transform


def pyramid(size: int) -> tuple[tuple[int, int], ...]:
    """(side, Gauss-Newton steps) from coarse to fine for images of side `size`."""
    return ((size // 4, 8), (size // 2, 5), (size, 2))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("transform", "aligned", "inside", "correlation"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Registration:
    """Pairs brought together.

    `transform` says how fixed became moving; `aligned` [n, s, s] is moving on the frame of fixed,
    `inside` where it had data; `correlation` [n] is Pearson's over that region.
    """

    transform: Transform
    aligned: Array
    inside: Array
    correlation: Scores


def align(moving: Array, fixed: Array, start: Array, *, grid: SearchGrid) -> Registration:
    """Refines pairs from grid indices [n] and resamples `moving`; jit-compilable."""
    size = fixed.shape[-1]
    transform = grid_transform(start, grid=grid, size=size)
    transform = refine_pyramid(moving, fixed, transform, levels=pyramid(size))
    aligned, inside = resample(moving, transform)
    mask = inside.astype(jnp.float32)
    total = jnp.maximum(mask.sum((1, 2), keepdims=True), 1.0)

    def centred(images: Array) -> Array:
        return (images - (images * mask).sum((1, 2), keepdims=True) / total) * mask

    a, b = centred(aligned), centred(fixed)
    norm = jnp.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)))
    correlation = (a * b).sum((1, 2)) / jnp.maximum(norm, 1e-9)
    return Registration(transform, aligned, inside, correlation)


_align = jax.jit(align, static_argnames="grid")


def register(
    moving: Images, fixed: Images, *, grid: SearchGrid = SearchGrid(), batch_size: int = 32
) -> Registration:
    """Aligns each moving image to the fixed image of its row: global search, then refinement.

    Args:
      moving: [n, s, s] real, any intensity scale.
      fixed: [n, s, s].
      grid: transformations of the global search; refinement may leave it a little.
      batch_size: pairs on the device at a time; it does not change the result.

    Returns:
      The registration of all pairs; transformations are in pixels of these images.

    Raises:
      ValueError: if the shapes differ, or the images are not square, or there is no pair.
    """
    if moving.ndim != 3 or moving.shape != fixed.shape or moving.shape[1] != moving.shape[2]:
        raise ValueError(
            f"moving {moving.shape} and fixed {fixed.shape} must both be [n, s, s]; bring images "
            "to one square size first, for example with data.preprocess.fit_to_size"
        )
    if not len(moving):
        raise ValueError("there is no pair to register; n is 0")
    parts = []
    starts = search(moving, fixed, grid=grid, batch_size=batch_size)
    for a, b, start in _batches(batch_size, moving, fixed, starts):
        parts.append(_align(a.astype(jnp.float32), b.astype(jnp.float32), start, grid=grid))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(moving)], *parts)


def search(moving: Images, fixed: Images, *, grid: SearchGrid, batch_size: int = 32) -> np.ndarray:
    """Grid index int32 [n] of the best transformation of each of n >= 1 pairs; see `coarse`."""
    operator = device_operator(grid)
    batches = _batches(batch_size, moving, fixed)
    found = [coarse(zscore(a), zscore(b), operator, grid=grid)[0] for a, b in batches]
    return np.concatenate(found)[: len(moving)]


def _batches(batch_size: int, *columns: Images) -> Iterator[list[jax.Array]]:
    """Batches of one shape: the last one begins again at the first row."""
    for first in range(0, len(columns[0]), batch_size):
        rows = np.arange(first, first + batch_size) % len(columns[0])
        yield [jnp.asarray(np.asarray(column)[rows]) for column in columns]
