"""Keeping the k best while a stream goes by.

Contract: scores [n, k] sorted from best to worst with companions of the same shape. Ties go to
what came first, so streaming references in the order of their ids gives them to the smaller id.
"""

import functools

import jax
import jax.numpy as jnp

from deepssim_jax.typing import Array

_GROUP = 32


def top_k(scores: Array, k: int) -> tuple[Array, Array]:
    """The k largest of each row, best first, and where they stand; ties: smaller index first.

    Two stages where k is small beside the row: the k groups of neighbours with the largest maxima
    hold all winners, so only they are sorted. That is exact, ties included, because groups are
    runs of indices: whatever a group left out holds, k elements of the others come before it.

    Args:
      scores: [n, m].
      k: 1 <= k <= m.

    Returns:
      Values [n, k] and indices int32 [n, k].
    """
    n, m = scores.shape
    if 4 * k * _GROUP > m:
        return jax.lax.top_k(scores, k)
    padded = jnp.pad(scores, ((0, 0), (0, -m % _GROUP)), constant_values=-jnp.inf)
    groups = padded.reshape(n, -1, _GROUP)
    winners = jnp.sort(jax.lax.top_k(groups.max(-1), k)[1], axis=-1)
    candidates = jnp.take_along_axis(groups, winners[:, :, None], axis=1).reshape(n, -1)
    values, position = jax.lax.top_k(candidates, k)
    group = jnp.take_along_axis(winners, position // _GROUP, axis=1)
    return values, group * _GROUP + position % _GROUP


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
