"""Best match of every query among references that lie as it lies, or mirrored.

Contract: low-resolution images [n, s, s] as for `scoring.aligned`. Two images are compared by the
mean of the correlations of their tiles, over the whole frame, in four mirrorings.

The search over transformations lets an unrelated image choose the one of thousands that suits it best, and
so a copy with a changed region can come behind many of them. A generator's copies are seldom moved:
looked at in place, the unchanged tiles put the original first. A pair costs 8 s^2 operations, and the
references are read and normalised once a batch of queries: a hundredth of the other search's cost.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import topk
from deepssim_jax.ops.batches import batch_size, in_batches, part_length
from deepssim_jax.ops.transform import FLIP_SIGNS
from deepssim_jax.scoring.pairs import Neighbours
from deepssim_jax.typing import Array, Images

_TILES = 4  # along each axis
_STABILISER = 0.01  # variance, where a z-scored image has one: flat tiles hold noise
_queries = functools.partial(batch_size, cpu=32, accelerator=128)
_REFERENCES = 4096


def nearest_in_place(
    queries: Images,
    references: Images,
    *,
    k: int,
    groups: tuple[np.ndarray, np.ndarray] | None = None,
) -> Neighbours:
    """The k best references of every query; equal scores: smaller index first.

    Args:
      queries: [n, s, s] low-resolution images.
      references: [m, s, s], m at least 1.
      k: references wanted; at most m.
      groups: int [n] and [m] at least 0; a reference of the query's own group is left out.

    Returns:
      Scores and indices; a row with fewer than k admissible references ends in scores of -2.
    """
    count = len(references)
    own, theirs = groups or (np.full(len(queries), -2), np.zeros(count))
    # Tiles of one length, in whole lanes; -1 marks padding, which belongs to no query's group either.
    length = part_length(count, most=_REFERENCES)
    missing = -count % length
    labels = np.pad(np.asarray(theirs, np.int32), (0, missing), constant_values=-1)
    k = min(k, count)

    def block(low: Array, label: Array) -> tuple[Array, ...]:
        versions = _mirrored_vectors(low)

        def found(start: int) -> tuple[Array, Array]:
            part = np.asarray(references[start : start + length], np.float32)
            part = np.pad(part, ((0, length - len(part)), (0, 0), (0, 0)))
            theirs = labels[start : start + length]
            scores, index = _tile(versions, part, label, theirs, k=min(k, length))
            return scores, index + start

        return topk.merge_all(map(found, range(0, count, length)), k=k)

    scores, indices = in_batches(
        block, np.asarray(queries, np.float32), np.asarray(own, np.int32), size=_queries()
    )
    return Neighbours(np.asarray(scores), np.asarray(indices))


@jax.jit
def _vectors(low: Array) -> Array:
    """[n, s, s] to unit rows [n, s^2]: every tile without its mean, at its own unit variance.

    s is cut to a multiple of the tiles.
    """
    n, side = len(low), low.shape[-1] // _TILES
    low = low[:, : _TILES * side, : _TILES * side]
    tiles = low.reshape(n, _TILES, side, _TILES, side)
    tiles = tiles - tiles.mean((2, 4), keepdims=True)
    variance = (tiles**2).mean((2, 4), keepdims=True)
    typical = variance.mean((1, 3), keepdims=True)
    tiles = tiles * jax.lax.rsqrt(jnp.maximum(variance + _STABILISER * typical, 1e-12))
    rows = tiles.reshape(n, -1)
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


@jax.jit
def _mirrored_vectors(low: Array) -> Array:
    """[n, s, s] to [4, n, s^2]."""
    return jnp.stack([_vectors(low[:, ::y, ::x]) for y, x in FLIP_SIGNS.astype(int)])


@functools.partial(jax.jit, static_argnames="k")
def _tile(
    versions: Array, references: Array, label: Array, labels: Array, *, k: int
) -> tuple[Array, Array]:
    """Scores [n, k] and rows [n, k] of the best of `references` [m, s, s]."""
    rows = _vectors(references)
    found = jnp.einsum("fnp,mp->fnm", versions, rows, precision=jax.lax.Precision.HIGHEST).max(0)
    allowed = (labels[None, :] != label[:, None]) & (labels[None, :] >= 0)
    return topk.top_k(jnp.where(allowed, jnp.clip(found, -1.0, 1.0), -2.0), k)
