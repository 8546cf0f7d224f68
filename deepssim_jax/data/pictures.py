"""Writing pictures."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from deepssim_jax.files import write_bytes


def as_uint8(image: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as the pixels of a picture."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """An image [h, w] of values in [0, 1] as an 8-bit PNG."""
    buffer = io.BytesIO()
    Image.fromarray(as_uint8(image)).save(buffer, "PNG")
    return buffer.getvalue()


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes an image [h, w] of values in [0, 1] as an 8-bit PNG."""
    write_bytes(path, png(image))
