"""Edits that move pixels: float64 [h, w] in, float64 [h', w'] out.

What comes from outside is filled in one of the ways in which other programs do: black, the border's
median, or the nearest pixel; a generator draws which. Directions and signs are drawn, too.
"""

import numpy as np
from PIL import Image
from scipy import ndimage

_BLACK, _BACKGROUND, _NEAREST = range(3)


def _border(image: np.ndarray) -> float:
    edges = (image[0], image[-1], image[:, 0], image[:, -1])
    return float(np.median(np.concatenate(edges)))


def _warped(
    image: np.ndarray, matrix: np.ndarray, shift: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The image where `matrix` @ (output - centre) + centre + `shift` looks; rows first."""
    centre = (np.array(image.shape) - 1) / 2
    fill = int(rng.integers(3))
    return ndimage.affine_transform(
        image,
        matrix,
        offset=centre - matrix @ centre + shift,
        order=1,
        mode="nearest" if fill == _NEAREST else "constant",
        cval=_border(image) if fill == _BACKGROUND else 0.0,
    )


def resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear, with smoothing where it gets smaller."""
    if image.shape == shape:
        return image
    picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR), np.float64)


def rotated(image: np.ndarray, rng: np.random.Generator, *, degrees: float) -> np.ndarray:
    """By exactly `degrees`, either way, inside the frame."""
    angle = np.deg2rad(degrees) * rng.choice((-1, 1))
    cosine, sine = np.cos(angle), np.sin(angle)
    return _warped(image, np.array([[cosine, -sine], [sine, cosine]]), np.zeros(2), rng)


def rotated_randomly(image: np.ndarray, rng: np.random.Generator, *, limit: float) -> np.ndarray:
    """By any angle up to `limit` degrees either way."""
    return rotated(image, rng, degrees=rng.uniform(0, limit))


def shifted(image: np.ndarray, rng: np.random.Generator, *, share: float) -> np.ndarray:
    """By `share` of the sides, in any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    shift = share * np.array(image.shape) * (np.sin(angle), np.cos(angle))
    return _warped(image, np.eye(2), shift, rng)


def sheared(image: np.ndarray, rng: np.random.Generator, *, amount: float) -> np.ndarray:
    """By `amount` pixels a pixel, along rows or columns."""
    matrix = np.eye(2)
    row = int(rng.integers(2))
    matrix[row, 1 - row] = amount * rng.choice((-1, 1))
    return _warped(image, matrix, np.zeros(2), rng)


def zoomed(image: np.ndarray, rng: np.random.Generator, *, factor: float) -> np.ndarray:
    """Enlarged or made smaller about the centre, inside the frame."""
    inner = (round(image.shape[0] * factor), round(image.shape[1] * factor))
    scaled = resized(image, inner)
    if factor >= 1:
        return scaled[_middle(inner, image.shape)]
    fill = int(rng.integers(3))
    top, left = (image.shape[0] - inner[0]) // 2, (image.shape[1] - inner[1]) // 2
    around = ((top, image.shape[0] - inner[0] - top), (left, image.shape[1] - inner[1] - left))
    if fill == _NEAREST:
        return np.pad(scaled, around, mode="edge")
    value = _border(image) if fill == _BACKGROUND else 0.0
    return np.pad(scaled, around, constant_values=value)


def _middle(whole: tuple[int, int], kept: tuple[int, ...]) -> tuple[slice, slice]:
    top, left = (whole[0] - kept[0]) // 2, (whole[1] - kept[1]) // 2
    return slice(top, top + kept[0]), slice(left, left + kept[1])


def cropped(image: np.ndarray, _: np.random.Generator, *, share: float) -> np.ndarray:
    """`share` of both sides cut off, half of it at either end."""
    kept = (round(image.shape[0] * (1 - share)), round(image.shape[1] * (1 - share)))
    return image[_middle(image.shape, kept)]


def cropped_at_one_side(image: np.ndarray, rng: np.random.Generator, *, share: float) -> np.ndarray:
    """`share` of one side cut off at one of the four edges."""
    turns = int(rng.integers(4))
    turned = np.rot90(image, turns)
    return np.rot90(turned[: round(len(turned) * (1 - share))], -turns)


def stretched(image: np.ndarray, _: np.random.Generator, *, ratio: float) -> np.ndarray:
    """Width over height times `ratio`, the area kept."""
    root = np.sqrt(ratio)
    return resized(image, (round(image.shape[0] / root), round(image.shape[1] * root)))


def elastic(image: np.ndarray, rng: np.random.Generator, *, reach: float) -> np.ndarray:
    """Bent smoothly everywhere; where it moves most, by `reach` of the longer side.

    The field's width, 8 % of the side, keeps it from folding up to a reach of 0.05.
    """
    side = max(image.shape)
    field = ndimage.gaussian_filter(
        rng.normal(size=(2, *image.shape)), (0, 0.08 * side, 0.08 * side)
    )
    field *= reach * side / np.sqrt((field**2).sum(0)).max()
    return ndimage.map_coordinates(image, np.indices(image.shape) + field, order=1, mode="nearest")
