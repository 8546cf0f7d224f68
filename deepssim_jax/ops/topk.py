"""Keeping the k best while a stream goes by.

Contract: scores [n, k] sorted from best to worst with companions of the same shape. Ties go to
what came first, so streaming references in the order of their ids gives them to the smaller id.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from deepssim_jax.typing import Array


def top_k(scores: Array, k: int, *, count: Array | int | None = None) -> tuple[Array, Array]:
    """The k largest of each row, best first, and where they stand; ties: smaller index first.

    Two stages where k is small beside the row: the k groups of neighbours with the largest maxima
    hold all winners, so only they are sorted. That is exact, ties included, because groups are
    runs of indices: whatever a group left out holds, k elements of the others come before it.

    Args:
      scores: [n, m].
      k: 1 <= k <= m.
      count: only the first `count` columns are real; the others come last, as -inf. All if None.

    Returns:
      Values [n, k] and indices int32 [n, k].
    """
    n, m = scores.shape
    # Sorting m / group maxima and then k * group candidates is least work at the square root.
    group = 1 << max(0, (m // k).bit_length() // 2)
    if m % group or 4 * k * group > m:
        if count is not None:
            scores = jnp.where(jnp.arange(m)[None, :] < count, scores, -jnp.inf)
        return jax.lax.top_k(scores, k)

    def real(index: Array, values: Array) -> Array:
        return values if count is None else jnp.where(index < count, values, -jnp.inf)

    groups = scores.reshape(n, -1, group)
    maxima = real(jnp.arange(m).reshape(1, -1, group), groups).max(-1)
    winners = jnp.sort(jax.lax.top_k(maxima, k)[1], axis=-1)
    candidates = jnp.take_along_axis(groups, winners[:, :, None], axis=1)
    index = winners[:, :, None] * group + jnp.arange(group)[None, None, :]
    values, position = jax.lax.top_k(real(index, candidates).reshape(n, -1), k)
    winner = jnp.take_along_axis(winners, position // group, axis=1)
    return values, winner * group + position % group


@functools.partial(jax.jit, static_argnames="k")
def merge(earlier: tuple[Array, ...], later: tuple[Array, ...], *, k: int) -> tuple[Array, ...]:
    """The k best of two sorted lists a row.

    Args:
      earlier: scores [n, a] and companions of the same shape.
      later: scores [n, b] and as many companions.
      k: how many to keep, at most a + b.

    Returns:
      Scores [n, k] and companions; between equal scores `earlier` wins.
    """
    scores = jnp.concatenate([earlier[0], later[0]], axis=1)
    # lax.top_k promises the lower index first among equals.
    scores, position = jax.lax.top_k(scores, min(k, scores.shape[1]))
    companions = (
        jnp.take_along_axis(jnp.concatenate(pair, axis=1), position, axis=1)
        for pair in zip(earlier[1:], later[1:], strict=True)
    )
    return (scores, *companions)


def merge_all(parts: Iterable[tuple[Array, ...]], *, k: int) -> tuple[Array, ...]:
    """The k best of one or more sorted lists a row, as `merge` has them; between equals the earlier."""
    return functools.reduce(functools.partial(merge, k=k), parts)
