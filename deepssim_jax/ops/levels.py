"""Intensities that float32 would round, and those that a few values rule.

Contract: arrays are NumPy's, of real values. The level of an image says nothing about it; where it lies far
from zero for its range, its minimum is taken off in the values' own type, before they become float32.
"""

import numpy as np

# Of values so many times their range, float32 would keep fewer than 16 bits of the image.
_FAR = 256
# A picture is lost where its whole range is more than so many times that of all values but this share.
# Of integers of up to 16 bits none is.
_RULED, _SHARE = 1e3, 1e-3


def is_wide(dtype: np.dtype) -> bool:
    """Whether float32 may round values of a type: integers of 32 bits and more, float64, longdouble."""
    return dtype.kind in "iuf" and dtype.itemsize >= 4 and dtype != np.float32


def far_minimum(values: np.ndarray, *, times: float) -> np.generic | None:
    """The minimum of values that lie so many times their range from zero, in their type; else None."""
    if not is_wide(values.dtype):
        return None
    low, high = values.min(), values.max()
    first, last = low.item(), high.item()  # Python's own whole numbers do not wrap
    return low if max(abs(first), abs(last)) > times * (last - first) else None


def near_zero(values: np.ndarray) -> np.ndarray:
    """Values that float32 would round to a few levels less their minimum; others as they are."""
    low = far_minimum(values, times=_FAR)
    return values if low is None or values.max() == low else values - low


def rows_in_float32(images: np.ndarray) -> np.ndarray:
    """Images [n, ...] of a wide type in float32, each `near_zero`; what is too large becomes infinite."""
    out = np.empty(images.shape, np.float32)
    with np.errstate(over="ignore"):
        for row, image in enumerate(images):
            out[row] = near_zero(image)
    return out


def is_ruled(rows: np.ndarray) -> np.ndarray:
    """bool [n]: images [n, ...] whose range is that of a few values, beside which no picture is left."""
    flat = rows.reshape(len(rows), -1)
    whole = flat.max(1).astype(np.float64) - flat.min(1)
    # Values inside the inner range add at most its square to the variance, the others at most the whole
    # range's times their share: quantiles, which cost most here, are for rows of less variance than that.
    wide = flat.astype(np.promote_types(flat.dtype, np.float32), copy=False)
    power = np.einsum("np,np->n", wide, wide).astype(np.float64) / flat.shape[1]
    # Less what float32 may err.
    variance = power * (1 - 1e-5) - wide.mean(1).astype(np.float64) ** 2
    ruled = variance < 4 * _SHARE * whole**2
    if ruled.any():
        limits = [_SHARE, 1 - _SHARE]
        inner = np.quantile(flat[ruled], limits, axis=1, method="nearest").astype(np.float64)
        spread = inner[1] - inner[0]
        ruled[ruled] = (spread > 0) & (whole[ruled] > _RULED * spread)
    return ruled
