"""How well two aligned images agree, at three scales.

Contract: float [n, s, s] images in the same frame and a mask of where both have data. The score
joins three correlations, each blind to a gain and an offset of its region:

  broad   Pearson's correlation over the whole mask;
  middle  the structure term of SSIM (Wang et al., IEEE TIP 13, 2004, eq. 10) in 17 x 17 windows;
  fine    the same in 7 x 7 windows.

The local terms are averaged with weights that follow local contrast, because a flat region holds
nothing but noise. The three are joined by Fisher's transformation, tanh(mean(artanh(r))), which
gives equal steps near one an equal meaning. Noise lowers the fine term most, a local change the
middle one, another patient all three: together they separate what each alone confuses.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.typing import Array, Images

_FINE_RADIUS, _MIDDLE_RADIUS = 3, 8  # pixels at a side of 128
_BLUR_SIGMA = 0.7  # pixels: takes off interpolation's own loss of sharpness on either side
_STABILISER = 1e-3  # variances are relative to a z-scored image
_LIMIT = 1.0 - 1e-5  # artanh(1) is infinite; three parts above this are a perfect match


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("broad", "middle", "fine"), meta_fields=()
)
@dataclasses.dataclass(frozen=True)
class Agreement:
    """The three correlations of each pair, [n] each, in [-1, 1]."""

    broad: Array
    middle: Array
    fine: Array

    @property
    def score(self) -> Array:
        """Their Fisher mean, in [-1, 1]; 1 for an image with itself."""
        parts = jnp.stack([self.broad, self.middle, self.fine])
        mean = jnp.tanh(jnp.arctanh(jnp.clip(parts, -_LIMIT, _LIMIT)).mean(0))
        return jnp.where((parts >= _LIMIT).all(0), 1.0, mean)


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
    rows = jnp.einsum("oh,...hw->...ow", matrix, images)
    return jnp.einsum("...ow,pw->...op", rows, matrix)


def agreement(a: Images, b: Images, mask: Array) -> Agreement:
    """Correlation of `a` and `b` at three scales inside `mask`.

    Args:
      a: [n, s, s] float, about unit variance (z-scored).
      b: [n, s, s] float, likewise.
      mask: [n, s, s] bool or float: where both images have data.

    Returns:
      The three correlations of each pair. Regions without contrast do not count.
    """
    size = a.shape[-1]
    mask = mask.astype(jnp.float32)
    blur = _blur_band(size)
    a, b = (_both_ways(jnp.asarray(x), blur) for x in (a, b))
    total = jnp.maximum(mask.sum((1, 2), keepdims=True), 1.0)
    # Centring first keeps the one-pass variances below exact enough in float32.
    a = (a - (a * mask).sum((1, 2), keepdims=True) / total) * mask
    b = (b - (b * mask).sum((1, 2), keepdims=True) / total) * mask
    norm = jnp.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)))
    broad = (a * b).sum((1, 2)) / jnp.maximum(norm, 1e-9)
    fields = jnp.stack([mask, a, b, a * a, b * b, a * b])
    scale = size / 128
    middle = _local(fields, round(_MIDDLE_RADIUS * scale))
    fine = _local(fields, max(1, round(_FINE_RADIUS * scale)))
    return Agreement(broad=broad, middle=middle, fine=fine)


def _local(fields: Array, radius: int) -> Array:
    sums = _both_ways(fields, _band(fields.shape[-1], radius, 2))
    count = sums[0]
    mean_a, mean_b, aa, bb, ab = sums[1:] / jnp.maximum(sums[:1], 1.0)
    var_a = jnp.maximum(aa - mean_a**2, 0.0)
    var_b = jnp.maximum(bb - mean_b**2, 0.0)
    product = (var_a + _STABILISER) * (var_b + _STABILISER)
    structure = (ab - mean_a * mean_b + _STABILISER) / jnp.sqrt(product)
    weight = jnp.where(count > 0.5 * (2 * radius + 1) ** 2, (var_a * var_b) ** 0.25, 0.0)
    return (structure * weight).sum((1, 2)) / jnp.maximum(weight.sum((1, 2)), 1e-9)
