"""Keeping the k best while a stream goes by.

Contract: scores [n, k] sorted from best to worst with companions of the same shape. Ties go to
what came first, so streaming references in the order of their ids gives them to the smaller id.
"""

import functools

import jax
import jax.numpy as jnp

from deepssim_jax.typing import Array


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
