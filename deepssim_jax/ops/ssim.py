"""Structural similarity, with scikit-image's values.

Contract: images are real [n, h, w] or [n, h, w, c] (`spatial_dims=2`, channels averaged), volumes
[n, d, h, w] (`spatial_dims=3`). SSIM is Wang et al., IEEE TIP 13, 2004, eq. 13, with K1 0.01 and K2
0.03; "uniform" is a 7-wide window with sample covariance, "gaussian" sigma 1.5 cut at 5 pixels
with population covariance: `skimage.metrics.structural_similarity` with its defaults, and with
`gaussian_weights=True, sigma=1.5, use_sample_covariance=False`. Borders where the window does not
fit are left out.

The windows are applied as one small banded matrix product an axis, which is exact and fast on
every platform. Means are taken off first, so that float32 variances do not cancel.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.typing import Array, Images

Window = Literal["uniform", "gaussian"]
_K1, _K2 = 0.01, 0.03


@functools.cache
def _kernel(window: Window) -> np.ndarray:
    if window == "uniform":
        return np.full(7, 1 / 7)
    if window == "gaussian":
        weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
        return weights / weights.sum()
    raise ValueError(f"window {window!r} must be 'uniform' or 'gaussian'")


def _band(size: int, window: Window) -> np.ndarray:
    kernel = _kernel(window)
    if size < len(kernel):
        raise ValueError(
            f"an axis of {size} pixels is shorter than the {window} window of {len(kernel)}"
        )
    out = np.zeros((size - len(kernel) + 1, size), np.float32)
    for row in range(len(out)):
        out[row, row : row + len(kernel)] = kernel
    return out


def _filtered(images: Array, window: Window, spatial_dims: int) -> Array:
    """Weighted window means where the window fits; the last `spatial_dims` axes are space."""
    for axis in range(images.ndim - spatial_dims, images.ndim):
        band = jnp.asarray(_band(images.shape[axis], window))
        images = jnp.moveaxis(jnp.tensordot(images, band, axes=((axis,), (1,))), -1, axis)
    return images


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("centred", "offset", "mean", "variance", "extent"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class _Moments:
    """What SSIM needs of one side: images without their means, and windowed moments."""

    centred: Array
    offset: Array
    mean: Array
    variance: Array
    extent: Array  # [n] maximum - minimum


def _moments(images: Array, window: Window, spatial_dims: int) -> _Moments:
    axes = tuple(range(1, images.ndim))
    offset = images.mean(axes, keepdims=True)
    centred = images - offset
    mean = _filtered(centred, window, spatial_dims)
    variance = _correction(window, spatial_dims) * (
        _filtered(centred**2, window, spatial_dims) - mean**2
    )
    extent = images.max(axes) - images.min(axes)
    return _Moments(centred, offset, mean, variance, extent)


def _correction(window: Window, spatial_dims: int) -> float:
    points = 7**spatial_dims
    return points / (points - 1) if window == "uniform" else 1.0


def _similarity(a: _Moments, b: _Moments, extent: Array, window: Window, dims: int) -> Array:
    """SSIM maps of images in the same rows (or one row against many)."""
    lead = (slice(None),) + (None,) * dims
    c1, c2 = ((k * extent[lead]) ** 2 for k in (_K1, _K2))
    covariance = _correction(window, dims) * (
        _filtered(a.centred * b.centred, window, dims) - a.mean * b.mean
    )
    mean_a, mean_b = a.mean + a.offset, b.mean + b.offset
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (a.variance + b.variance + c2)
    return luminance * structure


def _as_batches(images: Images, spatial_dims: int) -> Array:
    images = jnp.asarray(images, jnp.float32)
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims {spatial_dims} must be 2 or 3")
    if images.ndim not in (spatial_dims + 1, spatial_dims + 2):
        raise ValueError(
            f"got {images.shape}, and {spatial_dims} spatial axes need [n, ...] with a leading "
            "batch axis and, at most, channels last"
        )
    return images


@functools.partial(jax.jit, static_argnames=("first", "window", "spatial_dims"))
def _ssim(
    a: Array, b: Array, extent: Array, *, first: bool, window: Window, spatial_dims: int
) -> Array:
    channels = a.shape[-1] if a.ndim == spatial_dims + 2 else None
    if channels:  # each channel is an image of its own

        def split(x: Array) -> Array:
            return jnp.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:-1])

        extent = (
            jnp.repeat((a.max(tuple(range(1, a.ndim))) - a.min(tuple(range(1, a.ndim)))), channels)
            if first
            else jnp.repeat(extent, channels)
        )
        a, b = split(a), split(b)
    x, y = _moments(a, window, spatial_dims), _moments(b, window, spatial_dims)
    extent = x.extent if first and not channels else extent
    maps = _similarity(x, y, extent, window, spatial_dims)
    values = maps.mean(tuple(range(1, maps.ndim)))
    return values.reshape(-1, channels).mean(1) if channels else values


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
      ValueError: shapes differ, an axis is shorter than the window, or data_range is not positive.
    """
    a, b = _as_batches(a, spatial_dims), _as_batches(b, spatial_dims)
    if a.shape != b.shape:
        raise ValueError(f"a {a.shape} and b {b.shape} must have the same shape")
    first = isinstance(data_range, str)
    if first and data_range != "first":
        raise ValueError(f"data_range {data_range!r} must be positive numbers or 'first'")
    if (
        not first
        and not isinstance(data_range, jax.core.Tracer)
        and (np.asarray(data_range) <= 0).any()
    ):
        raise ValueError(f"data_range {data_range} must be positive")
    extent = jnp.broadcast_to(jnp.asarray(0.0 if first else data_range, jnp.float32), (a.shape[0],))
    values = _ssim(a, b, extent, first=first, window=window, spatial_dims=spatial_dims)
    if reduction == "none":
        return values
    if reduction == "mean":
        return values.mean()
    raise ValueError(f"reduction {reduction!r} must be 'mean' or 'none'")


@functools.partial(jax.jit, static_argnames=("window", "spatial_dims"))
def _tile(
    real: _Moments, synthetic: _Moments, extent: Array, *, window: Window, spatial_dims: int
) -> Array:
    def row(item: tuple[_Moments, Array]) -> Array:
        one = jax.tree.map(lambda x: x[None], item[0])
        many = jnp.broadcast_to(item[1][None], (synthetic.extent.shape[0],))
        maps = _similarity(one, synthetic, many, window, spatial_dims)
        return maps.mean(tuple(range(1, maps.ndim)))

    return jax.lax.map(row, (real, extent))


def ssim_matrix(
    real: Images,
    synthetic: Images,
    *,
    data_range: float | Literal["first"] = "first",
    window: Window = "uniform",
    spatial_dims: int = 2,
    tile: int = 64,
) -> np.ndarray:
    """SSIM of every real with every synthetic image, streamed in tiles.

    What depends on one image is computed once per tile; per pair only the windowed cross moment
    remains.

    Args:
      real: [n, h, w] or [n, d, h, w].
      synthetic: [m, ...] of the same image shape.
      data_range: as for `ssim`; "first" is the real image's.
      window: "uniform" or "gaussian".
      spatial_dims: 2 or 3.
      tile: images of either side on the device at a time; it does not change the result.

    Returns:
      float32 [n_real, n_synthetic].
    """
    if real.shape[1:] != synthetic.shape[1:] or real.ndim != spatial_dims + 1:
        raise ValueError(
            f"real {real.shape} and synthetic {synthetic.shape} must be [n, ...] of one image shape "
            f"with {spatial_dims} axes"
        )
    make = jax.jit(_moments, static_argnames=("window", "spatial_dims"))
    out = np.zeros((len(real), len(synthetic)), np.float32)
    for i in range(0, len(real), tile):
        x = make(_rows(real, i, tile), window, spatial_dims)
        extent = x.extent if data_range == "first" else jnp.full(tile, data_range, jnp.float32)
        for j in range(0, len(synthetic), tile):
            y = make(_rows(synthetic, j, tile), window, spatial_dims)
            block = _tile(x, y, extent, window=window, spatial_dims=spatial_dims)
            out[i : i + tile, j : j + tile] = np.asarray(block)[
                : len(real) - i, : len(synthetic) - j
            ]
    return out


def _rows(images: Images, start: int, count: int) -> Array:
    """A tile of fixed length; the last one repeats its last image, so nothing compiles twice."""
    index = np.minimum(np.arange(start, start + count), len(images) - 1)
    return jnp.asarray(np.asarray(images)[index], jnp.float32)
