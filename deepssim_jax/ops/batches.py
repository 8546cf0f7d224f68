"""Work on many rows in batches of one shape: one compilation, bounded memory."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops.arguments import is_traced
from deepssim_jax.typing import Array

T = TypeVar("T")
_LANES = 32


def part_length(count: int, *, most: int) -> int:
    """The length of equal parts of `count` rows, whole lanes and at most about `most` of them."""
    return -(-count // (_LANES * -(-count // most))) * _LANES


def batch_size(*, cpu: int, accelerator: int) -> int:
    """Rows at a time: a CPU wants what fits its caches, and little padding of the last batch."""
    return cpu if jax.default_backend() == "cpu" else accelerator


def mapped(run: Callable[..., T], rows: object, *, side_by_side: int) -> T:
    """`run` of each row of a pytree, as `jax.lax.map` has it.

    One after the other on a CPU, whose caches hold one; so many side by side on an accelerator, which
    one does not fill.
    """
    size = batch_size(cpu=0, accelerator=side_by_side)
    return jax.lax.map(run, rows, batch_size=size or None)


def even_rows(count: int, *, most: int) -> np.ndarray:
    """int [m]: up to `most` rows of `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def one_of_each(groups: np.ndarray, *, most: int) -> np.ndarray:
    """int [m]: up to `most` rows, evenly spread, no two of one group [n]: the first of each stands for it."""
    first = np.sort(np.unique(groups, return_index=True)[1])
    return first[even_rows(len(first), most=most)]


def filled_up(count: int, size: int) -> np.ndarray:
    """int [m]: the rows of `count`, the last one repeated up to a multiple of `size`."""
    return np.minimum(np.arange(-(-count // size) * size), count - 1)


def in_batches(run: Callable[..., T], *columns: np.ndarray | Array, size: int) -> T:
    """`run` over rows, so many at a time; the last batch repeats its last row.

    A batch is fetched while the device works on the next one.

    Args:
      run: maps arrays [size, ...] to a pytree of arrays [size, ...], row by row.
      *columns: arrays [n, ...] of equal length.
      size: rows of a batch.

    Returns:
      The pytree of NumPy arrays [n, ...] that one call for all rows would give; of JAX arrays inside
      `jax.jit` or `jax.grad`, where the batches are a loop of the program.
    """
    count = len(columns[0])
    if count and is_traced(*columns):
        return _traced(run, *columns, size=size)
    if not count:
        like = [jnp.zeros((size, *c.shape[1:]), c.dtype) for c in map(jnp.asarray, columns)]
        return jax.tree.map(
            lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype), jax.eval_shape(run, *like)
        )
    done: list[T] = []
    waiting: list[T] = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        batch = [
            jnp.asarray(np.asarray(column[start : start + size])[rows - start])
            for column in columns
        ]
        waiting.append(run(*batch))
        if len(waiting) > 1:
            done.append(jax.tree.map(np.asarray, waiting.pop(0)))
    done.append(jax.tree.map(np.asarray, waiting.pop()))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *done)


def _traced(run: Callable[..., T], *columns: np.ndarray | Array, size: int) -> T:
    """`in_batches` as a part of a larger program."""
    count = len(columns[0])
    rows = filled_up(count, size)
    parts = [jnp.asarray(column)[rows].reshape(-1, size, *column.shape[1:]) for column in columns]
    made = jax.lax.map(lambda batch: run(*batch), parts)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], made)
