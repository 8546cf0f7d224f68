"""Volumes embedded whole, by a network for volumes, or as slices by one for images.

Contract: volumes are real [n, d, h, w]. For a network for images four slices in each of three
planes, from the middle half of the volume, go through it; a volume's row is their embeddings side by
side, so that the cosine of two volumes is the mean of the cosines of slices in the same places.
float32, unit norm.
"""

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.nn import encoder as encoders
from deepssim_jax.ops.resample import resize
from deepssim_jax.typing import Array, Volumes

SLICES = 4
_LOW, _HIGH = 0.28, 0.72
_SIDE = 64  # pixels of a slice; half of what images get, for there are twelve of them
_BATCH = 8


@jax.jit
def _slices(volumes: Array) -> Array:
    """[n, d, h, w] to [3 slices n, side, side]."""
    volumes = jnp.asarray(volumes, jnp.float32)
    out = []
    for axis in (1, 2, 3):
        places = np.linspace(_LOW, _HIGH, SLICES) * (volumes.shape[axis] - 1)
        chosen = jnp.take(volumes, np.round(places).astype(int), axis=axis)
        flat = jnp.moveaxis(chosen, axis, 1).reshape(-1, *np.delete(volumes.shape[1:], axis - 1))
        out.append(flat if flat.shape[1:] == (_SIDE, _SIDE) else resize(flat, (_SIDE, _SIDE)))
    return jnp.concatenate(out)


def embed_volumes(encoder: encoders.Encoder, volumes: Volumes) -> np.ndarray:
    """Embeds volumes.

    Args:
      encoder: from `load_encoder`.
      volumes: [n, d, h, w], any real type and intensity scale.

    Returns:
      float32, rows of unit norm: [n, d] by a network for volumes, [n, 12 d] by one for images.
    """
    if encoder.spec.backbone.space == 3:
        return encoders.embed(encoder, volumes, batch_size=_BATCH)
    out = []
    for first in range(0, len(volumes), _BATCH):
        rows = np.resize(np.arange(first, min(first + _BATCH, len(volumes))), _BATCH)
        slices = _slices(jnp.asarray(volumes[rows]))
        found = np.asarray(encoders.apply(encoder, slices)).reshape(3, _BATCH, SLICES, -1)
        joined = found.transpose(1, 0, 2, 3).reshape(_BATCH, -1)
        joined = joined / np.linalg.norm(joined, axis=1, keepdims=True)
        out.append(joined[: min(_BATCH, len(volumes) - first)])
    width = 3 * SLICES * encoder.dim
    return np.concatenate([np.zeros((0, width), np.float32), *out])
