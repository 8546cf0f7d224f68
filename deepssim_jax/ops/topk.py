"""Keeping the k best while a stream goes by.

Contract: scores [n, k] sorted from best to worst with companions of the same shape. Ties go to
what came first, so streaming references in the order of their ids gives them to the smaller id.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.typing import Array

_TINY = 2.0**-100
# Before jax 0.11 a GPU's top_k kept none anyway.
_ANY_ORDER = {"is_stable": False} if jax.__version_info__ >= (0, 11) else {}
FEW = 32  # winners that on a CPU are found quicker one after the other than by sorting


def top_k(scores: Array, k: int, *, count: Array | int | None = None) -> tuple[Array, Array]:
    """The k largest of each row, best first, and where they stand; ties: smaller index first.

    In stages where k is small beside the row: the k groups of neighbours with the largest maxima
    hold all winners, so only they are looked through. That is exact, ties included, because groups are
    runs of indices: whatever a group left out holds, k elements of the others come before it.

    Args:
      scores: [n, m].
      k: 1 <= k <= m.
      count: only the first `count` columns are real; the others come last, as -inf. All if None.

    Returns:
      Values [n, k] and indices int32 [n, k].
    """
    m = scores.shape[1]
    operands = (scores,) if count is None else (scores, jnp.int32(count))
    # Sorting m / group maxima and then k * group candidates is least work at the square root.
    group = 1 << max(0, (m // k).bit_length() // 2)
    if m % group or 4 * k * group > m:
        values, index = jax.lax.top_k(_real(jnp.arange(m)[None, :], *operands), k)
        return values, index
    by_sorting = functools.partial(_by_sorting, k=k, group=group)
    by_lanes = functools.partial(_by_lanes, k=k) if k <= FEW else by_sorting
    return jax.lax.platform_dependent(*operands, cpu=by_lanes, default=by_sorting)


def top_k_nearly(scores: Array, k: int, *, count: Array | int | None = None) -> tuple[Array, Array]:
    """`top_k` of scores that are rounded first, so that each can hold its own number.

    No two are equal then, and the next one after the last is found by one comparison. On a TPU nothing is
    rounded.

    Args:
      scores: [n, m], finite; those below 1e-30 count as that.
      k: 1 <= k <= m.
      count: see `top_k`.

    Returns:
      Rounded values [n, k], best first, and indices int32 [n, k]. Whatever is not among them is at most
      `rounding(m)` times the last one's size above it.
    """
    operands = (scores,) if count is None else (scores, jnp.int32(count))

    def whole(scores: Array, *count: Array) -> tuple[Array, Array]:
        return top_k(scores, k, count=count[0] if count else None)

    if k > FEW:
        return whole(*operands)
    marked, in_any_order = (functools.partial(f, k=k) for f in (_by_marks, _in_any_order))
    return jax.lax.platform_dependent(*operands, cpu=marked, cuda=in_any_order, default=whole)


def rounding(m: int) -> float:
    """How much of itself a score in a row of m may lose in `top_k_nearly`."""
    return 2.0 ** (_bits(m) - 22)


def _bits(m: int) -> int:
    """Binary digits of the numbers below m; float32 has 23 behind the point."""
    return (m - 1).bit_length()


def _marked(scores: Array, number: Array, *count: Array, mask: int) -> Array:
    """Scores whose last digits are their numbers; from `count` on the least there is."""
    # Infinity has no digits to spare, and numbers next to nothing count as nothing.
    scores = jnp.maximum(_real(number, scores, *count), jnp.finfo(jnp.float32).min)
    scores = jnp.where(jnp.abs(scores) < _TINY, _TINY, scores)
    marks = jax.lax.bitcast_convert_type(scores, jnp.int32) & ~mask | number
    return jax.lax.bitcast_convert_type(marks, jnp.float32)


def _read(marks: Array, *count: Array, mask: int) -> tuple[Array, Array]:
    index = jax.lax.bitcast_convert_type(marks, jnp.int32) & mask
    return _real(index, marks, *count), index


def _by_marks(scores: Array, *count: Array, k: int) -> tuple[Array, Array]:
    m = scores.shape[1]
    mask = (1 << _bits(m)) - 1
    number = jnp.arange(m, dtype=jnp.int32)[:, None]
    marks = _marked(scores.T, number, *count, mask=mask)
    values, index = _read(_first_marks(marks, k, mask=mask, span=1), *count, mask=mask)
    return values.T, index.T


def _in_any_order(scores: Array, *count: Array, k: int) -> tuple[Array, Array]:
    """By XLA's kernel for GPUs, a tenth of its sort's time on an H100, which keeps no order among equals."""
    m = scores.shape[1]
    mask = (1 << _bits(m)) - 1
    marks = _marked(scores, jnp.arange(m, dtype=jnp.int32)[None], *count, mask=mask)
    return _read(jax.lax.top_k(marks, k, **_ANY_ORDER)[0], *count, mask=mask)


def _first_marks(columns: Array, k: int, *, mask: int, span: int) -> Array:
    """The k largest of each column, best first; each row stands for `span` numbers."""
    m, n = columns.shape
    group = next((g for g in (8, 4, 2) if m % g == 0), 1)
    if group > 1 and m > 2 * k * group:
        best = _first_marks(columns.reshape(-1, group, n).max(1), k, mask=mask, span=span * group)
        # Both are at least 0: `//` would ask for the sign.
        winners = jax.lax.div(
            jax.lax.bitcast_convert_type(best, jnp.int32) & mask, np.int32(span * group)
        )
        index = winners[:, None] * group + jnp.arange(group, dtype=jnp.int32)[None, :, None]
        columns = jnp.take_along_axis(
            columns, index.reshape(-1, n), axis=0, mode="promise_in_bounds"
        )

    def step(last: Array, _: None) -> tuple[Array, Array]:
        value = jnp.where(columns < last[None], columns, -jnp.inf).max(0)
        return value, value

    return jax.lax.scan(step, jnp.full(n, jnp.inf, columns.dtype), None, length=k)[1]


def _real(index: Array, scores: Array, count: Array | None = None) -> Array:
    """Scores of these indices, -inf from `count` on."""
    return scores if count is None else jnp.where(index < count, scores, -jnp.inf)


def _by_sorting(scores: Array, *count: Array, k: int, group: int) -> tuple[Array, Array]:
    """One stage of groups, for any k."""
    n, m = scores.shape
    groups = scores.reshape(n, -1, group)
    maxima = _real(jnp.arange(m).reshape(1, -1, group), groups, *count).max(-1)
    winners = jnp.sort(jax.lax.top_k(maxima, k)[1], axis=-1)
    along = functools.partial(jnp.take_along_axis, axis=1, mode="promise_in_bounds")
    candidates = along(groups, winners[:, :, None])
    index = winners[:, :, None] * group + jnp.arange(group)[None, None, :]
    values, position = jax.lax.top_k(_real(index, candidates, *count).reshape(n, -1), k)
    return values, along(index.reshape(n, -1), position)


def _by_lanes(scores: Array, *count: Array, k: int) -> tuple[Array, Array]:
    """Rows side by side in vector units. Nothing is turned: the compiler makes a product so at once."""
    number = jnp.arange(scores.shape[1], dtype=jnp.int32)
    values, index = _best_of_columns(_real(number[:, None], scores.T, *count), k)
    return values.T, index.T


def _best_of_columns(columns: Array, k: int) -> tuple[Array, Array]:
    """The k largest of each column, by way of the maxima of groups, of groups of these, and so on."""
    m, n = columns.shape
    group = next((g for g in (8, 16, 4, 2) if m % g == 0), 1)
    if group == 1 or m <= 2 * k * group:
        return _first_of(columns, jax.lax.broadcasted_iota(jnp.int32, (m, n), 0), k)
    _, winners = _best_of_columns(columns.reshape(-1, group, n).max(1), k)
    index = winners[:, None] * group + jnp.arange(group, dtype=jnp.int32)[None, :, None]
    index = index.reshape(-1, n)
    candidates = jnp.take_along_axis(columns, index, axis=0, mode="promise_in_bounds")
    return _first_of(candidates, index, k)


def _first_of(values: Array, index: Array, k: int) -> tuple[Array, Array]:
    """The k largest of each column [k, n], and their numbers; ties: smaller number first.

    The largest, the largest of what comes after it, and so on: for a few of them quicker than
    sorting, which no vector unit does.
    """

    def step(last: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        value, number = (x[None] for x in last)
        after = (values < value) | ((values == value) & (index > number))
        value = jnp.where(after, values, -jnp.inf).max(0)
        least = after & (values == value[None])
        number = jnp.where(least, index, jnp.iinfo(jnp.int32).max).min(0)
        return (value, number), (value, number)

    n = values.shape[1]
    before = jnp.full(n, jnp.inf, values.dtype), jnp.full(n, -1, jnp.int32)
    return jax.lax.scan(step, before, None, length=k)[1]


def best(scores: Array, numbers: Array, k: int) -> tuple[Array, Array]:
    """The k largest of each row of some candidates, best first; ties: smaller number first.

    Args:
      scores: [n, m].
      numbers: int32 [n, m]; where scores are not -inf, all of a row differ.
      k: 1 <= k <= m.

    Returns:
      Values [n, k] and their numbers [n, k].
    """

    def by_sorting(scores: Array, numbers: Array) -> tuple[Array, Array]:
        falling, index = jax.lax.sort((-scores, numbers), num_keys=2)
        return -falling[:, :k], index[:, :k]

    def one_by_one(scores: Array, numbers: Array) -> tuple[Array, Array]:
        values, index = _first_of(scores.T, numbers.T, k)
        return values.T, index.T

    few = one_by_one if k <= FEW else by_sorting
    by_ranks = functools.partial(_by_ranks, k=k) if scores.shape[1] <= 2 * FEW else by_sorting
    return jax.lax.platform_dependent(scores, numbers, cpu=few, cuda=by_ranks, default=by_sorting)


def _by_ranks(scores: Array, numbers: Array, *, k: int) -> tuple[Array, Array]:
    """Every candidate is compared with every other, which a GPU has done before a sort begins."""
    value, number = (x[:, :, None] for x in (scores, numbers))
    others, theirs = (x[:, None] for x in (scores, numbers))
    place = jnp.arange(scores.shape[1])
    earlier = (theirs < number) | ((theirs == number) & (place[None] < place[:, None])[None])
    rank = ((others > value) | ((others == value) & earlier)).sum(-1, dtype=jnp.int32)
    here = rank[:, None] == jnp.arange(k)[None, :, None]
    least = jnp.iinfo(jnp.int32).min
    return jnp.where(here, others, -jnp.inf).max(-1), jnp.where(here, theirs, least).max(-1)


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
