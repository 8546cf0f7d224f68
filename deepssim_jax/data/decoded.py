"""What every reader of a format gives.

Contract: `values` is float32 [h, w], rows downwards, or [d, h, w] with the axes of `data.volume`;
`spacing` is the size of a step along each axis, in mm where `values` is a volume (for a picture only
its proportions count), or None where the file does not say.
"""

import dataclasses

import numpy as np

# ITU-R BT.601. An alpha channel says nothing about the patient.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class Decoded:
    """One image or volume as its file holds it."""

    values: np.ndarray
    spacing: np.ndarray | None = None


def luminance(values: np.ndarray) -> np.ndarray:
    """float32 [...] of [..., c]: c is 1 or 2 (grey, alpha), or 3 or 4 (red, green, blue, alpha)."""
    if values.shape[-1] < 3:
        return np.asarray(values[..., 0], np.float32)
    # Channel by channel, so that no second copy of all three is made.
    out = np.zeros(values.shape[:-1], np.float32)
    for channel, weight in enumerate(_LUMINANCE):
        out += values[..., channel] * weight
    return out


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """[h, w] turned as orientations 1 to 8 of TIFF 6.0 and EXIF ask; others leave it as it is."""
    if orientation in (5, 6, 7, 8):
        values = values.T
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)
