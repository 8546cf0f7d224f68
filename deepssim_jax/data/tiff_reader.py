"""TIFF files: any bit depth, signed or not, as their photometric interpretation means them.

Contract: `item` counts the pages from 0, those below a page (SubIFDs) after it. Left out is what declares
itself a thumbnail or a step of a pyramid, is smaller than a page of the same proportions and shows the same,
and what declares itself a mask and has one bit a pixel. WhiteIsZero is inverted, palettes are looked up, and
colours become luminance at their full depth.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from deepssim_jax.data.decoded import (
    Contents,
    Decoded,
    check_alpha,
    constant,
    in_float32,
    luminance,
    upright,
)
from deepssim_jax.data.guards import Limits, check_pixels, the_item
from deepssim_jax.data.volume import Unreadable

_ORIENTATION = 274
_MOST_SAMPLES = 16
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
# Samples that are colours; of all other photometric interpretations there is one.
_COLOURS: dict[int, int] = {
    tifffile.PHOTOMETRIC.RGB: 3,
    tifffile.PHOTOMETRIC.YCBCR: 3,
    tifffile.PHOTOMETRIC.CIELAB: 3,
    tifffile.PHOTOMETRIC.ICCLAB: 3,
    tifffile.PHOTOMETRIC.SEPARATED: 4,
}
# Correlation of a picture and its smaller version, whatever its window; two chests of one view have less.
_SAME = 0.95
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)


def contents(path: Path) -> Contents:
    """Images in the file, and the name of what is left out with the reason."""
    # An open file, for tifffile looks a path up in the file system, which takes as long as the rest.
    with path.open("rb") as opened, tifffile.TiffFile(opened) as file:
        if stacked := _stacked(file):
            return Contents(stacked)
        pages, others = _pages(file)
        return Contents(max(len(pages), 1), others)


def read(path: Path, item: int | None, limits: Limits) -> Decoded:
    """Reads one page.

    Raises:
      Unreadable: with the reason; tifffile's own errors for damage pass.
    """
    try:
        file = tifffile.TiffFile(path)
    except tifffile.TiffFileError as error:
        raise Unreadable("is no readable TIFF file") from error
    with file:
        stacked = _stacked(file)
        pages = _pages(file)[0]
        place = the_item(item, stacked or len(pages))
        page = pages[0 if stacked else place]
        _check_size(page, limits)
        if page.samplesperpixel > _MOST_SAMPLES:
            raise Unreadable(f"has {page.samplesperpixel} channels, and 1, 3 or 4 are known")
        if stacked:
            values = tifffile.memmap(path, mode="r").reshape(-1, *page.shape)[place]
        else:
            values = page.asarray()
        turn = page.tags.valueof(_ORIENTATION, 1)
        return Decoded(upright(_grey(_colours(values, page), page), int(turn)))


def _pages(
    file: tifffile.TiffFile,
) -> tuple[list[tifffile.TiffPage], tuple[tuple[str, str], ...]]:
    """Pages that are images; of the others their number in the file and the reason."""
    found = list(_all(file.pages))
    whole = [page for page in found if not page.subfiletype & (_REDUCED | _MASK)]
    pages, others, reduced = [], [], []
    for number, page in enumerate(found, 1):
        if page.subfiletype & _MASK and page.bitspersample == 1:
            others.append((f"page {number}", "a mask"))
        elif page.subfiletype & _REDUCED and any(
            _smaller(page, large) and _resembles(page, large) for large in (*whole, *reduced)
        ):
            reduced.append(page)
            others.append((f"page {number}", "a smaller version of another page"))
        else:
            pages.append(page)
    return pages, tuple(others)


def _smaller(page: tifffile.TiffPage, large: tifffile.TiffPage) -> bool:
    """Whether a page is smaller in both directions by one factor, up to rounding."""
    rows, columns = page.imagelength / large.imagelength, page.imagewidth / large.imagewidth
    rounding = 1 / large.imagelength + 1 / large.imagewidth
    return max(rows, columns) < 1 and abs(rows - columns) <= rounding


def _resembles(page: tifffile.TiffPage, large: tifffile.TiffPage) -> bool:
    """Whether a page shows what a larger one does. What cannot be read is left to its reader, as an image."""
    try:
        small, whole = (_picture(one, Limits()) for one in (page, large))
    # Whatever a file holds, reading it will say what is wrong.
    except Exception:
        return False
    # Writers average pixels, or take every second one.
    box = Image.Resampling.BOX
    averaged = np.asarray(Image.fromarray(whole).resize(small.shape[::-1], box))
    rows, columns = (
        np.minimum(np.arange(few) * round(many / few), many - 1)
        for few, many in zip(small.shape, whole.shape, strict=True)
    )
    return any(_correlated(small, shrunk) for shrunk in (averaged, whole[rows][:, columns]))


def _correlated(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures show the same; constant ones do."""
    one, other = (np.asarray(x - x.mean(), np.float64) for x in (one, other))
    spread = one.std() * other.std()
    return (
        bool(np.mean(one * other) > _SAME * spread) if spread > 0 else not one.any() | other.any()
    )


def _picture(page: tifffile.TiffPage, limits: Limits) -> np.ndarray:
    """float32 [h, w] of a page, as it lies in the file."""
    _check_size(page, limits)
    return _grey(_colours(page.asarray(), page), page)


def _all(pages: Iterable) -> Iterator[tifffile.TiffPage]:
    """Pages, and those below them: some writers lay the picture below its thumbnail."""
    seen: set[int] = set()
    waiting = [iter(pages)]
    while waiting:
        page = next(waiting[-1], None)
        if page is None:
            waiting.pop()
            continue
        whole = page.aspage()
        if whole.offset in seen:  # a damaged file can lead in a circle
            continue
        seen.add(whole.offset)
        yield whole
        if whole.subifds:
            waiting.append(iter(whole.pages))


def _stacked(file: tifffile.TiffFile) -> int:
    """Images of a file that describes only the first of many (ImageJ above 4 GB), else 0."""
    if len(file.pages) != 1 or not (file.is_imagej or file.is_shaped):
        return 0
    page = file.pages.first
    if file.filehandle.size < 2 * page.nbytes:  # its images lie one after the other, as they are
        return 0
    series = file.series[0]
    planes = series.size // max(page.size, 1)
    return planes if planes > 1 and series.dataoffset is not None else 0


def _check_size(page: tifffile.TiffPage, limits: Limits) -> None:
    sizes = page.imagewidth, page.imagelength, page.imagedepth, page.samplesperpixel
    if not all(isinstance(size, int) for size in sizes):  # bytes or a list, times millions
        raise Unreadable("declares no size: it is damaged")
    check_pixels(page.imagewidth, page.imagelength * page.imagedepth, limits)


def _colours(values: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """[h, w] or [h, w, c] without samples that are no colours."""
    axes = page.axes
    if "S" in axes:
        values = np.moveaxis(values, axes.index("S"), -1)
    if values.ndim != len(axes) or len(axes.replace("S", "")) != 2:
        raise Unreadable(f"a page has {len(axes)} axes, and a picture has two")
    if values.ndim == 2:
        return values
    samples = values.shape[-1]
    colours = min(samples, _COLOURS.get(page.photometric, 1))
    if samples == colours:
        return values
    if samples > colours + 1:
        raise Unreadable(f"has {samples} channels that are no colours; split it first")
    declared = page.extrasamples and page.extrasamples[-1] in _ALPHA
    if declared:
        check_alpha(values[..., -1])
    elif not constant(values[..., -1]):
        raise Unreadable(f"has {samples} channels that are no colours; split it first")
    return values[..., 0] if colours == 1 else values[..., :colours]


def _grey(values: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """float32 [h, w] of a page's grey values [h, w], or colours [h, w, c]."""
    kinds = tifffile.PHOTOMETRIC
    if values.dtype.kind == "c":
        return np.abs(values).astype(np.float32)
    if page.photometric == kinds.PALETTE and page.colormap is not None:
        return luminance(np.moveaxis(page.colormap[:, values], 0, -1))
    if page.photometric == kinds.MINISWHITE:
        if values.dtype.kind == "b":
            values = values.astype(np.uint8)
        if values.dtype.kind == "u":
            return in_float32(values.dtype.type(2**page.bitspersample - 1) - values)
        return -in_float32(values)
    if values.ndim == 2:
        return in_float32(values)
    if page.photometric in (kinds.YCBCR, kinds.CIELAB) and page.compression != 7:
        return values[..., 0].astype(np.float32)  # the lightness
    if page.photometric == kinds.SEPARATED and values.shape[-1] >= 4:
        full = float(np.iinfo(values.dtype).max) if values.dtype.kind == "u" else 1.0
        ink = values.astype(np.float32) / full
        return full * luminance((1 - ink[..., :3]) * (1 - ink[..., 3:4]))
    return luminance(values)
