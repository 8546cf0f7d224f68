"""Sheets: several pictures in one, as a training script saves its samples, and pictures on an empty page.

Contract: images are float32 [h, w] of any range. A sheet is a picture that lines across all of it, at
equal distances or of one value, cut into three or more fields that hold something. Whether a field is
a copy shows best when it is compared alone: in the sheet it has a fraction of the pixels.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

# Fewer pixels a side say nothing of a field; of more fields in one direction, or in all, no sheet is made.
_LEAST_SIDE, _MOST_IN_LINE, MOST_FIELDS = 32, 16, 64
# A line is flat below this share of the image's range, and a step where it is so many times as
# high as the median step, and among the highest of all; single pixels count up to `_MOST_STEP`.
_FLAT, _STEP, _HIGHEST, _MOST_STEP = 0.04, 3.0, 0.97, 6.0
# Of a line so many pixels are looked at, and of their values so much: what JPEG leaves beside it is not.
_SAMPLED, _MOST_OF_A_LINE = 256, (0.05, 0.95)
# How far a line may lie from where equal fields would have it, for margins.
_OFF = 4
# Of many lines some may lie where both neighbours are dark.
_LINES = 0.75
# A field holds something above this share of the image's range; so many of a table's have to.
_HOLDS, _FILLED = 0.1, 0.75
# Content that fills less than this share of a page stands alone; a page varies less than the other share
# of the range.
_LEAST_CONTENT, _PAGE = 0.25, 0.1


@dataclasses.dataclass(frozen=True, order=True)
class Box:
    """A field of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """The field of an image [h, w]."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def content(image: np.ndarray) -> Box:
    """What of an image is no empty page: all of it, unless the rest fills three quarters and more.

    Args:
      image: float32 [h, w].

    Returns:
      All of the image, or the smallest part of it, 32 pixels a side at least, beyond which each row and
      column is like its border, but for noise.
    """
    whole = Box(0, 0, *image.shape)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    page, extent = float(np.median(border)), float(np.ptp(image))
    noise = float(np.quantile(np.abs(border - page), 0.99))
    if noise > _PAGE * extent:
        return whole
    there = np.abs(image - page) > max(1.5 * noise, 0.02 * extent)
    rows, columns = (np.flatnonzero(there.mean(axis) > 0.02) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return whole
    height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    if min(height, width) < _LEAST_SIDE or height * width > _LEAST_CONTENT * image.size:
        return whole
    return Box(int(rows[0]), int(columns[0]), height, width)


def fields(image: np.ndarray) -> list[Box]:
    """The pictures of a sheet, row by row, `MOST_FIELDS` at most; none if the image is no sheet.

    Args:
      image: float32 [h, w].
    """
    page = content(image)
    image = page.of(image)
    found = _between_flat_lines(image) or _of_equal_size(image)
    if len(found) > MOST_FIELDS:
        return []
    return [
        dataclasses.replace(box, top=box.top + page.top, left=box.left + page.left)
        for box in sorted(found)
    ]


def _between_flat_lines(image: np.ndarray) -> list[Box]:
    """The fields between lines of one value that cross the image, and then each of its strips."""
    whole = Box(0, 0, *image.shape)
    least = _FLAT * float(np.ptp(image))
    boxes = [box for strip in _cut(image, whole, 0, least) for box in _cut(image, strip, 1, least)]
    kept = _holding(image, boxes)
    # A table of pictures: of one size, more or less, and covering the image.
    areas = [box.height * box.width for box in kept]
    if len(kept) < 3 or max(areas) > 2 * min(areas) or sum(areas) < 0.5 * image.size:
        return []
    return kept


def _cut(image: np.ndarray, box: Box, axis: int, least: float) -> list[Box]:
    """A box without the flat lines along one axis, in pieces of `_LEAST_SIDE` and more."""
    flat = _grounds(box.of(image), axis, least)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], flat, [True]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    out = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if end - start < _LEAST_SIDE:
            continue
        if axis == 0:
            out.append(Box(box.top + start, box.left, end - start, box.width))
        else:
            out.append(Box(box.top, box.left + start, box.height, end - start))
    return out


def _of_equal_size(image: np.ndarray) -> list[Box]:
    """The fields of a regular sheet: at every line between them a step in the values, or one value.

    Pictures on a dark ground, as of heads, have no more between them than the ground. Lines of one value
    count only where they make rows and columns: one picture has some above and below it, too.
    """
    least = _FLAT * float(np.ptp(image))
    steps = [_steps(image, axis) for axis in (0, 1)]
    grounds = [_grounds(image, axis, least) for axis in (0, 1)]
    rows, columns = map(_equal_parts, steps, grounds)
    if rows * columns < 3:
        both = [step | ground for step, ground in zip(steps, grounds, strict=True)]
        rows, columns = map(_equal_parts, both, grounds)
        if min(rows, columns) == 1:
            return []
    tops, lefts = (
        np.linspace(0, side, parts + 1).round().astype(int)
        for side, parts in zip(image.shape, (rows, columns), strict=True)
    )
    boxes = [
        Box(int(top), int(left), int(bottom - top), int(right - left))
        for top, bottom in zip(tops[:-1], tops[1:], strict=True)
        for left, right in zip(lefts[:-1], lefts[1:], strict=True)
    ]
    held = _holding(image, boxes)
    return held if len(held) >= max(3, _FILLED * len(boxes)) else []


def _holding(image: np.ndarray, boxes: list[Box]) -> list[Box]:
    """Those of an image's boxes that hold something."""
    least = _HOLDS * float(np.ptp(image))
    return [box for box in boxes if np.ptp(box.of(image)) > least]


def _equal_parts(lines: np.ndarray, grounds: np.ndarray) -> int:
    """In how many equal parts lines cut an axis: the most for which there is one at most places, else 1.

    Args:
      lines: bool [n], where one could lie.
      grounds: bool [n], where nothing but ground is; in the middle of a part is none.
    """
    side = len(lines)

    def cuts(parts: int) -> bool:
        places = np.arange(1, parts) * side / parts
        there = [bool(lines[max(0, int(x) - _OFF) : int(x) + _OFF].any()) for x in places]
        middles = (np.arange(parts)[:, None] + np.linspace(0.3, 0.7, 9)) * side / parts
        return (
            sum(there) >= math.ceil(_LINES * len(there)) and not grounds[middles.astype(int)].any()
        )

    most = min(_MOST_IN_LINE, side // _LEAST_SIDE)
    return next((n for n in range(most, 1, -1) if cuts(n)), 1)


def _steps(image: np.ndarray, axis: int) -> np.ndarray:
    """Whether the values make a step across all of the image before each line along an axis."""
    steps = np.abs(np.diff(_sampled(image, axis), axis=axis))
    # Relative to the line on which a pixel lies, so that many small steps are more than few high ones.
    (median,) = _quantiles(steps, axis, (0.5,))
    usual = np.expand_dims(median, axis) + 0.002 * float(np.ptp(image))
    steps = np.minimum(steps / usual, _MOST_STEP).mean(1 - axis)
    high = max(_STEP * float(np.median(steps)), float(np.quantile(steps, _HIGHEST)), 1e-12)
    return np.concatenate([[False], steps >= high])


def _grounds(image: np.ndarray, axis: int, least: float) -> np.ndarray:
    """Whether each line along an axis varies less than `least`, but for few of its pixels."""
    low, high = _quantiles(_sampled(image, axis), 1 - axis, _MOST_OF_A_LINE)
    return high - low < least


def _sampled(image: np.ndarray, axis: int) -> np.ndarray:
    """All lines along one axis, and at most `_SAMPLED` pixels of each."""
    every = -(-image.shape[1 - axis] // _SAMPLED)
    return image[:, ::every] if axis == 0 else image[::every]


def _quantiles(values: np.ndarray, axis: int, shares: Sequence[float]) -> list[np.ndarray]:
    """Those next below some shares along an axis; a full sort takes a quarter of `np.quantile`'s time."""
    ordered = np.sort(np.ascontiguousarray(np.moveaxis(values, axis, 1)), axis=1)
    return [ordered[:, int(share * (ordered.shape[1] - 1))] for share in shares]
