"""Writing pictures."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from deepssim_jax.files import write_bytes


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes an image [h, w] of values in [0, 1] as an 8-bit PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())
