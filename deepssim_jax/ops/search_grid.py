"""The global search for an alignment: every transformation of a grid, as a matrix product.

Contract: images are float [n, s, s], square; transformations are the similarities of
`ops.transform`. Grid indices are flat, in the order mirroring, pose (rotation, scale), shift.
"""

import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import resample
from deepssim_jax.ops.transform import FLIP_SIGNS, Transform, ellipsoid
from deepssim_jax.typing import Array, Images


@dataclasses.dataclass(frozen=True)
class SearchGrid:
    """The transformations that the global search tries, and the frame it looks at.

    `size` is the side of the low-resolution images; `high_pass` the width, in their pixels, of the
    blur that is taken off, so that details count and not the outline that all heads share;
    `radius` the disc's radius as a share of half of the side; `max_shift` a share of the side. The
    steps keep the error of the nearest grid point below about half a low-resolution pixel at the
    disc's edge.
    """

    size: int = 32
    high_pass: float = 3.0
    radius: float = 0.8
    max_rotation_deg: float = 15.0
    rotations: int = 7
    min_scale: float = 0.85
    max_scale: float = 1.15
    scales: int = 5
    max_shift: float = 0.1

    @property
    def key(self) -> str:
        """Eight hexadecimal digits that name this grid in files."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:8]

    @property
    def shift_pixels(self) -> int:
        """Largest shift in low-resolution pixels."""
        return int(self.max_shift * self.size)

    @property
    def poses(self) -> np.ndarray:
        """[p, 2] float32: angle in radians and scale of each pose."""
        angles = np.deg2rad(
            np.linspace(-self.max_rotation_deg, self.max_rotation_deg, self.rotations)
        )
        scales = np.geomspace(self.min_scale, self.max_scale, self.scales)
        return (
            np.stack(np.meshgrid(angles, scales, indexing="ij"), -1)
            .reshape(-1, 2)
            .astype(np.float32)
        )

    @property
    def shifts(self) -> np.ndarray:
        """[m, 2] int: every (y, x) shift in low-resolution pixels."""
        one = np.arange(-self.shift_pixels, self.shift_pixels + 1)
        return np.stack(np.meshgrid(one, one, indexing="ij"), -1).reshape(-1, 2)

    @property
    def transformations(self) -> int:
        """How many transformations the grid holds, mirrorings included."""
        return len(FLIP_SIGNS) * len(self.poses) * len(self.shifts)


def low_resolution(images: Images, *, grid: SearchGrid) -> jax.Array:
    """What the global search compares: [n, s, s] shrunk to [n, size, size], without slow changes."""
    low = resample.resize(jnp.asarray(images, jnp.float32), (grid.size, grid.size))
    band = jnp.asarray(resample.blur_matrix(grid.size, grid.high_pass))
    return low - jnp.einsum("ij,njk,lk->nil", band, low, band)


def disc(grid: SearchGrid) -> np.ndarray:
    """Boolean [size, size]: the pixels that the global search compares."""
    return ellipsoid((grid.size, grid.size), radius=grid.radius)


@functools.cache
def pose_operator(grid: SearchGrid) -> np.ndarray:
    """Float32 [size * size, poses * f * f]: bilinear sampling of every pose as one matrix.

    Multiplying flattened images by it turns and zooms each of them in all poses; the frame of
    side f is the disc's bounding box grown by the largest shift, so that a shift is a slice.
    Rotating by a matrix product costs more arithmetic than gathering, and is faster on every
    platform that has fast products.
    """
    size, reach = grid.size, _box(grid)[1]
    axis = np.arange(reach[0], reach[1]) - (size - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    operator = np.zeros((size * size, len(grid.poses), y.size), np.float32)
    for pose, (angle, scale) in enumerate(grid.poses):
        c, s = scale * np.cos(angle), scale * np.sin(angle)
        rows = np.clip(c * y - s * x + (size - 1) / 2, 0, size - 1).ravel()
        cols = np.clip(s * y + c * x + (size - 1) / 2, 0, size - 1).ravel()
        r0 = np.minimum(rows.astype(int), size - 2)
        c0 = np.minimum(cols.astype(int), size - 2)
        fr, fc = rows - r0, cols - c0
        out = np.arange(y.size)
        for dr, dc, weight in (
            (0, 0, (1 - fr) * (1 - fc)),
            (0, 1, (1 - fr) * fc),
            (1, 0, fr * (1 - fc)),
            (1, 1, fr * fc),
        ):
            operator[(r0 + dr) * size + c0 + dc, pose, out] = weight
    return operator.reshape(size * size, -1)


@functools.lru_cache(maxsize=2)
def device_operator(grid: SearchGrid) -> jax.Array:
    """`pose_operator` on the device, kept: it is larger than most batches of images."""
    return jnp.asarray(pose_operator(grid))


def _box(grid: SearchGrid) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and one-past-last row of the disc, and of the disc grown by the largest shift."""
    rows = np.flatnonzero(disc(grid).any(1))
    low, high = int(rows[0]), int(rows[-1]) + 1
    return (low, high), (low - grid.shift_pixels, high + grid.shift_pixels)


@functools.cache
def window_indices(grid: SearchGrid) -> np.ndarray:
    """Int32 [shifts, p]: where the disc's p pixels lie in the grown frame, for every shift."""
    (low, high), (first, last) = _box(grid)
    frame = last - first
    rows, cols = np.nonzero(disc(grid)[low:high, low:high])
    rows, cols = rows + low - first, cols + low - first
    y, x = grid.shifts[:, :1] + rows[None, :], grid.shifts[:, 1:] + cols[None, :]
    return (y * frame + x).astype(np.int32)


def flipped(images: Images) -> jax.Array:
    """[n, s, s] -> [n, 4, s, s]: the four mirrorings, in the order of `FLIP_NAMES`."""
    images = jnp.asarray(images)
    return jnp.stack(
        [images, images[:, :, ::-1], images[:, ::-1, :], images[:, ::-1, ::-1]], axis=1
    )


def posed(low: Images, operator: Array, *, grid: SearchGrid) -> jax.Array:
    """Every mirroring and pose of low-resolution images.

    Args:
      low: [n, size, size].
      operator: `pose_operator(grid)`; an argument so that it is no constant of each program.
      grid: the search grid.

    Returns:
      [n, 4 * poses, f * f], not normalised.
    """
    n = low.shape[0]
    images = flipped(low).reshape(n * 4, grid.size * grid.size)
    return (images @ operator).reshape(n, 4 * len(grid.poses), -1)


def grid_transform(index: Array, *, grid: SearchGrid, size: int) -> Transform:
    """The transformations of flat grid indices [n], for images of side `size`."""
    poses, shifts = jnp.asarray(grid.poses), jnp.asarray(grid.shifts, jnp.float32)
    flip, rest = jnp.divmod(index, len(grid.poses) * len(grid.shifts))
    pose, shift = jnp.divmod(rest, len(grid.shifts))
    angle, scale = poses[pose, 0], poses[pose, 1]
    c, s = scale * jnp.cos(angle), scale * jnp.sin(angle)
    matrix = jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], -2)
    # The grid moves first and turns afterwards: t = s R (shift).
    moved = jnp.einsum("nij,nj->ni", matrix, shifts[shift])
    return Transform(flip=flip, matrix=matrix, shift=moved * (size / grid.size))


@functools.partial(jax.jit, static_argnames="grid")
def candidates(
    moving: Images, fixed: Images, operator: Array, *, grid: SearchGrid
) -> tuple[Array, Array]:
    """For each pair and every mirroring and scale the best rotation and shift, by correlation.

    Args:
      moving: [n, s, s].
      fixed: [n, s, s].
      operator: `pose_operator(grid)`.
      grid: the search grid.

    Returns:
      Flat grid indices int32 [n, 4 * scales] and their correlations inside the disc.
    """
    reach = grid.shift_pixels
    (low, high), (first, last) = _box(grid)
    frame, angles, scales, moves = last - first, grid.rotations, grid.scales, 2 * reach + 1
    mask = disc(grid)[low:high, low:high].astype(np.float32)
    everywhere = jnp.asarray(_shifted(mask, reach).T)  # [f * f, moves * moves]

    def one(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        versions, reference = pair  # [poses, f * f], [d, d]
        # Mirroring the fixed image instead of the moving one leaves a quarter of the versions:
        # (F moving) turned by a is moving turned by a or -a, mirrored, and shifts turn with it.
        mirrored = jnp.stack(
            [reference, reference[:, ::-1], reference[::-1], reference[::-1, ::-1]]
        )
        products = jnp.einsum("pq,fmq->fpm", versions, _shifted(mirrored, reach))
        mean = versions @ everywhere / mask.sum()
        energy = (versions**2) @ everywhere - mask.sum() * mean**2
        # The reference has no mean, so that of a version drops out of the product.
        scores = products / jnp.sqrt(jnp.maximum(energy, 1e-12))[None]
        scores = scores.reshape(4, angles, scales, moves, moves)
        scores = jnp.stack(
            [
                scores[0],
                scores[1, ::-1, :, :, ::-1],
                scores[2, ::-1, :, ::-1, :],
                scores[3, :, :, ::-1, ::-1],
            ]
        )
        index = np.arange(scores.size, dtype=np.int32).reshape(scores.shape)
        # Scale to the front, and the rest in one axis.
        scores = jnp.moveaxis(scores, 2, 1).reshape(4 * scales, -1)
        index = jnp.asarray(np.moveaxis(index, 2, 1).reshape(4 * scales, -1))
        best = jnp.argmax(scores, axis=1)[:, None]
        found = [jnp.take_along_axis(x, best, axis=1)[:, 0] for x in (index, scores)]
        return found[0], found[1]

    n = moving.shape[0]
    inside = disc_vectors(low_resolution(fixed, grid=grid), grid=grid)
    reference = jnp.zeros((n, *mask.shape)).at[:, *np.nonzero(mask)].set(inside)
    flat = low_resolution(moving, grid=grid).reshape(n, -1)
    versions = (flat @ operator).reshape(n, len(grid.poses), frame * frame)
    return jax.lax.map(one, (versions, reference))


def _shifted(small: Array | np.ndarray, reach: int) -> Array:
    """[..., d, d] -> [..., moves * moves, f * f]: in a frame grown by `reach`, at every shift."""
    side, moves = small.shape[-1], 2 * reach + 1
    pad = [(0, 0)] * (small.ndim - 2) + [(2 * reach, 2 * reach)] * 2
    wide, frame = jnp.pad(small, pad), side + 2 * reach
    parts = [
        wide[..., 2 * reach - y : 2 * reach - y + frame, 2 * reach - x : 2 * reach - x + frame]
        for y in range(moves)
        for x in range(moves)
    ]
    return jnp.stack(parts, axis=-3).reshape(*small.shape[:-2], moves * moves, frame * frame)


def disc_vectors(low: Images, *, grid: SearchGrid) -> jax.Array:
    """[n, size, size] -> [n, p]: the disc's pixels, zero mean and unit norm (zeros if flat)."""
    rows, cols = np.nonzero(disc(grid))
    pixels = low[:, rows, cols]
    pixels = pixels - pixels.mean(1, keepdims=True)
    norm = jnp.sqrt((pixels**2).sum(1, keepdims=True))
    return jnp.where(norm > 1e-6, pixels / jnp.maximum(norm, 1e-6), 0.0)
