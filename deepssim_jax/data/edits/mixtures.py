"""Edits with foreign content: marks, boxes, and pieces of another image.

Contract: image and donor are float64 on [0, 1], of any two shapes; the donor is brought to the
image's shape by scaling until it covers it, cut centrally. The results say which pixels are whose.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deepssim_jax.data.edits.geometry import resized
from deepssim_jax.data.edits.types import Edited

_TRIES = 9  # boxes drawn for a part, of which one with more structure than half of them is kept


def fitted(donor: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The donor covering `shape`, its aspect kept, cut centrally."""
    factor = max(shape[0] / donor.shape[0], shape[1] / donor.shape[1])
    scaled = resized(
        donor,
        (
            max(shape[0], round(donor.shape[0] * factor)),
            max(shape[1], round(donor.shape[1] * factor)),
        ),
    )
    top, left = (scaled.shape[0] - shape[0]) // 2, (scaled.shape[1] - shape[1]) // 2
    return scaled[top : top + shape[0], left : left + shape[1]]


def _box(shape: tuple[int, int], rng: np.random.Generator, *, share: float) -> tuple[slice, slice]:
    """A box of `share` of the area, its aspect within a factor of 1.4 of the frame's."""
    ratio = np.sqrt(rng.uniform(1 / 1.4, 1.4))
    height = min(shape[0], round(shape[0] * np.sqrt(share) * ratio))
    width = min(shape[1], round(shape[1] * np.sqrt(share) / ratio))
    top, left = _corner(shape, (height, width), rng)
    return slice(top, top + height), slice(left, left + width)


def _corner(
    shape: tuple[int, int], box: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    return (
        int(rng.integers(shape[0] - box[0] + 1)),
        int(rng.integers(shape[1] - box[1] + 1)),
    )


def _mask(shape: tuple[int, int], box: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[box] = True
    return mask


def _canvas(image: np.ndarray) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.fromarray(image.astype(np.float32))
    return picture, ImageDraw.Draw(picture)


def lettered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Burnt-in white text: three lines in one corner, a side's letter in another."""
    picture, draw = _canvas(image)
    height, width = image.shape
    font = ImageFont.load_default(max(8, round(0.06 * height)))
    numbers = rng.integers(0, 10, 14)
    lines = ("PATIENT " + "".join(map(str, numbers[:6])), "20" + "".join(map(str, numbers[6:12])))
    y = float(rng.uniform(0.02, 0.7)) * height
    for number, line in enumerate((*lines, "KV 120")):
        draw.text((0.03 * width, y + 0.08 * height * number), line, fill=1.0, font=font)
    letter = ImageFont.load_default(max(12, round(0.14 * height)))
    draw.text((0.84 * width, 0.03 * height), "LR"[int(rng.integers(2))], fill=1.0, font=letter)
    return np.asarray(picture, np.float64)


def marked(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A reader's marks: a circle, an arrow to it, and a ruler along an edge."""
    picture, draw = _canvas(image)
    height, width = image.shape
    line = max(1, round(0.008 * max(image.shape)))
    x, y = rng.uniform(0.3, 0.7, 2) * (width, height)
    radius = float(rng.uniform(0.1, 0.2)) * min(image.shape)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1.0, width=line)
    draw.line((0.1 * width, 0.1 * height, x - 0.7 * radius, y - 0.7 * radius), fill=1.0, width=line)
    for number in range(11):
        at = (0.1 + 0.08 * number) * height
        draw.line((0.96 * width, at, 0.99 * width, at), fill=1.0, width=line)
    return np.asarray(picture, np.float64)


def occluded(image: np.ndarray, rng: np.random.Generator, *, share: float) -> Edited:
    """A black box over `share` of the area."""
    own = ~_mask(image.shape, _box(image.shape, rng, share=share))
    return Edited(np.where(own, image, 0.0), own, own)


def patched(
    image: np.ndarray, donor: np.ndarray, rng: np.random.Generator, *, share: float
) -> Edited:
    """A box of `share` of the area from the same place of the donor."""
    own = ~_mask(image.shape, _box(image.shape, rng, share=share))
    return Edited(np.where(own, image, fitted(donor, image.shape)), own, own)


def half_replaced(image: np.ndarray, donor: np.ndarray, rng: np.random.Generator) -> Edited:
    """One half, at one of the four edges, from the donor."""
    own = np.ones(image.shape, bool)
    axis, first = int(rng.integers(2)), bool(rng.integers(2))
    middle = image.shape[axis] // 2
    np.moveaxis(own, axis, 0)[slice(None, middle) if first else slice(middle, None)] = False
    return Edited(np.where(own, image, fitted(donor, image.shape)), own, own)


def blended(
    image: np.ndarray, donor: np.ndarray, _: np.random.Generator, *, alpha: float
) -> Edited:
    """`alpha` of the image and the rest of the donor, everywhere."""
    return Edited(alpha * image + (1 - alpha) * fitted(donor, image.shape))


def part(
    image: np.ndarray, donor: np.ndarray, rng: np.random.Generator, *, share: float, moved: bool
) -> Edited:
    """A box of `share` of the area of the image inside the donor.

    A part of a flat background shows nothing of anybody: the box is one at random of those that
    hold at least as much structure as the middle one of several.
    """
    boxes = [_box(image.shape, rng, share=share) for _ in range(_TRIES)]
    structure = np.array([image[box].std() for box in boxes])
    box = boxes[rng.choice(np.flatnonzero(structure >= np.median(structure)))]
    content, placed = image[box], box
    if moved:
        top, left = _corner(image.shape, content.shape, rng)
        placed = slice(top, top + content.shape[0]), slice(left, left + content.shape[1])
    copy = fitted(donor, image.shape).copy()
    copy[placed] = content
    return Edited(copy, _mask(image.shape, placed), _mask(image.shape, box))
