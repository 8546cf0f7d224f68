"""Exact nearest neighbours by cosine, streamed in tiles.

Contract: queries and references are float32 rows of unit norm, [n, d] and [m, d], as NumPy
arrays or memory maps. Nothing of size n x m ever exists: a tile of references meets a block of
queries, and the k best so far are carried along. Products run in full float32 on every platform.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import topk
from deepssim_jax.typing import Array, Embeddings

_QUERY_BLOCK = 1024
_REFERENCE_TILE = 8192


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """`scores` float32 [n, k] from best to worst, clipped to [-1, 1]; `indices` int32 [n, k]."""

    scores: np.ndarray
    indices: np.ndarray


@functools.partial(jax.jit, static_argnames="k")
def _tile(queries: Array, tile: Array, count: Array, *, k: int) -> tuple[Array, Array]:
    scores = jnp.einsum("qd,rd->qr", queries, tile, precision=jax.lax.Precision.HIGHEST)
    real = jnp.arange(tile.shape[0])[None, :] < count
    return topk.top_k(jnp.where(real, scores, -jnp.inf), k)


def nearest(queries: Embeddings, references: Embeddings, *, k: int) -> Neighbours:
    """The k references with the largest cosine to each query; ties go to the smaller index.

    Args:
      queries: [n, d] unit rows.
      references: [m, d] unit rows, m >= 1.
      k: how many, 1 <= k <= m.

    Returns:
      Scores and indices, best first.

    Raises:
      ValueError: if the dimensions differ or k does not fit.
    """
    if queries.ndim != 2 or references.ndim != 2 or queries.shape[1] != references.shape[1]:
        raise ValueError(
            f"queries {queries.shape} and references {references.shape} must be [n, d] and [m, d] "
            "with one d; embed both with the same encoder"
        )
    if not 1 <= k <= len(references):
        raise ValueError(f"k = {k} must lie in [1, {len(references)}], the number of references")
    block = min(_QUERY_BLOCK, _round_up(len(queries)))
    tile = min(_REFERENCE_TILE, _round_up(max(len(references), k)))
    out = []
    for start in range(0, len(queries), block):
        rows = jnp.asarray(_padded(queries[start : start + block], block))
        best: tuple[Array, ...] | None = None
        for first in range(0, len(references), tile):
            part = references[first : first + tile]
            scores, index = _tile(rows, jnp.asarray(_padded(part, tile)), len(part), k=min(k, tile))
            found = (scores, index + first)
            best = found if best is None else topk.merge(best, found, k=k)
        assert best is not None
        out.append(tuple(np.asarray(a)[: len(queries) - start] for a in best))
    scores, indices = (np.concatenate(column)[:, :k] for column in zip(*out, strict=True))
    return Neighbours(np.clip(scores, -1.0, 1.0), indices.astype(np.int32))


def _round_up(count: int) -> int:
    return -(-max(count, 1) // 128) * 128


def _padded(rows: Embeddings, length: int) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    return np.pad(rows, ((0, length - len(rows)), (0, 0)))
