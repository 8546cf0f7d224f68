"""Sheets: several pictures in one, as a training script saves its samples, and pictures on an empty page.

Contract: images are float32 [h, w] of any range. A sheet is a picture that lines across all of it, at
equal distances or of one value, cut into three or more fields that hold something. Whether a field is
a copy shows best when it is compared alone: in the sheet it has a fraction of the pixels.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy  # whose parts load when they are first used

from deepssim_jax.data.volume import Unreadable

# Fewer pixels a side say nothing of a field; so many are looked for in one direction.
_LEAST_SIDE, _MOST_IN_LINE, MOST_FIELDS = 32, 64, 256
# A line is flat below this share of the image's range, and a step where it is so many times as
# high as those at some lines from it; single pixels count up to `_MOST_STEP`.
_FLAT, _STEP, _LOW_STEP, _MOST_STEP, _LEAST_STEP = 0.04, 3.0, 1.6, 6.0, 0.05
_BLOCK, _NEAR = 8, np.array([*range(-8, -1), *range(2, 9)])
# Of a line so many pixels are looked at, and of their values so much: what JPEG leaves beside it is not.
_SAMPLED, _MOST_OF_A_LINE = 256, (0.05, 0.95)
# Into how many parts a field is cut by lines as regular as those around it, where it is none.
_FINER, _FINE_LINES = range(2, 9), 0.5
# How far a line may lie from where equal fields would have it, for margins.
_OFF = 4
_MIDDLE = np.linspace(0.3, 0.7, 9)  # of a part
# Of many lines some may lie where both neighbours are dark.
_LINES = 0.75
# A field holds something above this share of the image's range; so many of a table's have to.
_HOLDS, _FILLED = 0.1, 0.75
# Rows of a table are as high as this share of the highest one, and its fields cover so much of the image.
_ROW, _SPARSE = 0.75, 0.1
# Content that fills less than this share of a page stands alone; a page varies less than the other share
# of the range.
_LEAST_CONTENT, _PAGE = 0.25, 0.1
# So many lines along each edge of a picture are filled to this share.
_EDGE, _STRAIGHT = 3, 0.5


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
    """What of an image is no empty page: all of it, unless a picture with straight edges lies on one.

    What has no such edges, a head or a hot spot on black, may have been in that place before it was windowed.

    Args:
      image: float32 [h, w].

    Returns:
      All of the image, or the smallest part of it, 32 pixels a side at least and a quarter of the image at
      most, beyond which each row and column is like its border, but for noise.
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
    found = Box(int(rows[0]), int(columns[0]), height, width)
    if min(height, width) < _LEAST_SIDE or height * width > _LEAST_CONTENT * image.size:
        return whole
    inner = found.of(there)
    edges = (inner[:_EDGE], inner[-_EDGE:], inner[:, :_EDGE], inner[:, -_EDGE:])
    return found if min(edge.mean() for edge in edges) > _STRAIGHT else whole


def fields(image: np.ndarray) -> list[Box]:
    """The pictures of a sheet, row by row, `MOST_FIELDS` at most; none if the image is no sheet.

    Args:
      image: float32 [h, w].

    Raises:
      Unreadable: the sheet holds more pictures.
    """
    page = content(image)
    image = page.of(image)
    if min(image.shape) < _LEAST_SIDE:
        return []
    found = _between_flat_lines(image)
    if not _is_full(image, found):
        equal = _of_equal_size(image)
        loose = _is_table(image, found) and len(found) > len(equal)
        found = found if loose else equal
    if len(found) > MOST_FIELDS:
        raise Unreadable(
            f"looks like a sheet of {len(found)} pictures, and at most {MOST_FIELDS} are compared; give them "
            "as files of their own"
        )
    return [
        dataclasses.replace(box, top=box.top + page.top, left=box.left + page.left)
        for box in sorted(found)
    ]


def _between_flat_lines(image: np.ndarray) -> list[Box]:
    """The fields between lines of one value that cross the image, and then each of its strips."""
    whole = Box(0, 0, *image.shape)
    least = _FLAT * float(np.ptp(image))
    boxes = [box for strip in _cut(image, whole, 0, least) for box in _cut(image, strip, 1, least)]
    return _holding(image, boxes)


def _is_full(image: np.ndarray, boxes: list[Box]) -> bool:
    """Whether boxes are three or more of one size, more or less, that cover most of the image."""
    areas = [box.height * box.width for box in boxes]
    return len(areas) >= 3 and max(areas) <= 2 * min(areas) and sum(areas) >= 0.5 * image.size


def _is_table(image: np.ndarray, boxes: list[Box]) -> bool:
    """Whether boxes lie in two or more rows of one height, more or less, and two or more columns.

    Between lungs, and beside them, lies ground too.
    """
    areas = [box.height * box.width for box in boxes]
    rows = {box.top: box.height for box in boxes}
    return (
        len(rows) >= 2
        and len(boxes) > len(rows)
        and min(rows.values()) >= _ROW * max(rows.values())
        and max(areas) <= 3 * min(areas)
        and sum(areas) >= _SPARSE * image.size
    )


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
    if min(rows, columns) == 1:
        both = [np.where(g, _STEP, s) for s, g in zip(steps, grounds, strict=True)]
        table = tuple(map(_equal_parts, both, grounds))
        if min(table) > 1:
            rows, columns = table
    if rows * columns < 3:
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


def _equal_parts(steps: np.ndarray, grounds: np.ndarray) -> int:
    """In how many equal parts lines cut an axis: the most for which there is one at most places, else 1.

    Args:
      steps: float [n], see `_steps`.
      grounds: bool [n], where nothing but ground is; in the middle of a part is none.
    """
    side = len(steps)

    # A low step counts just where it has to be, a high one also beside a margin.
    there = (scipy.ndimage.maximum_filter1d(steps, 2 * _OFF + 1) >= _STEP) | (
        scipy.ndimage.maximum_filter1d(steps, 3) >= _LOW_STEP
    )

    def cuts(parts: int, share: float = _LINES) -> bool:
        lines = there[np.rint(np.arange(1, parts) * side / parts).astype(int)]
        middles = (np.arange(parts)[:, None] + _MIDDLE) * side / parts
        return lines.mean() >= share and not grounds[middles.astype(int)].any()

    most = min(_MOST_IN_LINE, side // _LEAST_SIDE)
    found = next((n for n in range(most, 1, -1) if cuts(n)), 1)
    # Lines that go on within the fields are those of squared paper.
    finer = (n * found for n in _FINER if side // (n * found) > 1)
    return 1 if found > 1 and any(cuts(n, _FINE_LINES) for n in finer) else found


def _steps(image: np.ndarray, axis: int) -> np.ndarray:
    """How much higher the step in the values before each line along an axis is than at lines near it."""
    steps = np.abs(np.diff(_sampled(image, axis), axis=axis))
    # Relative to the line on which a pixel lies, so that many small steps are more than few high ones.
    (median,) = _quantiles(steps, axis, (0.5,))
    usual = np.expand_dims(median, axis) + 0.002 * float(np.ptp(image))
    steps = np.minimum(steps / usual, _MOST_STEP).mean(1 - axis)
    padded = np.pad(steps, 2 * _BLOCK, mode="symmetric")
    around = np.lib.stride_tricks.sliding_window_view(padded, 4 * _BLOCK + 1)
    near = np.median(around[:, 2 * _BLOCK + _NEAR], axis=1)
    # JPEG leaves a step at every block, which has its peers a block and two away.
    blocks = np.median(around[:, [0, _BLOCK, 3 * _BLOCK, 4 * _BLOCK]], axis=1)
    return np.concatenate([[0.0], steps / (np.maximum(near, blocks) + _LEAST_STEP)])


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
