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

from deepssim_jax.ops import arguments, products, resample
from deepssim_jax.ops.batches import mapped
from deepssim_jax.ops.transform import FLIP_SIGNS, Transform, ellipsoid
from deepssim_jax.typing import Array, Images


def check_turns(max_rotation_deg: float, rotations: int, *, most: int) -> None:
    """Raises ValueError for rotations that no grid can hold."""
    arguments.number(max_rotation_deg, "max_rotation_deg", low=0, high=180, example=15)
    arguments.whole(rotations, "rotations", least=1, most=most)


@dataclasses.dataclass(frozen=True)
class SearchGrid:
    """The transformations that the global search tries, and the frame it looks at.

    `size` is the side of the low-resolution images; `high_pass` the width, in their pixels, of the
    blur that is taken off, so that details count and not the outline that all heads share;
    `radius` the disc's radius as a share of half of the side; `max_shift` a share of the side. The
    steps keep the error of the nearest grid point below about half a low-resolution pixel at the
    disc's edge.

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.SearchGrid(max_rotation_deg=30.0, rotations=13).max_rotation_deg
      30.0
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

    def __post_init__(self) -> None:
        """Raises ValueError for values that cannot work."""
        arguments.whole(self.size, "size", least=8, most=256)
        wide = {"low": 0, "high": self.size, "open_low": True}
        arguments.number(self.high_pass, "high_pass", **wide, example=3)
        arguments.number(self.radius, "radius", low=0.25, high=1, example=0.8)
        check_turns(self.max_rotation_deg, self.rotations, most=720)
        for name in ("min_scale", "max_scale"):
            arguments.number(getattr(self, name), name, low=0.25, high=4, example=1)
        if self.min_scale > self.max_scale:
            raise ValueError(
                f"min_scale {self.min_scale} must not be more than max_scale {self.max_scale}"
            )
        arguments.whole(self.scales, "scales", least=1, most=100)
        arguments.number(self.max_shift, "max_shift", low=0, high=0.5, example=0.1)

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
    return low - products.einsum("ij,njk,lk->nil", band, low, band)


def disc(grid: SearchGrid) -> np.ndarray:
    """Boolean [size, size]: the pixels that the global search compares."""
    return ellipsoid((grid.size, grid.size), radius=grid.radius)


@functools.cache
def _sampling(grid: SearchGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the frame of every pose is read, each [poses * f * f].

    First pixel of four (int32, flat) and the fractions along y and x (float32), clamped at the edge.
    """
    size, reach = grid.size, _box(grid)[1]
    axis = np.arange(reach[0], reach[1]) - (size - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    c, s = grid.poses[:, 1] * [np.cos(grid.poses[:, 0]), np.sin(grid.poses[:, 0])]
    c, s = c[:, None, None], s[:, None, None]
    rows, columns = (
        np.clip(place + (size - 1) / 2, 0, size - 1).ravel()
        for place in (c * y - s * x, s * y + c * x)
    )
    first = [np.minimum(place.astype(np.int32), size - 2) for place in (rows, columns)]
    fractions = [
        (place - low).astype(np.float32) for place, low in zip((rows, columns), first, strict=True)
    ]
    return first[0] * size + first[1], fractions[0], fractions[1]


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


@functools.cache
def mirrored_disc(grid: SearchGrid) -> np.ndarray:
    """Int32 [4, p]: which of the disc's pixels each mirroring puts at a pixel's place."""
    inside = disc(grid)
    number = np.full(inside.shape, -1, np.int32)
    number[inside] = np.arange(inside.sum())
    return np.stack([number[::y, ::x][inside] for y, x in FLIP_SIGNS.astype(int)])


@functools.cache
def mirrored_order(grid: SearchGrid) -> np.ndarray:
    """Int32 [4, poses * shifts]: flat grid indices in the order of unmirrored poses and shifts.

    A mirrored image that is turned by an angle is the image turned by the opposite angle, mirrored,
    and shifts turn with it. So entry [f, i] is the transformation that mirrors by f and then shows
    what transformation i, without mirroring, shows mirrored.
    """
    side = 2 * grid.shift_pixels + 1
    index = np.arange(grid.transformations, dtype=np.int32)
    index = index.reshape(4, grid.rotations, grid.scales, side, side)
    return np.stack(
        [part[:: y * x, :, ::y, ::x].ravel() for part, (y, x) in zip(index, FLIP_SIGNS.astype(int))]
    )


def posed(low: Images, *, grid: SearchGrid) -> jax.Array:
    """Every pose of low-resolution images [n, size, size], bilinear: [n, poses, f * f].

    The frame of side f is the disc's bounding box grown by the largest shift, so that a shift is a
    slice. What is read is known beforehand, which makes reading it cheap.
    """
    first, *fractions = _sampling(grid)
    down, right = (part[None] for part in fractions)
    flat = jnp.asarray(low).reshape(len(low), -1)

    def read(offset: int) -> Array:
        return jnp.take(flat, first + offset, axis=1, mode="clip")

    upper, lower = ((1 - right) * read(row) + right * read(row + 1) for row in (0, grid.size))
    return jnp.asarray((1 - down) * upper + down * lower).reshape(len(low), len(grid.poses), -1)


def grid_transform(index: Array, *, grid: SearchGrid, size: int) -> Transform:
    """The transformations of flat grid indices [n], for images of side `size`."""
    poses, shifts = jnp.asarray(grid.poses), jnp.asarray(grid.shifts, jnp.float32)
    flip, rest = jnp.divmod(index, len(grid.poses) * len(grid.shifts))
    pose, shift = jnp.divmod(rest, len(grid.shifts))
    angle, scale = poses[pose, 0], poses[pose, 1]
    c, s = scale * jnp.cos(angle), scale * jnp.sin(angle)
    matrix = jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], -2)
    # The grid moves first and turns afterwards: t = s R (shift).
    moved = products.einsum("nij,nj->ni", matrix, shifts[shift])
    return Transform(flip=flip, matrix=matrix, shift=moved * (size / grid.size))


@functools.partial(jax.jit, static_argnames="grid")
def candidates(moving: Images, fixed: Images, *, grid: SearchGrid) -> tuple[Array, Array]:
    """For each pair and every mirroring and scale the best rotation and shift, by correlation.

    Args:
      moving: [n, s, s].
      fixed: [n, s, s].
      grid: the search grid.

    Returns:
      Flat grid indices int32 [n, 4 * scales] and their correlations inside the disc.
    """
    reach, (low, high) = grid.shift_pixels, _box(grid)[0]
    mask = disc(grid)[low:high, low:high].astype(np.float32)
    everywhere = jnp.asarray(_shifted(mask, reach).T)  # [f * f, moves * moves]
    # Every scale to the front, and the rest in one axis.
    split = (4, grid.rotations, grid.scales, len(grid.shifts))
    order = np.moveaxis(mirrored_order(grid).reshape(split), 2, 1).reshape(4 * grid.scales, -1)

    def one(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        versions, reference = pair  # [poses, f * f], [d, d]
        # Mirroring the fixed image instead of the moving one leaves a quarter of the versions.
        mirrored = jnp.stack([reference[::y, ::x] for y, x in FLIP_SIGNS.astype(int)])
        found = products.einsum("pq,fmq->fpm", versions, _shifted(mirrored, reach))
        mean = products.matmul(versions, everywhere) / mask.sum()
        energy = products.matmul(versions**2, everywhere) - mask.sum() * mean**2
        # The reference has no mean, so that of a version drops out of the product.
        scores = found / jnp.sqrt(jnp.maximum(energy, 1e-12))[None]
        scores = jnp.moveaxis(scores.reshape(split), 2, 1).reshape(4 * grid.scales, -1)
        best = jnp.argmax(scores, axis=1)[:, None]
        index, score = (
            jnp.take_along_axis(x, best, axis=1)[:, 0] for x in (jnp.asarray(order), scores)
        )
        return index, score

    n = moving.shape[0]
    inside = disc_vectors(low_resolution(fixed, grid=grid), grid=grid)
    reference = jnp.zeros((n, *mask.shape)).at[:, *np.nonzero(mask)].set(inside)
    versions = posed(low_resolution(moving, grid=grid), grid=grid)
    return mapped(one, (versions, reference), side_by_side=32)


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
