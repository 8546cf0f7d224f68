"""What every reader of a format gives.

Contract: `values` is float32 [h, w], rows downwards, or [d, h, w] with the axes of `data.volume`;
`spacing` is the size of a step along each axis, in mm where `values` is a volume (for a picture only
its proportions count), or None where the file does not say.

Samples beside grey or red, green and blue are no part of the image. One that is the same in every pixel says
nothing; one that varies could be an image of its own, and the file is refused. An alpha channel that is
declared, of two values, cuts the picture out: what it hides is read as it is.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from deepssim_jax.data.volume import Unreadable
from deepssim_jax.ops.levels import near_zero

# ITU-R BT.601.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class Decoded:
    """One image or volume as its file holds it."""

    values: np.ndarray
    spacing: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file holds: its images, what is none by name and reason, and all files where it is several."""

    images: int = 1
    others: tuple[tuple[str, str], ...] = ()
    parts: tuple[Path, ...] = ()


def digest_of(values: np.ndarray) -> np.ndarray:
    """uint8 [32]: SHA-256 of an image's or volume's shape and values, whatever file they came from."""
    values = np.ascontiguousarray(values, np.float32)
    digest = hashlib.sha256(repr(values.shape).encode())
    digest.update(values.data)
    return np.frombuffer(digest.digest(), np.uint8)


def luminance(values: np.ndarray) -> np.ndarray:
    """float32 [...] of [..., c]: c is 1 or 2 (grey, alpha), or 3 or 4 (red, green, blue, alpha).

    Raises:
      Unreadable: the alpha varies.
    """
    colours = values.shape[-1] - (values.shape[-1] + 1) % 2
    if colours < values.shape[-1] and not constant(values[..., -1]):
        raise Unreadable(
            f"has {values.shape[-1]} channels, and the last varies: it is no colour; split it first"
        )
    values = near_zero(values[..., :colours])
    if colours == 1:
        return np.asarray(values[..., 0], np.float32)
    # Channel by channel, so that no second copy of all three is made.
    out = np.zeros(values.shape[:-1], np.float32)
    for channel, weight in enumerate(_LUMINANCE):
        out += values[..., channel] * weight
    return out


def check_alpha(alpha: np.ndarray) -> None:
    """Refuses a declared alpha channel that could be an image: one of more than two values.

    Raises:
      Unreadable: it is one.
    """
    if ((alpha != alpha.min()) & (alpha != alpha.max())).any():
        raise Unreadable(
            "has an alpha channel of more than two values, which could be an image of its own; save "
            "the picture without it"
        )


def constant(values: np.ndarray) -> bool:
    """Whether all values are the same."""
    return bool((values == values.flat[0]).all())


def in_float32(values: np.ndarray) -> np.ndarray:
    """Real values as float32; what lies far from zero for its range is moved there first."""
    return np.asarray(near_zero(values), np.float32)


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """[h, w] turned as orientations 1 to 8 of TIFF 6.0 and EXIF ask; others leave it as it is."""
    if orientation in (5, 6, 7, 8):
        values = values.T
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)
