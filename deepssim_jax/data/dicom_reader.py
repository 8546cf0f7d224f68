"""Pixels of DICOM files, as the physicist meant them.

Contract: stored values go through the palette or the modality transformation (rescale, table, and
where an enhanced file says so frame by frame), then padding becomes the lowest value, and
MONOCHROME1 is inverted by one constant for all slices of a volume. Window and presentation state do
not count. Sources: DICOM PS3.3 C.7.6.3 (image pixel), C.7.5.1 (padding), C.11.1 (modality LUT).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepssim_jax.data import dicom
from deepssim_jax.data.decoded import Decoded, in_float32, luminance
from deepssim_jax.data.dicom_file import dataset, pydicom_module
from deepssim_jax.data.guards import Limits, check_pixels, check_voxels
from deepssim_jax.data.volume import Unavailable, Unreadable, oriented

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Slices whose distances differ by more than this share are brought to even ones.
_UNEVEN = 0.05
# More slices than this many times those in the file: its positions are no volume's.
_MOST_FILLED = 4
# Beyond so many steps from zero, float32 could round the steps of values of 16 bits.
_FAR = 1 << 16


def read(files: Sequence[Path], items: Sequence[int], limits: Limits) -> Decoded:
    """Reads the frames of one `dicom.Stack`.

    Raises:
      Unreadable: with the reason; pydicom's own errors for damage pass.
    """
    volume: np.ndarray | None = None
    places, padded, inverted, spacing = [], False, False, None
    count = len(items) or len(files)
    for number, (frame, header, groups) in enumerate(_decoded(files, items, limits, count)):
        values, mask = _meant(frame, header, groups)
        if volume is None:
            volume = np.empty((count, *values.shape), values.dtype)
            inverted = header.get("PhotometricInterpretation") == "MONOCHROME1"
            spacing = _pixel_spacing([*groups, header])
        if values.shape != volume.shape[1:]:
            raise Unreadable(
                f"the slices of the series differ in size: {volume.shape[1:]}, {values.shape}"
            )
        if not np.isfinite(values).all():
            raise Unreadable("holds values that are not finite (NaN or infinite)")
        if mask is not None:
            values[mask], padded = np.nan, True
        volume = volume.astype(np.result_type(volume, values), copy=False)
        volume[number] = values
        places.append(dicom.geometry([*groups, header]))
    if volume is None:
        raise Unreadable("the DICOM file holds no image")
    if inverted:
        np.negative(volume, out=volume)
        np.add(volume, -np.nanmin(volume) - np.nanmax(volume), out=volume)
    if padded:
        lowest = np.nanmin(volume)
        if np.isnan(lowest):
            raise Unreadable("holds nothing but padding")
        np.nan_to_num(volume, copy=False, nan=lowest)
    volume = in_float32(volume)
    if count == 1:
        return Decoded(volume[0], spacing)
    return Decoded(*oriented(*_even(volume, places)))


def _decoded(
    files: Sequence[Path], items: Sequence[int], limits: Limits, count: int
) -> Iterator[tuple[np.ndarray, Dataset, list]]:
    """Each frame with its header and functional groups, one in memory at a time."""
    for number, path in enumerate(files, 1):
        try:
            yield from _frames_of(path, items, limits, count)
        except (MemoryError, ImportError, Unavailable):
            raise
        # Whatever is wrong, it is said of which file: not by its name, which may be a patient's.
        except Exception as error:
            if len(files) == 1:
                raise
            if isinstance(error, OSError) and error.errno is not None:
                raise
            known = isinstance(error, Unreadable)
            why = f"{error}" if known else f"is damaged or truncated ({type(error).__name__})"
            raise Unreadable(f"slice {number} of its {len(files)} {why}") from error


def _frames_of(
    path: Path, items: Sequence[int], limits: Limits, count: int
) -> Iterator[tuple[np.ndarray, Dataset, list]]:
    pydicom = pydicom_module()
    try:
        header = dataset(path, limits)
    except pydicom.errors.InvalidDicomError as error:
        raise Unreadable("is no readable DICOM file") from error
    rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    if not rows * columns:
        raise Unreadable("the DICOM file holds no image")
    check_pixels(columns, rows, limits)
    check_voxels((count, rows, columns), limits)
    groups = dicom.functional_groups(header)
    frames = int(header.get("NumberOfFrames") or 1)
    wanted = list(items) or [0]
    if max(wanted) >= frames or (frames > 1 and not items):
        raise Unreadable(f"declares {frames} frames, and these are not the ones listed")
    for item, frame in zip(wanted, _pixels(pydicom, header, wanted, frames), strict=True):
        yield frame, header, groups[item] if item < len(groups) else []


def _pixels(pydicom, header: Dataset, wanted: list[int], frames: int) -> Iterator[np.ndarray]:
    from deepssim_jax.data import dicom_codecs

    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = dicom_codecs.plugin(syntax)
    except NotImplementedError as error:
        # A syntax that is in no list is text of the file.
        called = f"as {syntax.name}, which" if syntax.type == "Transfer Syntax" else "in a way that"
        raise Unreadable(f"its pixels are compressed {called} is not read") from error
    if frames == 1:
        yield pydicom.pixels.pixel_array(header, decoding_plugin=decoder)
    else:
        yield from pydicom.pixels.iter_pixels(header, indices=wanted, decoding_plugin=decoder)


def _meant(frame: np.ndarray, header, groups: list) -> tuple[np.ndarray, np.ndarray | None]:
    """float [h, w] of one frame, and where it holds padding."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    if frame.ndim == 3 and int(header.get("SamplesPerPixel") or 1) == 1:
        raise Unreadable(
            f"holds the pixels of {len(frame)} images of its Rows and Columns, and declares one: these or "
            "its Number of Frames are wrong"
        )
    if header.get("PhotometricInterpretation") == "PALETTE COLOR":
        frame = apply_color_lut(frame, header)
    if frame.ndim == 3:
        return luminance(frame), None
    mask = _padding(frame, header)
    if header.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(frame, header), np.float32), mask
    slope = dicom.first([*groups, header], "RescaleSlope")
    intercept = dicom.first([*groups, header], "RescaleIntercept")
    # float64 keeps every value of 32 bits; what is far from zero is moved there as a whole volume.
    values = np.array(frame, np.float64)
    step, base = 1.0, 0.0
    if slope is not None or intercept is not None:
        try:
            step = 1.0 if slope is None else float(str(slope))
            base = 0.0 if intercept is None else float(str(intercept))
        except ValueError as error:
            raise Unreadable("its Rescale Slope or Intercept is no number") from error
        values *= step
        values += base
    if frame.dtype.itemsize < 4 and abs(base) <= _FAR * abs(step):
        values = values.astype(np.float32)  # which keeps their steps, in half of the memory
    return values, mask


def _padding(frame: np.ndarray, header) -> np.ndarray | None:
    value = header.get("PixelPaddingValue")
    if value is None or frame.dtype.kind not in "iu":
        return None
    low = high = _stored(value, frame.dtype)
    limit = header.get("PixelPaddingRangeLimit")
    if limit is not None:
        low, high = sorted((low, _stored(limit, frame.dtype)))
    mask = (frame >= low) & (frame <= high)
    return mask if mask.any() else None


def _stored(value: int | bytes, dtype: np.dtype) -> int:
    """A value in the type of the pixels: writers mix up US and SS."""
    if isinstance(value, bytes):
        return int(np.frombuffer(value[: dtype.itemsize], dtype)[0])
    bits = dtype.itemsize * 8
    number = int(value) & (2**bits - 1)
    return number - 2**bits if dtype.kind == "i" and number >= 2 ** (bits - 1) else number


def _pixel_spacing(items: list) -> np.ndarray | None:
    """The steps [rows, columns] of a picture, or their proportion, or None."""
    for name in (
        "PixelSpacing",
        "ImagerPixelSpacing",
        "NominalScannedPixelSpacing",
        "PixelAspectRatio",
    ):
        value = dicom.first(items, name)
        steps = dicom.numbers(value, 2)
        if steps is not None and (steps > 0).all():
            return steps
    return None


def _even(volume: np.ndarray, places: list) -> tuple[np.ndarray, np.ndarray]:
    """A volume of slices at even distances, and its affine from indices to RAS mm.

    A gap, or slices of several distances, is filled by linear interpolation at the most common
    distance, as dcm2niix does in the files that it calls `_Eq`.
    """
    if any(place is None or place.spacing is None for place in places):
        raise Unreadable("its Pixel Spacing, position or orientation is missing or wrong")
    along = np.array([place.place for place in places])
    gaps = np.diff(along)
    start, end = places[0].position, places[-1].position
    count = len(volume)
    if (gaps <= 0).any():
        raise Unreadable("two of its slices lie at one place")
    if gaps.max() > (1 + _UNEVEN) * gaps.min():
        step = float(np.median(gaps))
        count = round((along[-1] - along[0]) / step) + 1
        if not 2 <= count <= _MOST_FILLED * len(volume):
            raise Unreadable("its slices lie so unevenly that they are no volume")
        volume = _interpolated(volume, along, np.linspace(along[0], along[-1], count))
    row_step, column_step = places[0].spacing
    affine = np.eye(4)
    affine[:3, 0] = (end - start) / (count - 1)
    affine[:3, 1] = places[0].cosines[3:] * row_step
    affine[:3, 2] = places[0].cosines[:3] * column_step
    affine[:3, 3] = start
    return volume, _LPS_TO_RAS @ affine


def _interpolated(volume: np.ndarray, along: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Slices at the wanted places, each between its two neighbours."""
    out = np.empty((len(wanted), *volume.shape[1:]), np.float32)
    before = np.clip(np.searchsorted(along, wanted, side="right") - 1, 0, len(along) - 2)
    share = (wanted - along[before]) / (along[before + 1] - along[before])
    for place, (i, weight) in enumerate(zip(before, np.clip(share, 0, 1), strict=True)):
        out[place] = (1 - weight) * volume[i] + weight * volume[i + 1]
    return out
