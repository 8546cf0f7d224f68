"""How well two aligned images agree: are they one scene, and was anything in it changed?

Contract: float [n, s, s] images in the same frame and a mask of where both have data. Two questions,
because neither answer follows from the other:

  structure  Windows of 7 x 7 are compared by their correlation r, each blind to a gain and an
             offset of its own. A pixel then holds -log(1 - r^2) / 2 of mutual information; its mean,
             weighted by local contrast, is turned back into a correlation, sqrt(1 - exp(-2 I))
             (Linfoot, Information and Control 1, 1957, eq. 8). Many windows that agree nearly
             perfectly count more than a region that does not agree at all, so a copy with a foreign
             patch stays a copy, and a look-alike, which agrees nowhere well, does not become one.
  unchanged  What the copy cannot explain of the original, window by window: the variance left after
             the best local gain and offset. Noise, blur and quantisation leave it everywhere, a
             changed structure in one place. So it is the worst window's excess over the median one
             that is measured, as a logarithm; once on plain intensities and once against the
             neighbourhood, which a bias field hardly reaches.

A copy that was made brighter or darker may have been cut off at the ends of its range, and what lay
beyond tells nothing of it. So where the copy is at its end, the original is cut off at the level that
it has where the copy is about to get there; what lies before that level, such as a spot that was not in
the original, stays and counts.

The score joins them: structure decides up to 0.8, and only a copy gains the rest by being unchanged.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products
from deepssim_jax.ops.intensity import local_zscore
from deepssim_jax.typing import Array, Images

_LIKE_RADIUS, _SAME_RADIUS = 3, 4  # pixels at a side of 128
_NEIGHBOURHOOD = 16  # the side is this many times the width of what a pixel is compared with
_BLUR_SIGMA = 1.0  # pixels: what a decoder or interpolation blurs is no change of structure
_STABILISER = 1e-3  # variances are relative to a z-scored image
_MOST = 1.0 - 1e-4  # r^2 that counts as perfect
_NOISE_FLOOR = 1e-2  # excess variance below this share of the image's is none
_WORST = 0.998  # quantile of the windows that stands for the worst one, so that a pixel does not
# Above this structure score nothing is gained: all of it is one scene.
_SURELY_LIKE = 0.95
# Logarithms of (noise / worst excess): at the first a change is plain, at the second none is seen.
_CHANGED, _UNCHANGED = -5.0, 3.0
_FOR_STRUCTURE = 0.8
# Shares of the copy's range: pixels so near to its end are at it, and those so near are about to be.
_AT_END, _NEAR_END = 0.007, 0.04


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("structure", "unchanged"), meta_fields=()
)
@dataclasses.dataclass(frozen=True)
class Agreement:
    """Of each pair, [n] each, in [0, 1]: the structure score, and where it is high the change score."""

    structure: Array
    unchanged: Array

    @property
    def score(self) -> Array:
        """Both together, in [0, 1]; 1 for an image with itself."""
        like = jnp.minimum(self.structure / _SURELY_LIKE, 1.0)
        # What is no copy cannot be an unchanged one: its change score means nothing.
        return like * (_FOR_STRUCTURE + (1 - _FOR_STRUCTURE) * self.unchanged * like**8)


@functools.cache
def _band(size: int, radius: int, stride: int) -> np.ndarray:
    """[size / stride, size] float32: sums over windows of 2 radius + 1, centred every `stride`."""
    centres = np.arange(stride // 2, size, stride)
    return (np.abs(centres[:, None] - np.arange(size)[None, :]) <= radius).astype(np.float32)


@functools.cache
def _blur_band(size: int) -> np.ndarray:
    reach = np.arange(size)
    weights = np.exp(-0.5 * ((reach[:, None] - reach[None, :]) / _BLUR_SIGMA) ** 2)
    weights[weights < 1e-3] = 0.0
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _both_ways(images: Array, band: np.ndarray) -> Array:
    """band @ image @ band^T; two small products beat a sliding sum on every platform."""
    matrix = jnp.asarray(band)
    rows = products.einsum("oh,...hw->...ow", matrix, images)
    return products.einsum("...ow,pw->...op", rows, matrix)


def _cut_off(a: Array, b: Array, core: Array) -> Array:
    """b [n, s, s] without what lies beyond the ends of a's range; see the module.

    Levels are those of the core, and are cut off everywhere: a blur carries over its border.
    """
    inside = core > 0
    top = jnp.where(inside, a, -jnp.inf).max((1, 2), keepdims=True)
    bottom = jnp.where(inside, a, jnp.inf).min((1, 2), keepdims=True)
    extent = jnp.maximum(top - bottom, 1e-9)
    for sign, end in ((1, top), (-1, bottom)):
        y = sign * b
        from_end = sign * (end - a) / extent
        at_end = from_end <= _AT_END
        soon = inside & ~at_end & (from_end <= _NEAR_END)
        count = soon.sum((1, 2), keepdims=True)
        level = jnp.where(soon, y, 0.0).sum((1, 2), keepdims=True) / jnp.maximum(count, 1)
        b = sign * jnp.where(at_end & (count > 0), jnp.minimum(y, level), y)
    return b


@dataclasses.dataclass(frozen=True)
class _Windows:
    """Local moments [n, s / 2, s / 2]: variances, covariance, and the share of data in a window."""

    var_a: Array
    var_b: Array
    covariance: Array
    share: Array

    @classmethod
    def of(cls, a: Array, b: Array, mask: Array, *, radius: int) -> "_Windows":
        total = jnp.maximum(mask.sum((1, 2), keepdims=True), 1.0)
        # Centring first keeps the one-pass variances below exact enough in float32.
        a = (a - (a * mask).sum((1, 2), keepdims=True) / total) * mask
        b = (b - (b * mask).sum((1, 2), keepdims=True) / total) * mask
        fields = jnp.stack([mask, a, b, a * a, b * b, a * b])
        band = jnp.asarray(_band(a.shape[-1], radius, 2)).T
        # Windows end up transposed, which no one asks about, and both products are fast.
        sums = products.matmul(jnp.swapaxes(products.matmul(fields, band), -1, -2), band)
        mean_a, mean_b, aa, bb, ab = sums[1:] / jnp.maximum(sums[:1], 1.0)
        return cls(
            var_a=jnp.maximum(aa - mean_a**2, 0.0),
            var_b=jnp.maximum(bb - mean_b**2, 0.0),
            covariance=ab - mean_a * mean_b,
            share=sums[0] / (2 * radius + 1) ** 2,
        )


def agreement(a: Images, b: Images, mask: Array, *, core: Array) -> Agreement:
    """Structure score and change score of `a`, the copy, and `b`, the original.

    Args:
      a: [n, s, s] float, about unit variance (z-scored).
      b: [n, s, s] float, likewise.
      mask: [n, s, s] bool or float: where both images have data.
      core: likewise, the part of it where a change counts: the rim of a copy holds whatever its
        maker filled it with.

    Returns:
      Both figures of each pair. Regions without contrast do not count.
    """
    size = a.shape[-1]
    mask, core = mask.astype(jnp.float32), core.astype(jnp.float32)
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    blur = _blur_band(size)
    plain = [_both_ways(x, blur) for x in (a, _cut_off(a, b, core))]
    local = [local_zscore(x, sigma=size / _NEIGHBOURHOOD) for x in plain]
    scale = size / 128
    radius = max(1, round(_LIKE_RADIUS * scale))
    like = _structure(_Windows.of(local[0], local[1], mask, radius=radius))
    radius = max(1, round(_SAME_RADIUS * scale))
    even = _evenness([_Windows.of(p, q, core, radius=radius) for p, q in (plain, local)])
    same = (even - _CHANGED) / (_UNCHANGED - _CHANGED)
    return Agreement(structure=like, unchanged=jnp.clip(same, 0.0, 1.0))


def _structure(windows: _Windows) -> Array:
    product = (windows.var_a + _STABILISER) * (windows.var_b + _STABILISER)
    structure = jnp.maximum(windows.covariance + _STABILISER, 0.0) ** 2 / product
    weight = jnp.where(windows.share > 0.5, (windows.var_a * windows.var_b) ** 0.25, 0.0)
    twice = -jnp.log1p(-jnp.minimum(structure, _MOST)) * weight
    mean = twice.sum((1, 2)) / jnp.maximum(weight.sum((1, 2)), 1e-9)
    # The windows' limit is the whole's: an image with itself reaches 1.
    return jnp.sqrt((1 - jnp.exp(-mean)) / _MOST)


def _evenness(views: list[_Windows]) -> Array:
    """The mean over plain intensities and those against the neighbourhood, [n]."""
    return jnp.stack([_log_evenness(windows) for windows in views]).mean(0)


def _log_evenness(windows: _Windows) -> Array:
    """log(noise / worst excess) of what the copy leaves unexplained, [n]."""
    n = len(windows.share)
    left = windows.var_b - windows.covariance**2 / jnp.maximum(windows.var_a, 1e-4)
    counts = (windows.share > 0.7).reshape(n, -1)
    values = jnp.where(counts, jnp.maximum(left, 0.0).reshape(n, -1), 0.0)
    median, worst = _quantiles(values, counts, (0.5, _WORST))
    found = jnp.log((median + _NOISE_FLOOR) / (worst - median + 1e-5))
    return jnp.where(counts.any(1), found, _CHANGED)


def _quantiles(values: Array, counts: Array, shares: tuple[float, ...]) -> Array:
    """[quantiles, n] of the values >= 0 [n, m] that count, by halving an interval.

    To 2^-24 of the largest value; a sort takes twenty times as long on a CPU.
    """
    wanted = jnp.asarray(shares)[:, None] * counts.sum(1)[None]

    def halve(step: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        del step
        low, high = bounds
        middle = (low + high) / 2
        below = ((values[None] <= middle[..., None]) & counts[None]).sum(2)
        enough = below >= wanted
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    top = jnp.broadcast_to(values.max(1), wanted.shape)
    return jax.lax.fori_loop(0, 24, halve, (jnp.zeros_like(top), top))[1]
