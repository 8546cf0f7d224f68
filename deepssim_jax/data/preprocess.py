"""Bringing images to one declared size, with their aspect kept.

Contract: images in are float32 [h, w] of any size; out they are float32 or uint16 of the declared
size. Intensities are only rescaled linearly: z-scoring happens on the device.
"""

import numpy as np
from PIL import Image

_LEVELS = 65535
# An outlier lies further from the rest than this many times the range of all but this share of the
# values; percentiles of more values than `_MOST_SAMPLED` are taken from every n-th.
_FAR, _SHARE, _MOST_SAMPLED = 10.0, 0.001, 200_000


def fit_to_size(image: np.ndarray, *, size: tuple[int, int]) -> np.ndarray:
    """Antialiased resize that keeps the aspect; the rest is filled with the border's median.

    Args:
      image: float32 [h, w].
      size: (height, width) wanted.

    Returns:
      float32 [*size], the image centred.
    """
    height, width = image.shape
    factor = min(size[0] / height, size[1] / width)
    inner = (max(1, round(height * factor)), max(1, round(width * factor)))
    small = image
    if inner != image.shape:
        picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
        small = np.asarray(picture.resize(inner[::-1], Image.Resampling.BILINEAR))
    if inner == size:
        return np.asarray(small, np.float32)
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    out = np.full(size, np.median(border), np.float32)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    out[top : top + inner[0], left : left + inner[1]] = small
    return out


def fit_to_canvas(image: np.ndarray, *, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """An image [h, w] with its longer side brought to `side`, in the middle of a square canvas.

    Args:
      image: float32, any range; it is brought to [0, 1].
      side: of the canvas in pixels, a multiple of 16.

    Returns:
      float32 [side, side], the border pixels repeated outwards, and the (height, width) of the image in it,
      both even.
    """
    low, high = float(image.min()), float(image.max())
    image = (image - low) / max(high - low, 1e-12)
    factor = side / max(image.shape)
    height, width = (min(side, max(2, 2 * round(s * factor / 2))) for s in image.shape)
    inner = (height, width)
    if inner != image.shape:
        picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
        image = np.asarray(picture.resize(inner[::-1], Image.Resampling.BILINEAR))
    pads = [((side - s) // 2,) * 2 for s in inner]
    return np.pad(image, pads, mode="edge").astype(np.float32), inner


def without_outliers(image: np.ndarray) -> np.ndarray:
    """Cuts a few values that would leave nothing of the picture: hot pixels, sentinels.

    Where the whole range is more than ten times that from the 0.1st to the 99.9th percentile, values
    outside of these two become the nearer one. Any other image, and one that is flat between them,
    is given back as it is.

    Args:
      image: float32 of any shape, finite.

    Returns:
      float32 of the same shape.
    """
    low, high = float(image.min()), float(image.max())
    sample = image.reshape(-1)[:: max(1, image.size // _MOST_SAMPLED)]
    inner_low, inner_high = np.quantile(sample, [_SHARE, 1 - _SHARE], method="nearest")
    if not 0 < _FAR * (float(inner_high) - float(inner_low)) < high - low:
        return image
    return np.clip(image, inner_low, inner_high)


def quantize(image: np.ndarray) -> np.ndarray:
    """Linearly from [minimum, maximum] to uint16 [0, 65535]; a flat image gives zeros."""
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return np.zeros(image.shape, np.uint16)
    return np.round((image - low) * (_LEVELS / (high - low))).astype(np.uint16)
