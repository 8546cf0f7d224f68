"""What public functions demand of what they are given: each answer is one clear `ValueError`.

Contract: a check returns what it was given, and arrays in this machine's order of bytes. Values of
arrays are looked at only where they are known: under `jax.jit` shapes and types are checked, and
`finite_rows` and `varied_rows` say in the program which rows are good.
"""

import difflib
import enum
import math
import numbers
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import levels
from deepssim_jax.typing import Images

_AT_ONCE = 1 << 22  # numbers of a large array, such as a memory map, that are looked at together
# Beyond these the square of a float32 is lost, and images are brought to one scale by squares.
_LARGEST, _FLAT = 1e15, 1e-6
MOST_SEED = 2**32 - 1  # what every random generator takes
MOST_WHOLE = 2**31 - 1  # what a device counts with
_Enum = TypeVar("_Enum", bound=enum.Enum)
_T = TypeVar("_T")


def is_traced(*arrays: object) -> bool:
    """Whether any of them is seen by `jax.jit`, `jax.grad` or `jax.vmap`: its values are not known."""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def images(
    value: Images,
    name: str,
    *,
    shape: str,
    dims: tuple[int, ...],
    square: bool = False,
    finite: bool = True,
    least: int = 1,
) -> Images:
    """A real array with these numbers of axes, no empty axis but the first, and finite values.

    Types whose values float32 may round, among them all that JAX would cut to 32 bits, become float32 here,
    on the host, each image by `levels.near_zero`: only for functions to which its level says nothing.

    Args:
      value: what was given.
      name: of the argument.
      shape: the shapes wanted, in words, such as "[n, h, w]".
      dims: numbers of axes that are wanted.
      square: the last two axes must be equal.
      finite: look at the values.
      least: pixels of the shorter side.

    Raises:
      ValueError: says what was given and what is wanted.
    """
    value = real(value, name, shape=shape, dims=dims, square=square, least=least)
    if not is_traced(value) and levels.is_wide(value.dtype):
        value = levels.rows_in_float32(np.asarray(value))
    return finite_values(value, name) if finite else value


def real(
    value: Images,
    name: str,
    *,
    shape: str,
    dims: tuple[int, ...],
    square: bool = False,
    least: int = 1,
) -> Images:
    """A real array with these numbers of axes and no empty axis but the first, in its own type.

    Args:
      value: what was given.
      name: of the argument.
      shape: the shapes wanted, in words, such as "[n, h, w]".
      dims: numbers of axes that are wanted.
      square: the last two axes must be equal.
      least: pixels of the shorter side.

    Raises:
      ValueError: says what was given and what is wanted.
    """
    if not isinstance(value, (np.ndarray, jax.Array)):
        raise ValueError(
            f"{name} is of type {type(value).__name__} and must be a NumPy or JAX array {shape}; "
            "np.asarray makes one of numbers"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            f"{name} is a masked array, and what lies below the mask is not known; fill it first, for "
            f"example with {name}.filled(0)"
        )
    if isinstance(value, np.ndarray) and not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))  # as FITS and old NIfTI files have it
    if not any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool)):
        raise ValueError(
            f"{name} has dtype {value.dtype} and must be real; of complex images take the magnitude"
        )
    if value.ndim in dims and 0 in value.shape[1:]:
        raise ValueError(f"{name} {value.shape} has an empty axis and must be {shape}")
    if value.ndim not in dims:
        raise ValueError(
            f"{name} {value.shape} must be {shape}; a single image needs a leading axis, "
            f"{name}[None]"
        )
    if square and value.shape[-1] != value.shape[-2]:
        raise ValueError(
            f"{name} {value.shape} must be square, {shape}; pad the images first, for example with "
            "data.preprocess.fit_to_size"
        )
    if min(value.shape[1:], default=least) < least:
        raise ValueError(
            f"{name} {value.shape} is too small: images need {least} pixels a side at least"
        )
    return value


def finite_values(value: Images, name: str) -> Images:
    """Refuses images [n, ...] with values that are not finite, or too large for float32 to square.

    Raises:
      ValueError: names the first one and the remedy.
    """
    words = "holds NaN, infinite or values beyond 1e15; repair or drop it"
    _refuse_rows(value, name, _is_not_finite, words)
    return value


def finite_rows(value: Images) -> jax.Array:
    """bool [n]: the rows that `images` does not refuse for their values, also inside a program."""
    flat = jnp.asarray(value, jnp.float32).reshape(len(value), -1)
    return (jnp.abs(flat) < _LARGEST).all(1)  # NaN is not


def varied_rows(value: Images) -> jax.Array:
    """bool [n]: the rows that neither `images` nor `varied` refuses, also inside a program."""
    flat = jnp.asarray(value, jnp.float32).reshape(len(value), -1)
    return finite_rows(value) & (flat.std(1) > _FLAT)


def varied(value: Images, name: str, *, remedy: str) -> Images:
    """Refuses images [n, ...] of standard deviation 1e-6 or less; call it after `images`.

    Raises:
      ValueError: names the first one and the remedy.
    """
    _refuse_rows(
        value, name, _is_constant, f"is constant, or varies by less than {_FLAT:g}; {remedy}"
    )
    return value


def levelled(value: Images, name: str) -> Images:
    """Refuses images [n, ...] of floats that a few values rule; call it after `images`.

    Raises:
      ValueError: names the first one and the remedy.
    """
    if jnp.issubdtype(value.dtype, jnp.floating):
        _refuse_rows(
            value,
            name,
            levels.is_ruled,
            "is ruled by a few values, such as hot pixels, beside which nothing of the picture is left; "
            "cut them first, for example with data.preprocess.without_outliers",
        )
    return value


def _is_not_finite(rows: np.ndarray) -> np.ndarray:
    if rows.dtype.kind in "biu" and rows.dtype.itemsize < 8:
        return np.zeros(len(rows), bool)
    flat = rows.reshape(len(rows), -1)
    # NaN is neither.
    return ~((flat.min(1) > -_LARGEST) & (flat.max(1) < _LARGEST))


def _is_constant(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1).astype(np.float64).std(1) <= _FLAT


def _refuse_rows(
    value: Images, name: str, wrong: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    if is_traced(value):
        return
    step = max(1, _AT_ONCE // max(1, math.prod(value.shape[1:])))
    for start in range(0, len(value), step):
        bad = np.flatnonzero(wrong(np.asarray(value[start : start + step])))
        if len(bad):
            raise ValueError(f"{name}: row {start + int(bad[0])} of {len(value)} {words}")


def unit_rows(rows: np.ndarray, name: str, *, first: int = 0) -> np.ndarray:
    """Rows [n, d] of unit norm to 1e-3, as `embed` gives them.

    Args:
      rows: what was given.
      name: of the argument.
      first: the number of the first row, for the message.

    Raises:
      ValueError: names the first row that is none.
    """
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    bad = np.flatnonzero(~(np.abs(norms - 1) <= 1e-3))  # NaN is bad, too
    if len(bad):
        raise ValueError(
            f"{name}: row {first + int(bad[0])} has norm {norms[bad[0]]:.6g} and must have norm 1, as "
            "rows of `embed` have; divide each row by its norm and drop rows of zeros or NaN"
        )
    return rows


def whole(value: object, name: str, *, least: int, most: int = MOST_WHOLE) -> int:
    """A whole number in [least, most].

    Raises:
      ValueError: names the argument, the value and the bounds.
    """
    good = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not good or not least <= int(value) <= most:
        raise ValueError(f"{name} {_shown(value)} must be a whole number in [{least}, {most}]")
    return int(value)


def _shown(value: object) -> str:
    """A value in a message; of a number of very many digits how long it is, for Python may not write it."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"of {value.bit_length()} bits"
    return repr(value)


def batch(value: object, name: str, *, count: int, usual: int) -> int:
    """Rows at a time of `count` rows, no more than there are or than the usual number; that one for None."""
    if value is None:
        return usual
    return min(whole(value, name, least=1, most=sys.maxsize), max(count, usual))


def text(value: object, name: str, *, remedy: str) -> str:
    """A text that is not empty."""
    instance(value, name, str, remedy=remedy)
    if not value:
        raise ValueError(f"{name} is empty and must be a text: {remedy}")
    return str(value)


def progress(value: object) -> None:
    """Raises ValueError for an `on_progress` that cannot be called."""
    if not callable(value):
        raise ValueError(
            f"on_progress is of type {type(value).__name__} and must be a function of (done, total, what), "
            "such as `with deepssim_jax.progress() as on_progress` gives"
        )


def seed(value: object, name: str) -> int:
    """A seed: a whole number that every random generator takes."""
    return whole(value, name, least=0, most=MOST_SEED)


def switch(value: object, name: str) -> bool:
    """True or False, and nothing that could be taken for one of them.

    Raises:
      ValueError: names the argument and the value.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} {value!r} must be True or False")
    return value


def number(
    value: object,
    name: str,
    *,
    low: float,
    high: float = math.inf,
    example: float,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """A finite number between `low` and `high`, which an open end leaves out.

    Raises:
      ValueError: names the argument, the value, the bounds and an example.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            given = float(value)
        except OverflowError:  # of whole numbers alone
            given = math.inf
        above = given > low if open_low else given >= low
        below = given < high if open_high or math.isinf(high) else given <= high
        if above and below:
            return given
    bounds = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high or math.isinf(high) else ']'}"
    raise ValueError(f"{name} {_shown(value)} must lie in {bounds}, for example {example:g}")


def member(value: object, name: str, kind: type[_Enum]) -> _Enum:
    """A member of an enum, and not the text of one.

    Raises:
      ValueError: names the argument, the value and the members.
    """
    if not isinstance(value, kind):
        known = ", ".join(f"{kind.__name__}.{one.name}" for one in kind)
        raise ValueError(f"{name} {value!r} must be one of {known}")
    return value


def instance(value: _T, name: str, kind: type | tuple[type, ...], *, remedy: str) -> _T:
    """An object of a class, or of one of several.

    Raises:
      ValueError: names the argument, what it is, what is wanted and where that comes from.
    """
    if not isinstance(value, kind):
        kinds = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{name} is of type {type(value).__name__} and must be {kinds}: {remedy}")
    return value


def path(value: object, name: str, what: str) -> Path:
    """A path, as text or as a `Path`; what its file or folder holds is for others to say.

    Raises:
      ValueError: names the argument, what it is, and `what` is wanted, such as "a folder of images".
    """
    if not isinstance(value, str | Path):
        raise ValueError(
            f"{name} is of type {type(value).__name__} and must be str or Path: {what}"
        )
    if not str(value):
        raise ValueError(f"{name} is empty and must be the path of {what}")
    return Path(value)


def choice(value: object, name: str, *, known: Sequence[str]) -> str:
    """One of some words.

    Raises:
      ValueError: names the argument, the value, the words, and the one that was most likely meant.
    """
    if isinstance(value, str) and value in known:
        return value
    near = difflib.get_close_matches(str(value).lower(), known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{name} {value!r} must be {' or '.join(known)}{hint}")


def names(value: object, name: str) -> tuple[str, ...]:
    """A tuple or list of texts, none empty.

    Raises:
      ValueError: names the argument, the value and an example.
    """
    if not isinstance(value, (tuple, list)) or not all(isinstance(x, str) and x for x in value):
        raise ValueError(f"{name} {value!r} must be a tuple of ids, for example ('P017', 'P042')")
    return tuple(value)


def sequence(
    value: object,
    name: str,
    *,
    rule: Callable[[object, str], object],
    count: int | None,
    example: str,
) -> None:
    """A tuple or list of `count` values, or of at least one, that keep a rule.

    Raises:
      ValueError: names the argument, the value and an example.
    """
    good = isinstance(value, (tuple, list)) and len(value) > 0
    good = good and count in (None, len(value))  # type: ignore[arg-type]
    try:
        for one in value if good else ():  # type: ignore[union-attr]
            rule(one, name)
    except ValueError:
        good = False
    if not good:
        many = "values" if count is None else f"{count} values"
        raise ValueError(f"{name} {value!r} must be {many}, for example {example}")
