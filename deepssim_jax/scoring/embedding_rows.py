"""Rows that all pairs are made of: what they must be, looked at as they are read.

Contract: float32 rows of unit norm [n, d], read by slices alone: NumPy arrays, memory maps, or anything
with a shape whose slices turn into arrays, such as a TensorStore.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import arguments


class Rows(Protocol):
    """Rows that are read by slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, dimensions)."""
        ...

    def __getitem__(self, rows: slice, /) -> object:
        """Rows start to stop, as something NumPy can read."""
        ...


@dataclasses.dataclass(frozen=True)
class ChosenRows:
    """Some rows of others, by their numbers in rising order."""

    source: Rows
    numbers: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, dimensions)."""
        return (len(self.numbers), *self.source.shape[1:])

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        numbers = self.numbers[rows]
        if not len(numbers):
            return np.empty((0, *self.shape[1:]), np.float32)
        low, high = int(numbers[0]), int(numbers[-1]) + 1
        return np.asarray(self.source[low:high], np.float32)[numbers - low]


@dataclasses.dataclass(frozen=True)
class UnitRows:
    """Rows whose norms are looked at as they are read."""

    source: Rows
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, dimensions)."""
        return self.source.shape

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        found = np.asarray(self.source[rows], np.float32)
        return arguments.unit_rows(found, self.name, first=rows.start or 0)


def check_rows(queries: Rows, references: Rows) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The two shapes.

    Raises:
      ValueError: a side is no array of float rows, or they do not fit each other.
    """
    for name, rows in (("queries", queries), ("references", references)):
        if not hasattr(rows, "shape") or not hasattr(rows, "__getitem__"):
            raise ValueError(
                f"{name} is of type {type(rows).__name__} and must be an array [n, d] of unit rows, as "
                "`embed` gives"
            )
        known = isinstance(rows, (np.ndarray, jax.Array))
        if known and not jnp.issubdtype(rows.dtype, jnp.floating):
            raise ValueError(f"{name} has dtype {rows.dtype} and must be float rows of norm 1")
    q, r = tuple(queries.shape), tuple(references.shape)
    if len(q) != 2 or len(r) != 2 or q[1] != r[1] or not r[0]:
        raise ValueError(
            f"queries {q} and references {r} must be [n, d] and [m, d] with one d and m >= 1; "
            "embed both with the same encoder"
        )
    return q, r


def check_groups(
    groups: tuple[np.ndarray, np.ndarray] | None, queries: Rows, references: Rows
) -> tuple[np.ndarray, np.ndarray] | None:
    """Groups of both sides as int32.

    Raises:
      ValueError: they are not one a row.
    """
    if groups is None:
        return None
    own, theirs = np.asarray(groups[0], np.int32), np.asarray(groups[1], np.int32)
    if (own.shape, theirs.shape) != (queries.shape[:1], references.shape[:1]):
        raise ValueError(
            f"groups of {own.shape} and {theirs.shape} must be one a row of the queries "
            f"{tuple(queries.shape)} and of the references {tuple(references.shape)}"
        )
    return own, theirs
