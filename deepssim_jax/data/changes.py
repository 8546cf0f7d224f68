"""What may have happened to a copy of an image, by SciPy and Pillow alone.

Contract: images are float64 [s, s] on [0, 1], in and out, and every change draws its own strength
from a generator. Nothing of `ops` takes part, so that what detects copies is not measured with
itself. Three lists: `MOVES` change the frame or the acquisition, `EXACT` keep every structure,
`NEAR` change a region that holds structure.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

from deepssim_jax.data.edits import acquisition, regions

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _warp(
    image: np.ndarray, *, degrees: float = 0.0, zoom: float = 1.0, shift: np.ndarray | None = None
) -> np.ndarray:
    angle, centre = np.deg2rad(degrees), (np.array(image.shape) - 1) / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    moved = np.zeros(2) if shift is None else shift
    return ndimage.affine_transform(
        image, turn, offset=centre - turn @ (centre + moved), order=1, mode="constant"
    )


def rotation(image: np.ndarray, rng: np.random.Generator, *, degrees: float) -> np.ndarray:
    """Turned by up to `degrees` either way; what comes from outside is black."""
    return _warp(image, degrees=rng.uniform(-degrees, degrees))


def mirror(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Left-right or upside down."""
    return image[:, ::-1] if rng.random() < 0.5 else image[::-1]


def gamma(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """x to x^g, g from 0.5 to 1.5."""
    return acquisition.gamma(image, rng, exponent=rng.uniform(0.5, 1.5))


def _crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 10 % of the side is cut away, and the rest is stretched to the frame."""
    side = len(image)
    left = round(side * (1 - rng.uniform(0.0, 0.1)))
    y, x = rng.integers(0, side - left + 1, 2)
    part = Image.fromarray(image[y : y + left, x : x + left].astype(np.float32))
    return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR), np.float64)


def _noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return acquisition.noisy(image, rng, deviation=rng.uniform(0.01, 0.05))


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return acquisition.blurred(image, rng, sigma=rng.uniform(0.5, 2.0))


def _jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return acquisition.jpeg(image, rng, quality=int(rng.integers(30, 80)))


def _bias(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth factor between about 0.6 and 1.6."""
    field = ndimage.zoom(rng.uniform(-1, 1, (3, 3)), len(image) / 3, order=3)
    return image * np.exp(0.4 * field)


MOVES: dict[str, Change] = {
    "mirror": mirror,
    "rotation 15 degrees": lambda x, rng: rotation(x, rng, degrees=15),
    "shift 10 %": lambda x, rng: _warp(x, shift=rng.uniform(-0.1, 0.1, 2) * len(x)),
    "zoom 0.85-1.15": lambda x, rng: _warp(x, zoom=rng.uniform(0.85, 1.15)),
    "crop 10 %": _crop,
    "noise 5 %": _noise,
    "blur": _blur,
    "JPEG": _jpeg,
    "gamma 0.5-1.5": gamma,
    "bias field": _bias,
}


def _quantised(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return acquisition.posterised(np.clip(image, 0, 1), rng, levels=int(rng.integers(16, 65)))


def _intensity(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma, gain and offset; what leaves [0, 1] is cut off, as in a file."""
    bent = np.clip(image, 0, 1) ** rng.uniform(0.7, 1.4)
    return np.clip(bent * rng.uniform(0.8, 1.15) + rng.uniform(-0.05, 0.1), 0, 1)


def _decoded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As an autoencoder gives it back: fine detail lost, edges kept, a little ringing."""
    small = Image.fromarray(image.astype(np.float32))
    side = round(len(image) / rng.uniform(1.5, 2.5))
    small = small.resize((side, side), Image.Resampling.LANCZOS)
    large = small.resize((len(image),) * 2, Image.Resampling.BICUBIC)
    return ndimage.median_filter(np.asarray(large, np.float64), 3)


EXACT: dict[str, Change] = {
    "blur": _blur,
    "noise": _noise,
    "quantisation": _quantised,
    "jpeg": _jpeg,
    "intensity": _intensity,
    "smoothing": _decoded,
}


NEAR: dict[str, Change] = {
    "deformation": regions.deformed,
    "inpainting": regions.inpainted,
    "local contrast": regions.recontrasted,
    "lesion added": regions.lesion_added,
    "structure removed": regions.structure_removed,
}
