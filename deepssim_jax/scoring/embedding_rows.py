"""Rows that all pairs are made of: what they must be, looked at as they are read.

Contract: float32 rows of unit norm [n, d], read by slices alone: NumPy arrays, memory maps, or anything
with a shape whose slices turn into arrays, such as a TensorStore.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import arguments
from deepssim_jax.scoring.tiles import Tiling
from deepssim_jax.workspace import Section

# An id of each row of the queries, and of each row of the references.
Groups = tuple[Sequence | np.ndarray, Sequence | np.ndarray]


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
    groups: Groups | None, queries: Rows, references: Rows
) -> tuple[np.ndarray, np.ndarray] | None:
    """Groups of both sides as numbers int32 from 0 on, equal where the ids are equal.

    Args:
      groups: an id for each row of the queries and of the references: numbers, texts, or whatever can be
        hashed, in arrays or lists, all of one kind: 1 and "1" could be one patient's, or two.
      queries: [n, d].
      references: [m, d].

    Raises:
      ValueError: they are not one a row, an id is missing (None, NaN), cannot be hashed, or is a text where
        others are not.
    """
    if groups is None:
        return None
    if not isinstance(groups, (tuple, list)) or len(groups) != 2:
        raise ValueError(
            "groups must be two arrays of ids, one of the queries and one of the references"
        )
    if arguments.is_traced(*groups):
        raise ValueError("groups must be known when the program is made; give NumPy arrays")
    own, theirs = (x if isinstance(x, np.ndarray) else _listed(x) for x in groups)
    if (own.shape, theirs.shape) != (queries.shape[:1], references.shape[:1]):
        raise ValueError(
            f"groups of {own.shape} and {theirs.shape} must be one a row of the queries "
            f"{tuple(queries.shape)} and of the references {tuple(references.shape)}"
        )
    if (
        own.dtype == theirs.dtype == np.int32
        and min(own.min(initial=0), theirs.min(initial=0)) >= 0
    ):
        return own, theirs
    for side, ids in (("queries", own), ("references", theirs)):
        if (row := _missing(ids)) is not None:
            raise ValueError(
                f"groups: row {row} of the {side} has no id (None or NaN); give an image whose patient is "
                "not known an id of its own"
            )
    if own.dtype == theirs.dtype and own.dtype != object:
        numbers = np.unique(np.concatenate([own, theirs]), return_inverse=True)[1]
    else:  # another type of both would make texts of numbers, or cut them
        known: dict[Hashable, int] = {}
        try:
            numbers = np.array(
                [known.setdefault(x, len(known)) for x in (*own.tolist(), *theirs.tolist())]
            )
        except TypeError as error:
            raise ValueError(
                f"groups hold an id that cannot be hashed ({error}); give numbers or texts"
            ) from error
        if {True, False} <= _are_texts(own) | _are_texts(theirs):
            raise ValueError(
                "groups: some ids are texts and others are not, so that 1 and '1' would be two patients; "
                "make all of them texts or all of them numbers"
            )
    numbers = numbers.reshape(-1).astype(np.int32)
    return numbers[: len(own)], numbers[len(own) :]


def _listed(ids: object) -> np.ndarray:
    """Ids of a list or another array, as they are."""
    if hasattr(ids, "__array__"):
        return np.asarray(ids)
    given = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str) else []
    return np.fromiter(given, object, len(given))


def _are_texts(ids: np.ndarray) -> set[bool]:
    """Whether ids are texts: both answers of a mixture, none of no ids."""
    if ids.dtype == object:
        return {isinstance(x, str | bytes) for x in ids.tolist()}
    return {ids.dtype.kind in "UST"} if len(ids) else set()


def _missing(ids: np.ndarray) -> int | None:
    """The first row without an id."""
    if ids.dtype == object:
        bad = [x is None or bool(np.ndim(x) == 0 and _is_nan(x)) for x in ids.tolist()]
    else:
        bad = (ids != ids).tolist()  # NaN, and NaT of dates
    return bad.index(True) if True in bad else None


def _is_nan(value: object) -> bool:
    try:
        return bool(value != value)
    except TypeError:  # as the NA of pandas says
        return True


def check_how(
    *, journal: object = None, mesh: object = None, tiling: object = None, ring: object = None
) -> None:
    """Raises ValueError for a way to search that is none; None is left to the search."""
    for name, value, kind, remedy in (
        ("journal", journal, Section, "a section of a workspace"),
        ("mesh", mesh, jax.sharding.Mesh, "devices, as jax.make_mesh gives them"),
        ("tiling", tiling, Tiling, "None takes the best one known"),
        ("ring", ring, bool, "None decides by the size of the references"),
    ):
        if value is not None:
            arguments.instance(value, name, kind, remedy=remedy)
