"""DICOM files: series sorted by position, intensities as the physicist meant them.

Only geometry, rescale and photometric tags are read; nothing that names a patient leaves this
module. Needs the `dicom` extra.
"""

import struct
from pathlib import Path

import numpy as np

from deepssim_jax.data.volume import Unreadable

_HINT = "reading DICOM needs pydicom: pip install 'deepssim-jax[dicom]'"


def _pydicom():
    try:
        import pydicom
    except ImportError as error:
        raise Unreadable(_HINT) from error
    return pydicom


def series(paths: list[Path]) -> list[list[Path]]:
    """Files by folder and SeriesInstanceUID, each sorted by position along the slices' normal.

    Files that cannot be read stand alone, so that reading them says why.
    """
    try:
        pydicom = _pydicom()
    except Unreadable:
        return [[path] for path in sorted(paths)]
    groups: dict[tuple[str, str], list[tuple[float, str, Path]]] = {}
    for path in sorted(paths):
        key, position = (str(path), ""), 0.0
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            uid = header.get("SeriesInstanceUID")
            if uid and header.get("ImagePositionPatient") is not None:
                key = (str(path.parent), str(uid))
                position = _position(header)
        except Exception:
            pass
        groups.setdefault(key, []).append((position, path.name, path))
    return [[path for *_, path in sorted(group)] for _, group in sorted(groups.items())]


_TAGS = [
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
]


def _position(header) -> float:
    cosines = np.array(header.get("ImageOrientationPatient", [1, 0, 0, 0, 1, 0]), float)
    normal = np.cross(cosines[:3], cosines[3:])
    return float(normal @ np.array(header.ImagePositionPatient, float))


def read(paths: tuple[Path, ...], *, max_voxels: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads one file or a sorted series.

    Args:
      paths: files, sorted by position.
      max_voxels: more than this is refused before pixels are decoded.

    Returns:
      float32 [h, w] and None, or [slices, h, w] and its 4 x 4 affine (index to RAS mm).

    Raises:
      Unreadable: with the reason.
    """
    pydicom = _pydicom()
    frames, headers = [], []
    for path in paths:
        try:
            dataset = pydicom.dcmread(path)
        except (
            pydicom.errors.InvalidDicomError,
            OSError,
            EOFError,
            struct.error,
            ValueError,
        ) as error:
            raise Unreadable("is no readable DICOM file") from error
        declared = (
            int(dataset.get("Rows", 0))
            * int(dataset.get("Columns", 0))
            * int(dataset.get("NumberOfFrames", 1) or 1)
            * len(paths)
        )
        if not declared:
            raise Unreadable("the DICOM file holds no image")
        if declared > max_voxels:
            raise Unreadable(f"declares {declared:,} voxels, more than the limit of {max_voxels:,}")
        frames.append(_pixels(dataset))
        headers.append(dataset)
    if len(frames) == 1:
        return frames[0], None
    if len({frame.shape for frame in frames}) > 1:
        raise Unreadable(
            f"the slices of the series differ in size: {sorted({f.shape for f in frames})}"
        )
    return np.stack(frames), _affine(headers)


def _pixels(dataset) -> np.ndarray:
    try:
        pixels = np.asarray(dataset.pixel_array, np.float32)
    except Exception as error:
        raise Unreadable(
            f"its pixels cannot be decoded ({type(error).__name__}); compressed files need "
            "pylibjpeg or gdcm"
        ) from error
    if pixels.ndim == 3 and pixels.shape[-1] in (3, 4):
        pixels = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    pixels = pixels * float(dataset.get("RescaleSlope", 1) or 1) + float(
        dataset.get("RescaleIntercept", 0) or 0
    )
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":  # low values are bright
        pixels = pixels.max() + pixels.min() - pixels
    return pixels


def _affine(headers: list) -> np.ndarray:
    """Index (slice, row, column) to RAS millimetres; DICOM itself counts in LPS."""
    first, last = headers[0], headers[-1]
    cosines = np.array(first.get("ImageOrientationPatient", [1, 0, 0, 0, 1, 0]), float)
    row_step, column_step = (float(x) for x in first.get("PixelSpacing", [1, 1]))
    start, end = (
        np.array(h.get("ImagePositionPatient", [0, 0, i]), float)
        for i, h in ((0, first), (1, last))
    )
    affine = np.eye(4)
    affine[:3, 0] = (end - start) / max(len(headers) - 1, 1)
    affine[:3, 1] = cosines[3:] * row_step
    affine[:3, 2] = cosines[:3] * column_step
    affine[:3, 3] = start
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
