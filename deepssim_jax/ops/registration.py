"""Batched alignment of image pairs: mirroring, rotation, scale and shift, in 2D and 3D.

Contract: `moving` and `fixed` are float [n, s, s], square, or [n, d, h, w] with isotropic voxels,
one row a pair; transformations are those of `ops.transform`. Lengths are in pixels of the arrays
given.

The search is global first, local second: the correlation inside a central disc or ball is
evaluated at low resolution for every transformation of a grid (`ops.search_grid`,
`ops.search_rigid`); `ops.refine` goes on from its maximum.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import refine, resample
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.search_grid import SearchGrid, coarse, device_operator, grid_transform
from deepssim_jax.ops.search_rigid import RigidGrid, coarse_rigid
from deepssim_jax.ops.transform import MotionModel, Transform
from deepssim_jax.typing import Array, Images, Scores, Volumes

_BATCH = {2: 32, 3: 1}  # by dimension: what fits caches; a volume fills them alone


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("transform", "aligned", "inside", "correlation"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Registration:
    """Pairs brought together.

    `transform` says how fixed became moving; `aligned` [n, *space] is moving on the frame of
    fixed, `inside` where it had data; `correlation` [n] is Pearson's over that region.
    """

    transform: Transform
    aligned: Array
    inside: Array
    correlation: Scores


def align(
    moving: Array, fixed: Array, start: Transform, *, model: MotionModel = MotionModel.SIMILARITY
) -> Registration:
    """Refines pairs from a start near the answer and resamples `moving`; jit-compilable."""
    dims = moving.ndim - 1
    # Without a unit of intensity, no threshold of the refinement depends on the scanner.
    normal = (zscore(x, spatial_dims=dims) for x in (moving, fixed))
    transform = refine.refine(*normal, start, model=model)
    positions = transform.positions(moving.shape[1:])
    aligned = resample.sample_at(moving.astype(jnp.float32), positions)
    inside = resample.inside(positions, moving.shape[1:])
    space = tuple(range(1, moving.ndim))
    total = jnp.maximum(inside.sum(space, keepdims=True), 1.0)

    def centred(images: Array) -> Array:
        return (images - (images * inside).sum(space, keepdims=True) / total) * inside

    a, b = centred(aligned), centred(fixed)
    norm = jnp.sqrt((a * a).sum(space) * (b * b).sum(space))
    correlation = (a * b).sum(space) / jnp.maximum(norm, 1e-9)
    return Registration(transform, aligned, inside, correlation)


_align = jax.jit(align, static_argnames="model")


def register(
    moving: Images | Volumes,
    fixed: Images | Volumes,
    *,
    model: MotionModel | None = None,
    grid: SearchGrid | RigidGrid | None = None,
    batch_size: int | None = None,
) -> Registration:
    """Aligns each moving image to the fixed image of its row: global search, then refinement.

    Images are searched over four mirrorings, rotation, scale and shift; volumes over left-right
    mirroring, rotation and shift.

    Args:
      moving: [n, s, s] or [n, d, h, w] real, any intensity scale.
      fixed: likewise, of the same shape.
      model: what the refinement may change; a similarity for images, rigid for volumes if None.
      grid: transformations of the global search, the defaults if None; refinement may leave it a
        little.
      batch_size: pairs on the device at a time; it does not change the result.

    Returns:
      The registration of all pairs; transformations are in pixels of these images.

    Raises:
      ValueError: if the shapes differ, or images are not square, or there is no pair, or the grid
        is for another dimension.
    """
    if moving.shape != fixed.shape or moving.ndim not in (3, 4):
        raise ValueError(
            f"moving {moving.shape} and fixed {fixed.shape} must both be [n, s, s] or both "
            "[n, d, h, w]; bring them to one size first, for example with "
            "data.preprocess.fit_to_size"
        )
    if moving.ndim == 3 and moving.shape[1] != moving.shape[2]:
        raise ValueError(
            f"images of {moving.shape[1]} x {moving.shape[2]} are not square; pad them first, for "
            "example with data.preprocess.fit_to_size"
        )
    if not len(moving):
        raise ValueError("there is no pair to register; n is 0")
    dims = moving.ndim - 1
    if grid is not None and isinstance(grid, RigidGrid) != (dims == 3):
        raise ValueError(f"{type(grid).__name__} is not the search of {dims}D images")
    batch_size = batch_size or _BATCH[dims]
    model = model or (MotionModel.SIMILARITY if dims == 2 else MotionModel.RIGID)
    parts = []
    if dims == 3:
        volume_grid = grid if isinstance(grid, RigidGrid) else RigidGrid()
        for a, b in _batches(batch_size, moving, fixed):
            normal = (zscore(x, spatial_dims=3) for x in (a, b))
            parts.append(_align(a, b, coarse_rigid(*normal, grid=volume_grid), model=model))
    else:
        # Refinement without scale keeps the scale of its start.
        unscaled = {"min_scale": 1.0, "max_scale": 1.0, "scales": 1}
        usual = SearchGrid(**unscaled) if model is MotionModel.RIGID else SearchGrid()
        image_grid = grid if isinstance(grid, SearchGrid) else usual
        starts = search(moving, fixed, grid=image_grid, batch_size=batch_size)
        for a, b, start in _batches(batch_size, moving, fixed, starts):
            first = grid_transform(start, grid=image_grid, size=moving.shape[-1])
            parts.append(_align(a, b, first, model=model))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(moving)], *parts)


def search(moving: Images, fixed: Images, *, grid: SearchGrid, batch_size: int = 32) -> np.ndarray:
    """Grid index int32 [n] of the best transformation of each of n >= 1 pairs; see `coarse`."""
    operator = device_operator(grid)
    batches = _batches(batch_size, moving, fixed)
    found = [coarse(zscore(a), zscore(b), operator, grid=grid)[0] for a, b in batches]
    return np.concatenate(found)[: len(moving)]


def _batches(batch_size: int, *columns: Images | np.ndarray) -> Iterator[list[jax.Array]]:
    """Batches of one shape: the last one begins again at the first row."""
    for first in range(0, len(columns[0]), batch_size):
        rows = np.arange(first, first + batch_size) % len(columns[0])
        yield [jnp.asarray(np.asarray(column)[rows]) for column in columns]
