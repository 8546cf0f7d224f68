"""Edits of intensity and detail: float64 [h, w] on [0, 1] in, the same shape out.

Values may leave [0, 1]; `Edit.make` cuts them off, as a file does.
"""

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from deepssim_jax.data.edits.geometry import resized

_BLUR_SIDE = 256  # the longer side at which a blur's sigma is in pixels


def noisy(image: np.ndarray, rng: np.random.Generator, *, deviation: float) -> np.ndarray:
    """White Gaussian noise."""
    return image + rng.normal(0, deviation, image.shape)


def blurred(image: np.ndarray, _: np.random.Generator, *, sigma: float) -> np.ndarray:
    """Gaussian, `sigma` in pixels of an image whose longer side is 256."""
    return ndimage.gaussian_filter(image, sigma * max(image.shape) / _BLUR_SIDE)


def jpeg(image: np.ndarray, _: np.random.Generator, *, quality: int) -> np.ndarray:
    """Through a JPEG file in eight bits."""
    buffer = io.BytesIO()
    levels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(levels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), np.float64) / 255


def downsampled(image: np.ndarray, _: np.random.Generator, *, side: int) -> np.ndarray:
    """The longer side brought to `side` pixels and back; a smaller image stays as it is."""
    factor = min(1.0, side / max(image.shape))
    small = resized(
        image, (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)))
    )
    return resized(small, image.shape)


def gamma(image: np.ndarray, _: np.random.Generator, *, exponent: float) -> np.ndarray:
    """x to x^exponent."""
    return np.clip(image, 0, 1) ** exponent


def brightened(image: np.ndarray, _: np.random.Generator, *, factor: float) -> np.ndarray:
    """x to factor x."""
    return image * factor


def contrasted(image: np.ndarray, _: np.random.Generator, *, factor: float) -> np.ndarray:
    """Away from the mean by `factor`."""
    return image.mean() + factor * (image - image.mean())


def equalised(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """x to the share of pixels that are at most x."""
    values, where, counts = np.unique(image, return_inverse=True, return_counts=True)
    del values
    return (np.cumsum(counts) / image.size)[where].reshape(image.shape)


def windowed(image: np.ndarray, _: np.random.Generator, *, width: float) -> np.ndarray:
    """The middle `width` of the range of intensities (its 2 and 98 %) stretched to [0, 1]."""
    low, high = np.percentile(image, (2, 98))
    half = max(width * (high - low) / 2, 1e-6)
    middle = (low + high) / 2
    return (image - middle + half) / (2 * half)


def posterised(image: np.ndarray, _: np.random.Generator, *, levels: int) -> np.ndarray:
    """Rounded to `levels` equally spaced values."""
    return np.round(image * (levels - 1)) / (levels - 1)


def negative(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """x to 1 - x."""
    return 1 - image
