"""Edits of one region that holds structure: lesions, inpainting, a bent or foreign region.

Contract: float64 [h, w] on [0, 1] in and out; lengths are shares of the geometric mean of the sides.
"""

import numpy as np
from scipy import ndimage

# Of the sides: no region's centre leaves the frame where a harsh setting moves or crops the image.
_MARGIN = 0.22


def _side(image: np.ndarray) -> float:
    return float(np.sqrt(image.shape[0] * image.shape[1]))


def _place(
    image: np.ndarray, rng: np.random.Generator, *, radius: float, richest: float
) -> np.ndarray:
    """A centre (y, x) among the share `richest` of places with most structure around them.

    A change where there is nothing would change nothing.
    """
    rows, columns = (slice(m, -m) for m in (int(_MARGIN * side) for side in image.shape))
    mean = ndimage.uniform_filter(image, int(2 * radius) + 1)
    square = ndimage.uniform_filter(image**2, int(2 * radius) + 1)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))[rows, columns]
    rich = np.argwhere(deviation >= np.quantile(deviation, 1 - richest))
    return rich[rng.integers(len(rich))] + (rows.start, columns.start)


def soft_region(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    share: tuple[float, float],
    richest: float = 0.4,
) -> np.ndarray:
    """A soft ellipse [h, w] of `share` of the area on [0, 1], where there is structure."""
    side = _side(image)
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
    side = _side(image)
    soft = ndimage.gaussian_filter(soft_region(image, rng, share=_REGION), 0.03 * side)
    field = ndimage.gaussian_filter(
        rng.normal(size=(2, *image.shape)), (0, 0.08 * side, 0.08 * side)
    )
    field = field * soft
    reach = rng.uniform(0.03, 0.07) * side
    field *= reach / np.sqrt((field**2).sum(0)).max()
    return ndimage.map_coordinates(image, np.indices(image.shape) + field, order=1, mode="nearest")


def replaced(image: np.ndarray, rng: np.random.Generator, donor: np.ndarray) -> np.ndarray:
    """A region from the same place of another patient's image."""
    soft = soft_region(image, rng, share=_REGION)
    return image * (1 - soft) + donor * soft


def _filled(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The image with its hole closed from around, by normalised convolution."""
    known = 1 - hole
    width = 0.6 * np.sqrt(hole.sum() / np.pi)
    total = ndimage.gaussian_filter(known, width)
    return ndimage.gaussian_filter(image * known, width) / np.maximum(total, 1e-6)


def inpainted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A region closed from its surroundings."""
    soft = soft_region(image, rng, share=_REGION)
    return image * (1 - soft) + _filled(image, soft) * soft


def recontrasted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tissues of a region against each other: much less, or the other way round."""
    soft = soft_region(image, rng, share=_REGION)
    mean = (image * soft).sum() / soft.sum()
    factor = rng.uniform(-0.6, 0.3)
    return image * (1 - soft) + (mean + factor * (image - mean)) * soft


def lesion_added(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bright or dark irregular spot of 0.4 to 2 % of the area."""
    soft = soft_region(image, rng, share=_LESION)
    rough = ndimage.gaussian_filter(rng.normal(size=image.shape), 0.015 * _side(image))
    soft = np.clip(soft * (1 + 0.3 * rough / rough.std()), 0, 1)
    low, high = np.percentile(image, (2, 98))
    inside = (image * soft).sum() / soft.sum()
    # Away from what is there: a bright spot in bright tissue would not be seen.
    target = high if inside < (low + high) / 2 else low
    strength = rng.uniform(0.6, 0.9)
    return image * (1 - strength * soft) + target * strength * soft


def structure_removed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A small place full of structure, 1 to 3 % of the area, closed from its surroundings."""
    soft = soft_region(image, rng, share=(0.01, 0.03), richest=0.05)
    return image * (1 - soft) + _filled(image, soft) * soft
