"""What may have happened to a copy of an image, by SciPy and Pillow alone.

Contract: images are float64 [s, s] on [0, 1], in and out, and every change draws its own strength
from a generator. Nothing of `ops` takes part, so that what detects copies is not measured with
itself. Three lists: `MOVES` change the frame or the acquisition, `EXACT` keep every structure,
`NEAR` change a region that holds structure.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

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
    return np.clip(image, 0, 1) ** rng.uniform(0.5, 1.5)


def _crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 10 % of the side is cut away, and the rest is stretched to the frame."""
    side = len(image)
    left = round(side * (1 - rng.uniform(0.0, 0.1)))
    y, x = rng.integers(0, side - left + 1, 2)
    part = Image.fromarray(image[y : y + left, x : x + left].astype(np.float32))
    return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR), np.float64)


def _noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image + rng.normal(0, rng.uniform(0.01, 0.05), image.shape)


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return ndimage.gaussian_filter(image, rng.uniform(0.5, 2.0) * len(image) / 256)


def _jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    levels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(levels).save(buffer, "JPEG", quality=int(rng.integers(30, 80)))
    return np.asarray(Image.open(buffer), np.float64) / 255


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
    levels = int(rng.integers(16, 65))
    return np.round(np.clip(image, 0, 1) * (levels - 1)) / (levels - 1)


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


# Of the side: no region's centre leaves the frame where a harsh setting moves or crops the image.
_MARGIN = 0.22


def _place(
    image: np.ndarray, rng: np.random.Generator, *, radius: float, richest: float
) -> np.ndarray:
    """A centre (y, x) among the share `richest` of places with most structure around them.

    A change where there is nothing would change nothing.
    """
    margin = int(_MARGIN * len(image))
    mean = ndimage.uniform_filter(image, int(2 * radius) + 1)
    square = ndimage.uniform_filter(image**2, int(2 * radius) + 1)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))[margin:-margin, margin:-margin]
    rich = np.argwhere(deviation >= np.quantile(deviation, 1 - richest))
    return rich[rng.integers(len(rich))] + margin


def _region(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    share: tuple[float, float],
    richest: float = 0.4,
) -> np.ndarray:
    """A soft ellipse [s, s] of `share` of the area on [0, 1], where there is structure."""
    side = len(image)
    area, ratio, angle = rng.uniform(*share), rng.uniform(0.7, 1.4), rng.uniform(0, np.pi)
    radius = side * np.sqrt(area / np.pi)
    y, x = (
        np.indices(image.shape) - _place(image, rng, radius=radius, richest=richest)[:, None, None]
    )
    along = np.cos(angle) * x + np.sin(angle) * y
    across = -np.sin(angle) * x + np.cos(angle) * y
    distance = np.hypot(along / ratio, across * ratio) - radius
    return 1 / (1 + np.exp(np.clip(distance / (0.01 * side), -50, 50)))


_REGION = (0.05, 0.25)
_LESION = (0.004, 0.02)


def deformed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A region bent smoothly; where it moves most, by 3 to 7 % of the side."""
    side = len(image)
    soft = ndimage.gaussian_filter(_region(image, rng, share=_REGION), 0.03 * side)
    field = ndimage.gaussian_filter(rng.normal(size=(2, side, side)), (0, 0.08 * side, 0.08 * side))
    field = field * soft
    reach = rng.uniform(0.03, 0.07) * side
    field *= reach / np.sqrt((field**2).sum(0)).max()
    return ndimage.map_coordinates(image, np.indices(image.shape) + field, order=1, mode="nearest")


def replaced(image: np.ndarray, rng: np.random.Generator, donor: np.ndarray) -> np.ndarray:
    """A region from the same place of another patient's image."""
    soft = _region(image, rng, share=_REGION)
    return image * (1 - soft) + donor * soft


def _filled(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The image with its hole closed from around, by normalised convolution."""
    known = 1 - hole
    width = 0.6 * np.sqrt(hole.sum() / np.pi)
    total = ndimage.gaussian_filter(known, width)
    return ndimage.gaussian_filter(image * known, width) / np.maximum(total, 1e-6)


def inpainted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A region closed from its surroundings."""
    soft = _region(image, rng, share=_REGION)
    return image * (1 - soft) + _filled(image, soft) * soft


def recontrasted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tissues of a region against each other: much less, or the other way round."""
    soft = _region(image, rng, share=_REGION)
    mean = (image * soft).sum() / soft.sum()
    factor = rng.uniform(-0.6, 0.3)
    return image * (1 - soft) + (mean + factor * (image - mean)) * soft


def lesion_added(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bright or dark irregular spot of 0.4 to 2 % of the area."""
    soft = _region(image, rng, share=_LESION)
    rough = ndimage.gaussian_filter(rng.normal(size=image.shape), 0.015 * len(image))
    soft = np.clip(soft * (1 + 0.3 * rough / rough.std()), 0, 1)
    low, high = np.percentile(image, (2, 98))
    inside = (image * soft).sum() / soft.sum()
    # Away from what is there: a bright spot in bright tissue would not be seen.
    target = high if inside < (low + high) / 2 else low
    strength = rng.uniform(0.6, 0.9)
    return image * (1 - strength * soft) + target * strength * soft


def structure_removed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A small place full of structure, 1 to 3 % of the area, closed from its surroundings."""
    soft = _region(image, rng, share=(0.01, 0.03), richest=0.05)
    return image * (1 - soft) + _filled(image, soft) * soft


NEAR: dict[str, Change] = {
    "deformation": deformed,
    "inpainting": inpainted,
    "local contrast": recontrasted,
    "lesion added": lesion_added,
    "structure removed": structure_removed,
}
