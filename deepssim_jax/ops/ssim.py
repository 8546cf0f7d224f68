"""Structural similarity, with scikit-image's values.

Contract: images are real [n, h, w] or [n, h, w, c] (`spatial_dims=2`, channels averaged), volumes
[n, d, h, w] (`spatial_dims=3`). SSIM is Wang et al., IEEE TIP 13, 2004, eq. 13, with K1 0.01 and K2
0.03; "uniform" is a 7-wide window with sample covariance, "gaussian" sigma 1.5 cut at 5 pixels
with population covariance: `skimage.metrics.structural_similarity` with its defaults, and with
`gaussian_weights=True, sigma=1.5, use_sample_covariance=False`. Borders where the window does not
fit are left out.

Inside, images are the last axis: a window is then a sum of shifted slices along each axis, whose
innermost loop runs over images, which fills vector units on every platform. Means are taken off
first, so that float32 variances do not cancel.
"""

import collections
import dataclasses
import functools
from typing import Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import arguments, levels
from deepssim_jax.ops.batches import mapped
from deepssim_jax.ops.fusion import made_once
from deepssim_jax.typing import Array, Images

Window = Literal["uniform", "gaussian"]
_K1, _K2 = 0.01, 0.03
_LEAST_RANGE = 1e-15  # squares of less, or of more than its inverse, are lost in float32
_FAR = 64  # what lies so many times its range from zero is moved there first
_ROWS = 16  # real images of a tile
_HELD_BYTES = 1 << 29  # moments of the real side kept on the device


@functools.cache
def _kernel(window: Window) -> np.ndarray:
    if window == "uniform":
        return np.full(7, 1 / 7)
    if window == "gaussian":
        weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
        return weights / weights.sum()
    raise ValueError(f"window {window!r} must be 'uniform' or 'gaussian'")


def _filtered(window: Window, *factors: Array) -> Array:
    """Weighted window means of the product of one or two sets of images, where the window fits.

    All axes but the last are space. Axis after axis: a sum over 7 places of sums over 7 is 14
    additions a pixel, and 49 if the compiler joins them.
    """
    kernel = _kernel(window)
    shape = factors[-1].shape
    if min(shape[:-1]) < len(kernel):
        raise ValueError(
            f"images of {shape[:-1]} pixels have an axis shorter than the {window} window "
            f"of {len(kernel)}"
        )
    number = factors[-1][(0,) * len(shape)]
    *before, last = range(len(shape) - 1)
    for axis in before:
        factors = (made_once(functools.partial(_shifted, kernel, axis), number, *factors),)
    return _shifted(kernel, last, *factors)


def _shifted(kernel: np.ndarray, axis: int, *factors: Array) -> Array:
    """The window along an axis of a product, as a sum of shifted slices."""
    size = factors[-1].shape[axis] - len(kernel) + 1
    terms = []
    for start, weight in enumerate(kernel):
        parts = [jax.lax.slice_in_dim(x, start, start + size, axis=axis) for x in factors]
        terms.append(float(weight) * functools.reduce(jnp.multiply, parts))
    return functools.reduce(jnp.add, terms)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("centred", "mean", "centred_mean", "variance", "extent"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class _Moments:
    """What SSIM needs of one side: images without their means, and windowed moments."""

    centred: Array  # [..., n]
    mean: Array  # windowed, of the images as given
    centred_mean: Array
    variance: Array
    extent: Array  # [n] maximum - minimum


def _moments(images: Array, window: Window) -> _Moments:
    axes = tuple(range(images.ndim - 1))
    offset = images.mean(axes, keepdims=True)
    centred = images - offset
    mean = _filtered(window, centred)
    variance = _correction(window, len(axes)) * (_filtered(window, centred, centred) - mean**2)
    extent = images.max(axes) - images.min(axes)
    return _Moments(centred, mean + offset, mean, variance, extent)


def _correction(window: Window, spatial_dims: int) -> float:
    points = 7**spatial_dims
    return points / (points - 1) if window == "uniform" else 1.0


def _similarity(a: _Moments, b: _Moments, extent: Array, window: Window) -> Array:
    """Mean SSIM [n] of images in the same places, or of one `a` with every `b`."""
    dims = a.mean.ndim - 1
    c1, c2 = ((k * extent[(None,) * dims]) ** 2 for k in (_K1, _K2))
    covariance = _correction(window, dims) * (
        _filtered(window, a.centred, b.centred) - a.centred_mean * b.centred_mean
    )
    # Two quotients, not one of products: these hold fourth powers, which leave float32 where squares do not.
    levels = (2 * a.mean * b.mean + c1) / (a.mean**2 + b.mean**2 + c1)
    return _mean(levels * ((2 * covariance + c2) / (a.variance + b.variance + c2)))


def _mean(maps: Array) -> Array:
    """Mean over all axes but the last."""
    return jax.lax.platform_dependent(
        maps, cpu=_mean_by_product, default=lambda x: x.mean(tuple(range(x.ndim - 1)))
    )


def _mean_by_product(maps: Array) -> Array:
    """As products with ones in 128 parts.

    XLA's own reduction of leading axes is eight times slower on a CPU once it is fused; parts,
    because a long float32 sum loses digits.
    """
    flat = maps.reshape(-1, maps.shape[-1])
    count = len(flat)
    flat = jnp.pad(flat, ((0, -count % 128), (0, 0))).reshape(128, -1, flat.shape[1])
    ones = jnp.ones(flat.shape[:2], flat.dtype)
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("kr,krn->kn", ones, flat, precision=exact).sum(0) / count


def _as_batches(images: Images, name: str, spatial_dims: int) -> tuple[Array, Array]:
    """Images in float32, and what was taken off each, [n]."""
    shape = _shape_words(spatial_dims)
    images = arguments.real(
        images,
        name,
        shape=f"{shape} or {shape[:-1]}, c]",
        dims=(spatial_dims + 1, spatial_dims + 2),
    )
    return _narrow(arguments.finite_values(images, name))


def _narrow(images: Images) -> tuple[Array, Array]:
    """Images in float32, less their minima where float32 would round the picture, and these minima [n].

    They are taken off in the images' own type. Inside a program values have been rounded already.
    """
    if arguments.is_traced(images) or not levels.is_wide(images.dtype):
        return jnp.asarray(images, jnp.float32), jnp.zeros(len(images), jnp.float32)
    rest, base = np.empty(images.shape, np.float32), np.zeros(len(images), np.float32)
    for row, image in enumerate(np.asarray(images)):
        low = levels.far_minimum(image, times=_FAR)
        rest[row] = image if low is None else image - low
        base[row] = 0 if low is None else low
    return jnp.asarray(rest), jnp.asarray(base)


def _raised(found: _Moments, base: Array) -> _Moments:
    """The moments of images [..., n] from which `base` [n] was taken off."""
    return dataclasses.replace(found, mean=found.mean + base[(None,) * (found.mean.ndim - 1)])


def _shape_words(spatial_dims: int) -> str:
    arguments.whole(spatial_dims, "spatial_dims", least=2, most=3)
    return "[n, h, w]" if spatial_dims == 2 else "[n, d, h, w]"


def _check_extent(data_range: object, first: Images, name: str) -> None:
    """Refuses a range that is not positive; of "first", images without any."""
    if isinstance(data_range, str):
        if data_range != "first":
            raise ValueError(f"data_range {data_range!r} must be positive numbers or 'first'")
        arguments.varied(first, name, remedy="give data_range as a number: 'first' is its range")
    elif not arguments.is_traced(data_range):
        given = np.asarray(data_range)
        real = given.dtype.kind in "iuf"
        if not real or given.shape not in ((), (len(first),)) or not (given > 0).all():
            raise ValueError(
                f"data_range {data_range!r} must be a positive number, or one for each of the "
                f"{len(first)} images of {name}"
            )
        if not np.isfinite(given).all():
            raise ValueError(f"data_range {data_range!r} must be finite")
        if given.min(initial=1) < _LEAST_RANGE or given.max(initial=1) > 1 / _LEAST_RANGE:
            raise ValueError(
                f"data_range {data_range!r} must lie in [{_LEAST_RANGE:g}, {1 / _LEAST_RANGE:g}]; another "
                "unit of images and range does not change SSIM"
            )


@functools.partial(jax.jit, static_argnames=("first", "window", "spatial_dims"))
def _ssim(
    a: Array,
    b: Array,
    extent: Array,
    bases: tuple[Array, Array],
    *,
    first: bool,
    window: Window,
    spatial_dims: int,
) -> Array:
    count = a.shape[0]
    if first:
        axes = tuple(range(1, a.ndim))
        extent = a.max(axes) - a.min(axes)
    # Each channel is an image of its own; [n, ..., c] becomes [..., c n].
    channels = a.shape[-1] if a.ndim == spatial_dims + 2 else 1
    a, b = (jnp.moveaxis(x, 0, -1).reshape(*x.shape[1 : spatial_dims + 1], -1) for x in (a, b))
    x, y = (
        _raised(_moments(images, window), jnp.tile(base, channels))
        for images, base in zip((a, b), bases, strict=True)
    )
    values = _similarity(x, y, jnp.tile(extent, channels), window)
    return values.reshape(channels, count).mean(0)


def ssim(
    a: Images,
    b: Images,
    *,
    data_range: float | Array | Literal["first"],
    window: Window = "uniform",
    spatial_dims: int = 2,
    reduction: Literal["mean", "none"] = "mean",
) -> jax.Array:
    """Mean structural similarity of image pairs.

    Args:
      a: [n, h, w], [n, h, w, c] or [n, d, h, w].
      b: of the same shape.
      data_range: difference between the largest and smallest possible value; one for all or [n].
        "first" takes maximum - minimum of each `a`, as DeepSSIM's targets do; then SSIM is not
        symmetric.
      window: "uniform" or "gaussian".
      spatial_dims: 2 for images, 3 for volumes.
      reduction: "mean" over the pairs, or "none".

    Returns:
      A scalar, or [n]; at most 1, and 1 for an image with itself.

    Raises:
      ValueError: shapes differ, an axis is shorter than the window, data_range is not in [1e-15, 1e15], an
        image holds NaN or infinite values, or is a constant `a` with "first". Inside `jax.jit` the
        last three cannot be seen; such pairs are NaN there.

    Examples:
      >>> import numpy as np
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> float(ds.ssim(phantoms, phantoms, data_range=1.0))
      1.0
      >>> noisy = phantoms + np.random.default_rng(1).normal(0, 0.1, phantoms.shape)
      >>> ds.ssim(phantoms, noisy, data_range=1.0, reduction="none").shape
      (5,)
    """
    (a, base_a), (b, base_b) = _as_batches(a, "a", spatial_dims), _as_batches(b, "b", spatial_dims)
    if a.shape != b.shape:
        raise ValueError(f"a {a.shape} and b {b.shape} must have the same shape")
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction {reduction!r} must be 'mean' or 'none'")
    if reduction == "mean" and not len(a):
        raise ValueError("there is no pair to take the mean of; n is 0")
    _check_extent(data_range, a, "a")
    _kernel(window)
    if not len(a):
        return jnp.zeros(0)
    first = isinstance(data_range, str)
    extent = jnp.broadcast_to(jnp.asarray(0.0 if first else data_range, jnp.float32), (a.shape[0],))
    how = {"first": first, "window": window, "spatial_dims": spatial_dims}
    values = _ssim(a, b, extent, (base_a, base_b), **how)
    return values if reduction == "none" else values.mean()


moments = jax.jit(_moments, static_argnames="window")


@functools.partial(jax.jit, static_argnames="window")
def ssim_tile(real: _Moments, synthetic: _Moments, extent: Array, *, window: Window) -> Array:
    """SSIM [n, m] of all pairs of two sides that are on the device; `extent` [n] is the range."""

    def row(index: Array) -> Array:
        one = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, index, 1, x.ndim - 1), real)
        return _similarity(one, synthetic, extent[index][None], window)

    return mapped(row, jnp.arange(extent.shape[0]), side_by_side=4)


def ssim_matrix(
    real: Images,
    synthetic: Images,
    *,
    data_range: float | Literal["first"] = "first",
    window: Window = "uniform",
    spatial_dims: int = 2,
    tile: int | None = None,
) -> np.ndarray:
    """SSIM of every real with every synthetic image, streamed in tiles.

    What depends on one image is computed once; per pair only the windowed cross moment remains.

    Args:
      real: [n, h, w] or [n, d, h, w]; arrays or memory maps.
      synthetic: [m, ...] of the same image shape.
      data_range: as for `ssim`; "first" is the real image's.
      window: "uniform" or "gaussian".
      spatial_dims: 2 or 3.
      tile: synthetic images on the device at a time; it does not change the result. The best known
        if None.

    Returns:
      float32 [n_real, n_synthetic]: NumPy, or JAX inside `jax.jit`, where all images are on the device
      at once.

    Raises:
      ValueError: as for `ssim`, or `tile` is not positive.

    Examples:
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> similarity = ds.ssim_matrix(phantoms, phantoms[2:], data_range=1.0)
      >>> similarity.shape
      (5, 3)
      >>> similarity.argmax(0)  # the real image that each synthetic one is
      array([2, 3, 4])
    """
    shape = _shape_words(spatial_dims)
    real, synthetic = (
        arguments.finite_values(
            arguments.real(images, name, shape=shape, dims=(spatial_dims + 1,)), name
        )
        for name, images in (("real", real), ("synthetic", synthetic))
    )
    if real.shape[1:] != synthetic.shape[1:]:
        raise ValueError(
            f"real {real.shape} and synthetic {synthetic.shape} must be of one image shape"
        )
    if np.ndim(data_range):
        raise ValueError(f"data_range {data_range!r} must be one number, or 'first'")
    _check_extent(data_range, real, "real")
    _kernel(window)
    if tile is None:
        tile = _best_tile(int(np.prod(real.shape[1:])))
    tile = arguments.whole(tile, "tile", least=1)
    if arguments.is_traced(real, synthetic, data_range):
        x, y = (moments(_first_last(images), window) for images in (real, synthetic))
        extent = x.extent if isinstance(data_range, str) else jnp.full(len(real), data_range)
        return cast(np.ndarray, ssim_tile(x, y, extent, window=window))
    out = np.zeros((len(real), len(synthetic)), np.float32)
    held: dict[int, _Moments] = {}
    hold = len(real) * np.prod(real.shape[1:]) * 16 <= _HELD_BYTES
    waiting: collections.deque[tuple[int, int, Array]] = collections.deque()

    def fetch() -> None:
        i, j, block = waiting.popleft()
        out[i : i + _ROWS, j : j + tile] = np.asarray(block)[: len(real) - i, : len(synthetic) - j]

    for j in range(0, len(synthetic), tile):
        y = _moments_of(synthetic, j, tile, window)
        for i in range(0, len(real), _ROWS):
            x = held.get(i) or _moments_of(real, i, _ROWS, window)
            if hold:
                held[i] = x
            extent = x.extent if data_range == "first" else jnp.full(_ROWS, data_range, jnp.float32)
            waiting.append((i, j, ssim_tile(x, y, extent, window=window)))
            if len(waiting) > 2:  # the next tile is read and queued while one is computed
                fetch()
    while waiting:
        fetch()
    return out


def _best_tile(pixels: int) -> int:
    """Images side by side: a CPU's caches hold few, the lanes of accelerators want many."""
    if jax.default_backend() == "cpu":
        return 32 if pixels <= 1 << 15 else 16
    return 128 if pixels <= 1 << 17 else 16


def _first_last(images: Images) -> Array:
    """[n, ...] to [..., n]."""
    return jnp.moveaxis(jnp.asarray(images, jnp.float32), 0, -1)


def _moments_of(images: Images, start: int, count: int, window: Window) -> _Moments:
    """Those of a tile [..., count]; the last one repeats its last image, so nothing compiles twice."""
    rows = np.minimum(np.arange(count), len(images) - start - 1)
    part, base = _narrow(images[start : start + count])
    return _raised(moments(jnp.moveaxis(part[rows], 0, -1), window), base[rows])
