"""The stress list: what may have happened to a copy, by SciPy and Pillow alone.

Contract: images are float64 [s, s] on [0, 1], in and out. No code of the package takes part, so that
what is measured with them is not measured with itself.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage


def _warp(
    image: np.ndarray, *, degrees: float = 0.0, zoom: float = 1.0, shift: np.ndarray | None = None
) -> np.ndarray:
    angle, centre = np.deg2rad(degrees), (np.array(image.shape) - 1) / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    moved = np.zeros(2) if shift is None else shift
    return ndimage.affine_transform(
        image, turn, offset=centre - turn @ (centre + moved), order=1, mode="constant"
    )


def _crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 10 % of the side is cut away, and the rest is stretched to the frame."""
    side = len(image)
    left = round(side * (1 - rng.uniform(0.0, 0.1)))
    y, x = rng.integers(0, side - left + 1, 2)
    part = Image.fromarray(image[y : y + left, x : x + left].astype(np.float32))
    return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR), np.float64)


def _jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    levels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(levels).save(buffer, "JPEG", quality=int(rng.integers(30, 80)))
    return np.asarray(Image.open(buffer), np.float64) / 255


def _bias(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth factor between about 0.6 and 1.6."""
    field = ndimage.zoom(rng.uniform(-1, 1, (3, 3)), len(image) / 3, order=3)
    return image * np.exp(0.4 * field)


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "mirror": lambda x, rng: x[:, ::-1] if rng.random() < 0.5 else x[::-1],
    "rotation 15 degrees": lambda x, rng: _warp(x, degrees=rng.uniform(-15, 15)),
    "shift 10 %": lambda x, rng: _warp(x, shift=rng.uniform(-0.1, 0.1, 2) * len(x)),
    "zoom 0.85-1.15": lambda x, rng: _warp(x, zoom=rng.uniform(0.85, 1.15)),
    "crop 10 %": _crop,
    "noise 5 %": lambda x, rng: x + rng.normal(0, rng.uniform(0.01, 0.05), x.shape),
    "blur": lambda x, rng: ndimage.gaussian_filter(x, rng.uniform(0.5, 2.0) * len(x) / 256),
    "JPEG": _jpeg,
    "gamma 0.5-1.5": lambda x, rng: np.clip(x, 0, 1) ** rng.uniform(0.5, 1.5),
    "bias field": _bias,
}
CONDITIONS: dict[str, int | str] = {
    **{name: name for name in CHANGES},
    "two of them": 2,
    "three of them": 3,
}


def stressed(image: np.ndarray, condition: str, rng: np.random.Generator) -> np.ndarray:
    """One image under one of `CONDITIONS`."""
    what = CONDITIONS[condition]
    names = [what] if isinstance(what, str) else rng.choice(list(CHANGES), what, replace=False)
    for name in names:
        image = CHANGES[str(name)](image, rng)
    return image
