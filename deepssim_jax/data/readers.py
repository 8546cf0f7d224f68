"""From a record to a float32 image or volume, or the reason why not.

Contract: `read_image` gives [h, w] with square pixels when a slice is asked for, else [d, h, w]
for volumes (`data.volume` says how they lie); a volume of one slice is that slice, whatever is asked
for. What a file declares is checked before anything is decompressed, so a small file cannot ask for
the machine's memory. Whatever a file holds, the outcome is an image or `Unreadable`.
"""

import dataclasses

import numpy as np
from PIL import Image

from deepssim_jax.data import (
    array_reader,
    dicom_reader,
    metaimage_reader,
    nifti_reader,
    nrrd_reader,
    picture_reader,
    raw_volume,
    tiff_reader,
)
from deepssim_jax.data.decoded import Decoded
from deepssim_jax.data.formats import Format, recognise
from deepssim_jax.data.guards import Limits, check_file
from deepssim_jax.data.preprocess import without_outliers
from deepssim_jax.data.quiet import quiet
from deepssim_jax.data.records import Record, files_of
from deepssim_jax.data.volume import SliceSpec, Unavailable, Unreadable

# Of proportions further from a square, or a picture that would become larger, nothing is made.
_MOST_OBLONG, _MOST_PIXELS = 20.0, 20_000


def read_image(record: Record, *, spec: SliceSpec | None, limits: Limits = Limits()) -> np.ndarray:
    """Reads one image.

    Args:
      record: the file or series, of which `box` is read.
      spec: the slice of volumes; None returns volumes whole.
      limits: what is refused.

    Returns:
      float32 [h, w], or [d, h, w] for a volume of several slices if `spec` is None. Single values
      far outside of the others are cut to them (`preprocess.without_outliers`).

    Raises:
      Unreadable: with the reason.
    """
    image = _image(_read(record, limits), spec)
    return image if record.box is None else record.box.of(image)


def read_pixels(record: Record, *, limits: Limits = Limits()) -> tuple[np.ndarray, np.ndarray]:
    """Reads one image of two dimensions as its pixels lie, and with square pixels.

    Args:
      record: the file.
      limits: what is refused.

    Returns:
      float32 [h, w] twice; they differ where the file says that its pixels are not square.

    Raises:
      Unreadable: it is a volume, or the reason is that of `read_image`.
    """
    decoded = _read(record, limits)
    square = _image(decoded, None)
    if square.ndim != 2:
        raise Unreadable("is a volume")
    if square.shape == tuple(n for n in decoded.values.shape if n > 1):
        return square, square
    return _image(dataclasses.replace(decoded, spacing=None), None), square


def _image(decoded: Decoded, spec: SliceSpec | None) -> np.ndarray:
    array = decoded.values
    if array.ndim == 3 and 1 in array.shape:
        spec = SliceSpec(axis=array.shape.index(1), place=0)
    if array.ndim == 3 and spec is not None:
        decoded = _sliced(decoded, spec)
    if decoded.values.ndim == 2:
        array = _square(decoded)
    if array.ndim not in (2, 3):
        raise Unreadable(f"has {array.ndim} dimensions, and 2 or 3 are known")
    if min(array.shape) < 2:
        raise Unreadable(f"is only {' x '.join(map(str, array.shape))} pixels")
    array = without_outliers(array)
    if float(array.max()) <= float(array.min()):
        raise Unreadable(f"is constant: every pixel is {float(array.flat[0]):g}")
    return array


def read_volume(
    record: Record, *, assumed: float | None = None, limits: Limits = Limits()
) -> tuple[np.ndarray, np.ndarray]:
    """Reads one volume whole.

    Args:
      record: the file or series.
      assumed: spacing in mm of files that do not say theirs, such as NumPy's; None refuses them.
      limits: what is refused.

    Returns:
      float32 [d, h, w] and the spacing of its axes in mm [3].

    Raises:
      Unreadable: with the reason, also where its spacing is not known.
    """
    decoded = _read(record, limits)
    if decoded.values.ndim != 3:
        raise Unreadable(f"has {decoded.values.ndim} dimensions, and a volume has 3")
    spacing = decoded.spacing
    if spacing is None:
        if assumed is None:
            raise Unreadable("is no volume with a known spacing")
        spacing = np.full(3, assumed)
    return decoded.values, spacing


def _read(record: Record, limits: Limits) -> Decoded:
    for path in files_of(record):
        check_file(path, limits)
    try:
        found = recognise(record.path)
    except OSError as error:
        raise Unavailable(f"cannot be opened: {error.strerror}") from error
    if found is None:
        raise Unreadable("is of no known image format")
    try:
        with quiet():
            decoded = _decoded(record, found.format, limits)
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unavailable("needs more memory than there is") from error
    except ImportError as error:
        raise Unavailable(f"needs a module that cannot be loaded: {error.name}") from error
    # Readers of images fail in as many ways as files can be damaged.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise Unavailable(f"cannot be read: {error.strerror}") from error
        name = found.format.value
        raise Unreadable(
            f"is a damaged or truncated {name} file ({type(error).__name__})"
        ) from error
    if not np.isfinite(decoded.values).all():
        raise Unreadable("holds values that are not finite (NaN or infinite)")
    return decoded


def _decoded(record: Record, kind: Format, limits: Limits) -> Decoded:
    path = record.path
    item = record.items[0] if record.items else None
    match kind:
        case Format.PICTURE:
            return picture_reader.read(path, item, limits)
        case Format.TIFF:
            return tiff_reader.read(path, item, limits)
        case Format.NUMPY:
            return array_reader.read(path, item, record.layout, limits)
        case Format.NIFTI | Format.ANALYZE | Format.MGH:
            return nifti_reader.read(path, item, kind, limits)
        case Format.NRRD:
            return raw_volume.read(nrrd_reader.describe(path), item, limits)
        case Format.METAIMAGE:
            return raw_volume.read(metaimage_reader.describe(path), item, limits)
        case Format.DICOM:
            return dicom_reader.read(tuple(files_of(record)), record.items, limits)


def _sliced(decoded: Decoded, spec: SliceSpec) -> Decoded:
    spacing = decoded.spacing
    image = np.ascontiguousarray(spec.take(decoded.values))
    if spacing is None:
        return Decoded(image)
    return Decoded(image, np.array([s for axis, s in enumerate(spacing) if axis != spec.axis]))


def _square(decoded: Decoded) -> np.ndarray:
    """The image at the finer of its two spacings in both directions."""
    image = decoded.values
    if decoded.spacing is None:
        return image
    rows, columns = (float(step) for step in decoded.spacing)
    fine, coarse = min(rows, columns), max(rows, columns)
    if not 1.01 * fine < coarse < _MOST_OBLONG * fine:
        return image
    shape = (round(image.shape[1] * columns / fine), round(image.shape[0] * rows / fine))
    if max(shape) > _MOST_PIXELS:
        return image
    resized = Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR)
    return np.asarray(resized)
