"""How alike the intensities of two volumes are: the voxel level of replica detection.

Contract: pairs are two arrays [n, d, h, w] of any real dtype and scale, row for row. Errors (MAE,
RMSE, PSNR) are of intensities that each volume's own minimum and maximum bring to [0, 1]; the
other measures do not depend on a linear change of intensity. All are symmetric but SSIM, whose
range is that of `fixed`. `ops.overlap` compares label maps.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops.intensity import rescale01, zscore
from deepssim_jax.ops.resample import gaussian_blur
from deepssim_jax.ops.ssim import ssim
from deepssim_jax.typing import Array, Scores, Volumes

BINS = 32
# Equal volumes have no error, and an infinite ratio helps nobody.
MAX_PSNR = 100.0
_SPACE = (1, 2, 3)
_SMOOTH, _BODY = 0.7, 32  # voxels; the blur that tells the body is this part of the longest side

# Every measure, and whether more of it means more alike.
MEASURES = {
    "body_ncc": True,
    "ncc": True,
    "ssim": True,
    "mutual_information": True,
    "psnr": True,
    "rmse": False,
    "mae": False,
}


@functools.partial(jax.tree_util.register_dataclass, data_fields=tuple(MEASURES), meta_fields=())
@dataclasses.dataclass(frozen=True)
class VolumeSimilarity:
    """Of n pairs, float32 [n] each.

    `body_ncc` is Pearson's correlation inside the body, of lightly smoothed volumes: an empty
    background agrees with any other, and noise with none. The body is what lies above the mean of the
    blurred `fixed`. `ncc` is Pearson's correlation of all voxels; `ssim` in 3D (`ops.ssim`) of z-scored
    volumes; `mutual_information` in nats; `psnr` in dB; `rmse` and `mae` in [0, 1].
    """

    body_ncc: Scores
    ncc: Scores
    ssim: Scores
    mutual_information: Scores
    psnr: Scores
    rmse: Scores
    mae: Scores


@jax.jit
def volume_similarity(moving: Volumes, fixed: Volumes) -> VolumeSimilarity:
    """All measures of each pair.

    Args:
      moving: [n, d, h, w].
      fixed: likewise, of the same shape; each axis has at least 7 voxels.

    Raises:
      ValueError: the shapes differ.
    """
    if moving.shape != fixed.shape or moving.ndim != 4:
        raise ValueError(
            f"moving {moving.shape} and fixed {fixed.shape} must both be [n, d, h, w]; bring them to "
            "one size first"
        )
    a, b = (rescale01(x, spatial_dims=3) for x in (moving, fixed))
    difference = a - b
    rmse = jnp.sqrt((difference**2).mean(_SPACE))
    x, y = (zscore(v, spatial_dims=3) for v in (moving, fixed))
    return VolumeSimilarity(
        body_ncc=_in_body(x, y),
        ncc=jnp.clip((x * y).mean(_SPACE), -1.0, 1.0),
        ssim=ssim(y, x, data_range="first", spatial_dims=3, reduction="none"),
        mutual_information=_mutual_information(a, b),
        psnr=jnp.minimum(-20 * jnp.log10(jnp.maximum(rmse, 1e-9)), MAX_PSNR),
        rmse=rmse,
        mae=jnp.abs(difference).mean(_SPACE),
    )


def _in_body(x: Array, y: Array) -> Array:
    """[n] correlation of z-scored volumes where the second one's body is."""
    wide = max(y.shape[1:]) / _BODY
    far = gaussian_blur(y, wide, radius=int(3 * wide + 0.5), spatial_dims=3)
    body = (far > 0).astype(jnp.float32)
    count = jnp.maximum(body.sum(_SPACE, keepdims=True), 1.0)
    fine = [gaussian_blur(v, _SMOOTH, radius=3, spatial_dims=3) for v in (x, y)]
    a, b = ((v - (v * body).sum(_SPACE, keepdims=True) / count) * body for v in fine)
    norm = jnp.sqrt((a * a).sum(_SPACE) * (b * b).sum(_SPACE))
    return jnp.clip((a * b).sum(_SPACE) / jnp.maximum(norm, 1e-9), -1.0, 1.0)


def _mutual_information(a: Array, b: Array) -> Array:
    """sum p(i, j) log(p(i, j) / p(i) p(j)) of a joint histogram of 32 x 32 equal bins of [0, 1]
    (Maes et al., IEEE TMI 16, 1997, eq. 3).
    """
    n, count = a.shape[0], int(np.prod(a.shape[1:]))
    i, j = (jnp.minimum((x * BINS).astype(jnp.int32), BINS - 1).reshape(n, -1) for x in (a, b))

    def joint(i: Array, j: Array) -> Array:
        return jnp.zeros(BINS * BINS).at[i * BINS + j].add(1.0).reshape(BINS, BINS) / count

    p = jax.vmap(joint)(i, j)
    independent = p.sum(1, keepdims=True) * p.sum(2, keepdims=True)
    ratio = jnp.where(p > 0, p / jnp.maximum(independent, 1e-30), 1.0)
    return jnp.maximum((p * jnp.log(ratio)).sum((1, 2)), 0.0)
