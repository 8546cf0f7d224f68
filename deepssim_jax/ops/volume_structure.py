"""Volumes aligned by their local structure, and how well it agrees: whatever the contrast, in any pose.

Contract: `moving` and `fixed` are stored cubes [n, s, s, s] of any unit, `held_*` float [n, s, s, s] 0
or 1, where each has data. Transformations are those of `ops.transform`; their matrices may be any
affine map, a mirroring is their flip.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products, refine, resample
from deepssim_jax.ops.transform import MotionModel, Transform
from deepssim_jax.ops.volume_grid import blurred, local_structure
from deepssim_jax.typing import Array

_SHARE = 1 / 16  # the neighbourhood that a value is seen against, as a share of the side
_FINE = 0.7  # voxels; less is noise
# Bands of structure that are compared, in voxels of 64 along a side, and the width of a window.
_BANDS, _WIDER, _WINDOW = (0.6, 1.0), 2.5, 3.0
_STEP = 4  # voxels from window to window
_LEAST_HELD, _LEAST_ENERGY = 0.5, 0.3  # the latter as a share of the median window's
_ROUGH, _EXACT = ((4, 8),), ((2, 6), (1, 2))
_LEAST_SEEN = 0.1  # of the fixed volume's structure: of less, no correlation is believed


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("transform", "aligned", "held", "score"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Alignment:
    """`aligned` [n, s, s, s] is moving on the frame of fixed, `held` where both have data, `score` [n]
    their `agreement` there.
    """

    transform: Transform
    aligned: Array
    held: Array
    score: Array


def boxes(size: tuple[int, ...], box: Array) -> Array:
    """float [n, *size]: 1 inside of centred boxes [n, 3]."""
    out = jnp.ones((len(box), *size), jnp.float32)
    for axis, side in enumerate(size):
        at = np.abs(np.arange(side) - (side - 1) / 2)
        shape = [-1 if i == axis else 1 for i in range(3)]
        out = out * (jnp.asarray(at.reshape(1, *shape)) <= box[:, axis].reshape(-1, 1, 1, 1) / 2)
    return out


def _field(volume: Array, held: Array) -> Array:
    return local_structure(blurred(volume, _FINE), held, sigma=max(_SHARE * max(volume.shape), 2.0))


def agreement(moving: Array, fixed: Array, held: Array) -> Array:
    """How well the structure of two aligned volumes agrees, [] in [-1, 1]; 1 for a volume and itself.

    In windows all over the volume that hold structure, the correlation of what lies in a band of
    spatial frequencies; the mean of the better half of the windows, and of the bands. A copy of which
    a part was changed keeps the other part. Inverted intensities change nothing: the sign is that of
    the whole.

    Args:
      moving: [d, h, w], on the frame of
      fixed: [d, h, w].
      held: where both have data.
    """
    unit = max(fixed.shape) / 64
    total = jnp.zeros(())
    for width in _BANDS:
        band = width * unit
        a, b = (
            local_structure(blurred(x, band) - blurred(x, _WIDER * band), held, sigma=3 * band)
            for x in (moving, fixed)
        )
        sign = jnp.where((a * b).sum() < 0, -1.0, 1.0)
        near = [
            _windows(x, _WINDOW * unit) for x in (sign * a * b * held, a * a * held, b * b * held)
        ]
        there = _windows(held, _WINDOW * unit)
        correlation = near[0] / jnp.sqrt(jnp.maximum(near[1] * near[2], 1e-9))
        energy = jnp.where(there > _LEAST_HELD, near[2] / jnp.maximum(there, 1e-3), jnp.nan)
        structured = energy > _LEAST_ENERGY * jnp.nanmedian(energy)
        ordered = jnp.sort(jnp.where(structured, correlation, -jnp.inf))[::-1]
        better = jnp.maximum(structured.sum() // 2, 1)
        chosen = jnp.where(jnp.arange(len(ordered)) < better, ordered, 0.0)
        total = total + jnp.where(structured.any(), chosen, 0.0).sum() / better
    return jnp.clip(total / len(_BANDS), -1.0, 1.0)


def _windows(field: Array, sigma: float) -> Array:
    """Means of [d, h, w] in Gaussian windows, every few voxels, flat."""
    for axis, side in enumerate(field.shape):
        rows = resample.blur_matrix(side, sigma)[_STEP // 2 :: _STEP]
        field = jnp.moveaxis(products.tensordot(jnp.asarray(rows), field, axes=(1, axis)), 0, axis)
    return field.reshape(-1)


def proper(matrix: Array, shift: Array) -> Transform:
    """Affine maps [n, 3, 3] and [n, 3] as transformations: what mirrors becomes a flip."""
    mirrored = jnp.linalg.det(matrix) < 0
    sign = jnp.where(mirrored, -1.0, 1.0)
    last = jnp.asarray([0.0, 0.0, 1.0])
    signs = 1 + last[None] * (sign[:, None] - 1)
    return Transform(mirrored.astype(jnp.int32), signs[:, :, None] * matrix, signs * shift)


@jax.jit
def compare(
    moving: Array, fixed: Array, held_moving: Array, held_fixed: Array, transform: Transform
) -> Alignment:
    """Pairs as a transformation aligns them."""
    space = fixed.shape[1:]
    positions = transform.positions(space)
    moving = jnp.asarray(moving, jnp.float32)
    aligned = resample.sample_at(moving, positions)
    held = resample.sample_at(held_moving, positions) * resample.inside(positions, space)
    held = (held > 0.5) * held_fixed
    score = jax.lax.map(lambda x: agreement(*x), (aligned, jnp.asarray(fixed, jnp.float32), held))
    return Alignment(transform, aligned, held, score)


@jax.jit
def align(
    moving: Array, fixed: Array, held_moving: Array, held_fixed: Array, starts: Transform
) -> Alignment:
    """Refines pairs from the best of several starts: rigid, then all twelve parameters.

    Both are seen by their local structure. Where it does not agree better afterwards, the start stays.

    Args:
      moving: [n, s, s, s].
      fixed: likewise.
      held_moving: where `moving` has data, and
      held_fixed: `fixed`.
      starts: [n, c] in every field, c starts of each pair.
    """
    a, b = (
        jax.lax.map(lambda x: _field(*x), (jnp.asarray(v, jnp.float32), h))
        for v, h in ((moving, held_moving), (fixed, held_fixed))
    )

    size = fixed.shape[1:]
    # Half as fine is fine enough to tell which of two maps is the better one.
    half = tuple(-(-side // 2) for side in size)
    small_a, small_b, small_held = (resample.resize(x, half) for x in (a, b, held_moving))

    def correlation(transform: Transform) -> Array:
        return _correlation(small_a, small_b, small_held, transform, size=size)

    def row(number: int) -> Transform:
        return jax.tree.map(lambda x: x[:, number], starts)

    count = starts.flip.shape[1]
    seen = jnp.stack([correlation(row(i)) for i in range(count)], 1)
    best = jnp.argmax(jnp.abs(seen), 1)
    each = jnp.arange(len(best))
    start, before = jax.tree.map(lambda x: x[each, best], (starts, seen))
    sign = jnp.where(before < 0, -1.0, 1.0)[:, None, None, None]
    found = refine.refine(sign * a, b, start, model=MotionModel.RIGID, levels=_ROUGH)
    found = refine.refine(sign * a, b, found, model=MotionModel.AFFINE, levels=_EXACT)
    after = correlation(found)
    better = jnp.abs(after) > jnp.abs(before)
    final = jax.tree.map(
        lambda x, y: jnp.where(better.reshape(-1, *(1,) * (x.ndim - 1)), x, y), found, start
    )
    return compare(moving, fixed, held_moving, held_fixed, final)


def _correlation(
    a: Array, b: Array, held: Array, transform: Transform, *, size: tuple[int, ...]
) -> Array:
    """[n] of fields with zeros where nothing is, over where both lie; by a little less for less of it.

    The transformation is meant for arrays of `size`.
    """
    positions = transform.positions(b.shape[1:], size=size)
    there = resample.sample_at(held, positions) * resample.inside(positions, b.shape[1:])
    moved = resample.sample_at(a, positions) * there
    space = (1, 2, 3)
    shared = b * (there > 0.5)
    product = (moved * shared).sum(space)
    norm = jnp.sqrt((moved**2).sum(space) * (shared**2).sum(space))
    least = _LEAST_SEEN * (b**2).sum(space)
    return product / jnp.maximum(jnp.maximum(norm, least), 1e-6)
