"""Chest films as the studies read them: `<patient>_<number>.png`."""

from pathlib import Path

import numpy as np
from PIL import Image


def image_of(path: Path) -> np.ndarray:
    """float64 [h, w] on [0, 1]."""
    return np.asarray(Image.open(path).convert("L"), np.float64) / 255


def patient_of(path: Path) -> str:
    """Whose film it is."""
    return path.name.split("_")[0]
