"""Batched alignment of image pairs: mirroring, rotation, scale and shift.

Contract: `moving` and `fixed` are float [n, s, s], square, one row a pair. A transformation maps
centred pixel coordinates (y, x) of `fixed` to those of `moving`,

    x_moving = F (s R x_fixed + t),      F = diag(+-1, +-1),   R = [[c, -s], [s, c]],

so it says how the fixed image was zoomed by s, turned by R, moved by t and then mirrored to give
the moving one. Lengths are in pixels of the arrays given, angles in radians.

The search is global first, local second: the correlation inside a central disc is evaluated at
low resolution for every mirroring, rotation, scale and shift of a grid; from its maximum an
inverse-compositional Gauss-Newton iteration (Baker and Matthews, IJCV 56, 2004) minimises the
difference of the locally normalised images at growing resolution.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.typing import Array, Images, Scores

# Rows are (y, x): none, horizontal (left and right change places), vertical, both.
FLIP_SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], np.float32)
FLIP_NAMES = ("none", "horizontal", "vertical", "both")


@dataclasses.dataclass(frozen=True)
class SearchGrid:
    """The transformations that the global search tries, and the frame it looks at.

    `size` is the side of the low-resolution images, `radius` the disc's radius as a share of
    half of it; `max_shift` is a share of the side. The steps keep the error of the nearest grid
    point below about half a low-resolution pixel at the disc's edge.
    """

    size: int = 24
    radius: float = 0.8
    max_rotation_deg: float = 15.0
    rotations: int = 7
    min_scale: float = 0.85
    max_scale: float = 1.15
    scales: int = 5
    max_shift: float = 0.1

    @property
    def shift_pixels(self) -> int:
        """Largest shift in low-resolution pixels."""
        return int(np.ceil(self.max_shift * self.size))

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


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("flip", "linear", "shift"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Transform:
    """A batch of transformations: `flip` int [n]; `linear` [n, 2] is (s cos, s sin); `shift` [n, 2]."""

    flip: Array
    linear: Array
    shift: Array

    @property
    def rotation_deg(self) -> Array:
        """[n] degrees, counter-clockwise as seen on a screen (y points down)."""
        return jnp.rad2deg(jnp.arctan2(self.linear[:, 1], self.linear[:, 0]))

    @property
    def scale(self) -> Array:
        """[n] zoom of the moving image relative to the fixed one."""
        return jnp.hypot(self.linear[:, 0], self.linear[:, 1])

    def resized(self, factor: float) -> "Transform":
        """The same transformation for images whose side is `factor` times as long."""
        return Transform(flip=self.flip, linear=self.linear, shift=self.shift * factor)


def shrink(images: Images, size: int) -> jax.Array:
    """Antialiased resize of [n, s, s] to [n, size, size]."""
    images = jnp.asarray(images, jnp.float32)
    return jax.image.resize(images, (images.shape[0], size, size), "linear", antialias=True)


def disc(grid: SearchGrid) -> np.ndarray:
    """Boolean [size, size]: the pixels that the global search compares."""
    axis = np.arange(grid.size) - (grid.size - 1) / 2
    return np.hypot(axis[:, None], axis[None, :]) <= grid.radius * grid.size / 2


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
    linear = jnp.stack([scale * jnp.cos(angle), scale * jnp.sin(angle)], -1)
    c, s = linear[:, :1], linear[:, 1:]
    # The grid moves first and turns afterwards: t = s R (shift).
    y, x = shifts[shift][:, :1], shifts[shift][:, 1:]
    moved = jnp.concatenate([c * y - s * x, s * y + c * x], -1)
    return Transform(flip=flip, linear=linear, shift=moved * (size / grid.size))


@functools.partial(jax.jit, static_argnames="grid")
def coarse(
    moving: Images, fixed: Images, operator: Array, *, grid: SearchGrid
) -> tuple[Array, Array]:
    """Best grid transformation of each pair by correlation inside the disc.

    Args:
      moving: [n, s, s].
      fixed: [n, s, s].
      operator: `pose_operator(grid)`.
      grid: the search grid.

    Returns:
      Flat grid indices int32 [n] and their correlations [n].
    """
    window = jnp.asarray(window_indices(grid))

    def one(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        low, reference = pair
        versions = posed(low[None], operator, grid=grid)[0]  # [4 poses, f * f]

        def at_shift(indices: Array) -> Array:
            pixels = versions[:, indices]
            centred = pixels - pixels.mean(1, keepdims=True)
            norm = jnp.sqrt(jnp.maximum((centred**2).sum(1), 1e-12))
            return (centred @ reference) / norm

        scores = jax.lax.map(at_shift, window).T.reshape(-1)
        best = jnp.argmax(scores)
        return best.astype(jnp.int32), scores[best]

    reference = disc_vectors(shrink(fixed, grid.size), grid=grid)
    return jax.lax.map(one, (shrink(moving, grid.size), reference))


def disc_vectors(low: Images, *, grid: SearchGrid) -> jax.Array:
    """[n, size, size] -> [n, p]: the disc's pixels, zero mean and unit norm (zeros if flat)."""
    rows, cols = np.nonzero(disc(grid))
    pixels = low[:, rows, cols]
    pixels = pixels - pixels.mean(1, keepdims=True)
    norm = jnp.sqrt((pixels**2).sum(1, keepdims=True))
    return jnp.where(norm > 1e-6, pixels / jnp.maximum(norm, 1e-6), 0.0)


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


def refine(moving: Images, fixed: Images, transform: Transform, *, iterations: int) -> Transform:
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
    gy, gx = jnp.gradient(fixed, axis=1), jnp.gradient(fixed, axis=2)
    # Derivatives by (log scale, angle, t_y, t_x): x -> s R x + t at the identity. Radians and
    # logarithms are multiplied by half the side so that all four have the unit of pixels.
    half = size / 2
    jacobian = jnp.stack([(gy * y + gx * x) / half, (gx * y - gy * x) / half, gy, gx], 1)
    jacobian = jacobian * weight[:, None]

    def step(_: int, current: Transform) -> Transform:
        warped, inside = resample(moving, current)
        mask = weight * inside
        total = jnp.maximum(mask.sum((1, 2), keepdims=True), 1.0)

        def normal(images: Array) -> tuple[Array, Array]:
            mean = (images * mask).sum((1, 2), keepdims=True) / total
            centred = (images - mean) * mask
            return centred, jnp.sqrt((centred**2).sum((1, 2), keepdims=True) / total + 1e-12)

        (a, std_a), (b, std_b) = normal(warped), normal(fixed)
        gain = (a * b).sum((1, 2), keepdims=True) / total / jnp.maximum(std_a**2, 1e-12)
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
    moving: Images, fixed: Images, start: Transform, *, levels: tuple[tuple[int, int], ...]
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


def align(moving: Images, fixed: Images, start: Array, *, grid: SearchGrid) -> Registration:
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
    operator = jnp.asarray(pose_operator(grid))
    parts = []
    for first in range(0, len(moving), batch_size):
        rows = np.arange(first, first + batch_size) % len(moving)
        a, b = (jnp.asarray(np.asarray(x)[rows], jnp.float32) for x in (moving, fixed))
        start, _ = coarse(a, b, operator, grid=grid)
        parts.append(_align(a, b, start, grid=grid))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(moving)], *parts)
