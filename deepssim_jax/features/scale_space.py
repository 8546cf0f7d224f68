"""Gaussian and difference-of-Gaussians pyramids of contrast-normalised images.

Contract: images are float32 [n, s, s] in [0, 1] on a square canvas, s a multiple of 16; the
outermost pixels continue beyond the border. Every operation commutes with the eight symmetries of
the square. Positions are in pixels of the canvas, pixel centres at whole numbers; pixel p of an octave lies
at (p + 1/2) step - 1/2 of the canvas.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops.products import einsum
from deepssim_jax.typing import Array

LEVELS = 3  # detection levels an octave (Lowe, IJCV 60, 2004, section 3.2)
_BASE = 1.6  # blur of an octave's first level, in its own pixels
_CAMERA = 0.5  # blur that an image is taken to have, in its own pixels
# Contrast is judged against a neighbourhood of this width in pixels of a canvas of 256 ...
_NEIGHBOURHOOD = 16 / 256
# ... and against this part of the full range, which keeps noise on a flat ground small.
_FLOOR = 0.02
_GAIN = 0.25
# Noise above _CLEAN is blurred away, by so many pixels of a canvas of 256 for each unit of it.
_CLEAN, _BLUR_PER_NOISE, _MOST_BLUR, _LEAST_BLUR = 0.03, 30.0, 3.0, 0.1


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("gaussians", "differences"),
    meta_fields=("step", "sigmas"),
)
@dataclasses.dataclass(frozen=True)
class Octave:
    """One octave: LEVELS + 3 `gaussians` and their LEVELS + 2 `differences`, each [n, h, w].

    `step` is the distance of its pixels in pixels of the canvas, `sigmas` the blur of each Gaussian in
    its own pixels.
    """

    gaussians: tuple[Array, ...]
    differences: tuple[Array, ...]
    step: float
    sigmas: tuple[float, ...]


def without_noise(images: Array, content: Array) -> Array:
    """Images [n, s, s] blurred by as much as their noise asks for; most are left as they are.

    Contrast normalisation takes noise for contrast, so strong noise has to go before. It is judged by
    the median second difference of 2 x 2 means (after Immerkaer, CVIU 64, 1996), which for clean
    pictures of nine kinds stays below 0.03, and for noise of deviation 0.2 lies above 0.07.

    Args:
      images: float32 on [0, 1].
      content: float32 [n, 2], the rows and columns that hold the image.
    """
    small = _halve(images)
    inner = small[:, 1:-1, 1:-1]
    around = small[:, :-2, 1:-1] + small[:, 2:, 1:-1] + small[:, 1:-1, :-2] + small[:, 1:-1, 2:]
    second = jnp.abs(4 * inner - around) / math.sqrt(20)
    rows = jnp.abs(jnp.arange(inner.shape[1]) - (inner.shape[1] - 1) / 2)[None]
    inside = [rows < content[:, axis, None] / 4 - 2 for axis in (0, 1)]
    mask = inside[0][:, :, None] & inside[1][:, None, :]
    noise = 1.4826 * _median(second, mask)
    sigma = jnp.clip(_BLUR_PER_NOISE * (noise - _CLEAN), 0.0, _MOST_BLUR)
    sigma = (sigma * (images.shape[-1] / 256))[:, None, None]
    place = jnp.arange(images.shape[-1], dtype=jnp.float32)
    squares = ((place[:, None] - place[None, :]) ** 2)[None]
    weights = jnp.exp(-squares / (2 * jnp.maximum(sigma, 1e-3) ** 2))
    weights /= weights.sum(-1, keepdims=True)
    blurred = einsum("nij,njk,nlk->nil", weights, images, weights)
    return jnp.where(sigma > _LEAST_BLUR, blurred, images)


def _median(values: Array, mask: Array) -> Array:
    """[n]: that of the values >= 0 [n, h, w] in the mask, by halving an interval; no sort."""
    half = mask.sum((1, 2)) / 2

    def halve(step: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        del step
        low, high = bounds
        middle = (low + high) / 2
        enough = ((values <= middle[:, None, None]) & mask).sum((1, 2)) >= half
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    start = jnp.zeros_like(half), jnp.where(mask, values, 0.0).max((1, 2))
    return jax.lax.fori_loop(0, 16, halve, start)[1]


def normalise_contrast(images: Array) -> Array:
    """(x - m) / (s + 0.02) / 4 with m and s the local mean and deviation; float32 [n, s, s].

    What gamma, windowing, equalisation or a bias field hardly change.
    """
    side = images.shape[-1]
    coarse = _halve(_halve(images))
    matrix = jnp.asarray(_blur_matrix(side // 4, side * _NEIGHBOURHOOD / 4))

    def local_mean(x: Array) -> Array:
        return einsum("ij,njk,lk->nil", matrix, x, matrix)

    mean = local_mean(coarse)
    variance = local_mean(_halve(_halve(images**2))) - mean**2
    deviation = jnp.sqrt(jnp.maximum(variance, 0.0))
    mean, deviation = (_double(_double(x)) for x in (mean, deviation))
    return _GAIN * (images - mean) / (deviation + _FLOOR)


def build(images: Array, *, octaves: int) -> list[Octave]:
    """The pyramid of contrast-normalised images [n, s, s]; the first octave has twice their pixels."""
    sigma = _BASE
    level = _blur(_double(images), _half_kernel(math.sqrt(_BASE**2 - (2 * _CAMERA) ** 2)))
    out, step = [], 0.5
    for _ in range(octaves):
        sigmas = [sigma * 2 ** (i / LEVELS) for i in range(LEVELS + 3)]
        gaussians = [level, *_coarser(level, sigmas)]
        differences = [b - a for a, b in zip(gaussians, gaussians[1:])]
        out.append(Octave(tuple(gaussians), tuple(differences), step, tuple(sigmas)))
        level, step = _halve(gaussians[LEVELS]), 2 * step
        # The mean of two pixels is a blur of its own, with variance 1/4.
        sigma = math.sqrt(sigmas[LEVELS] ** 2 + 0.25) / 2
    return out


def _halve(x: Array) -> Array:
    """Means of 2 x 2 pixels."""
    rows = x[..., ::2, :] + x[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def _double(x: Array) -> Array:
    """Linear interpolation at twice the pixels."""
    for axis in (-2, -1):
        first, last = _edges(x, 1, axis)
        n = x.shape[axis]
        wide = jnp.concatenate([first, x, last], axis)
        before, here, after = (jax.lax.slice_in_dim(wide, i, i + n, axis=axis) for i in range(3))
        pair = jnp.stack(
            [0.75 * here + 0.25 * before, 0.75 * here + 0.25 * after], axis % x.ndim + 1
        )
        x = pair.reshape(*(2 * n if i == axis % x.ndim else s for i, s in enumerate(x.shape)))
    return x


def _edges(x: Array, count: int, axis: int) -> tuple[Array, Array]:
    """The first and the last slice along an axis, `count` times each."""
    first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
    last = jax.lax.slice_in_dim(x, x.shape[axis] - 1, x.shape[axis], axis=axis)
    return (jnp.repeat(first, count, axis), jnp.repeat(last, count, axis))


def _coarser(level: Array, sigmas: list[float]) -> Array:
    """The levels after the first, float32 [LEVELS + 2, n, h, w]; `sigmas` are those of all.

    A loop: unrolled, XLA blurs again wherever a level is read, and takes long to compile.
    """
    added = [math.sqrt(after**2 - before**2) for before, after in zip(sigmas, sigmas[1:])]
    one_sided = [_half_kernel(sigma) for sigma in added]
    longest = max(map(len, one_sided))
    weights = np.stack([np.pad(half, (0, longest - len(half))) for half in one_sided])

    def blur(before: Array, half: Array) -> tuple[Array, Array]:
        after = _blur(before, half)
        return after, after

    return jax.lax.scan(blur, level, jnp.asarray(weights))[1]


def _blur(x: Array, half: Array | np.ndarray) -> Array:
    """A kernel along both axes, as a sum of shifted images: XLA makes one loop of it.

    Args:
      x: float32 [n, h, w].
      half: the kernel's middle weight, and then that of each distance.
    """
    radius = len(half) - 1
    for axis in (-2, -1):
        n = x.shape[axis]
        first, last = _edges(x, radius, axis)
        # Written out: taken into the loop, each of the shifts would ask where the border lies.
        wide = jax.lax.optimization_barrier(jnp.concatenate([first, x, last], axis))
        part = functools.partial(jax.lax.slice_in_dim, wide, axis=axis)
        out = half[0] * part(radius, radius + n)
        # Equal distances are added first, so that a mirrored image gives the mirrored bits.
        for d in range(1, radius + 1):
            out += half[d] * (part(radius - d, radius - d + n) + part(radius + d, radius + d + n))
        x = out
    return x


def _half_kernel(sigma: float) -> np.ndarray:
    """A Gaussian from its middle on, float32; the whole of it, with the other half, sums to one."""
    weights = _kernel(sigma)
    return np.asarray(weights[len(weights) // 2 :], np.float32)


def _kernel(sigma: float) -> list[float]:
    radius = math.ceil(3 * sigma)
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return (weights / weights.sum()).tolist()


def _blur_matrix(side: int, sigma: float) -> np.ndarray:
    """float32 [side, side]: a Gaussian beyond whose border the outermost pixel continues."""
    weights = _kernel(sigma)
    radius = len(weights) // 2
    out = np.zeros((side, side), np.float32)
    for row in range(side):
        for offset, weight in enumerate(weights, -radius):
            out[row, min(max(row + offset, 0), side - 1)] += weight
    return out
