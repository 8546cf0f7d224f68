"""From a file to a float32 image or volume, or the reason why not.

Contract: `read_image` gives [h, w] with square pixels when a slice is asked for, else [d, h, w]
for volumes (`data.volume` says how they lie); a volume of one slice is that slice, whatever is asked
for. What a file declares is checked before anything is decompressed, so a small file cannot ask for
the machine's memory.
"""

import dataclasses
import io
import struct
import warnings
import zlib
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image, UnidentifiedImageError

from deepssim_jax.data import dicom
from deepssim_jax.data.manifest import Record, files_of
from deepssim_jax.data.volume import SliceSpec, Unreadable, oriented

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked from the header, before decoding

# A gzip member cannot shrink its content more than this (zlib's maximum).
_MAX_RATIO = 1032
_POINTERS = (b"version https://git-lfs", b"/annex/objects", b"../.git/annex", b".git/annex")


@dataclasses.dataclass(frozen=True)
class Limits:
    """The largest file, and the most pixels or voxels, that are read."""

    pixels: int = 100_000_000
    voxels: int = 500_000_000
    file_bytes: int = 2_000_000_000


def read_image(record: Record, *, spec: SliceSpec | None, limits: Limits = Limits()) -> np.ndarray:
    """Reads one image.

    Args:
      record: the file or series.
      spec: the slice of volumes; None returns volumes whole.
      limits: what is refused.

    Returns:
      float32 [h, w], or [d, h, w] for a volume of several slices if `spec` is None.

    Raises:
      Unreadable: with the reason.
    """
    array, spacing = _read(record, limits)
    if array.ndim == 3 and 1 in array.shape:
        spec = SliceSpec(axis=array.shape.index(1), place=0)
    if array.ndim == 3 and spec is not None:
        array, spacing = _sliced(array, spacing, spec)
    if array.ndim not in (2, 3):
        raise Unreadable(f"has {array.ndim} dimensions, and 2 or 3 are known")
    if min(array.shape) < 2:
        raise Unreadable(f"is only {' x '.join(map(str, array.shape))} pixels")
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
    volume, spacing = _read(record, limits)
    if volume.ndim != 3:
        raise Unreadable(f"has {volume.ndim} dimensions, and a volume has 3")
    if spacing is None:
        if assumed is None:
            raise Unreadable("is no volume with a known spacing")
        spacing = np.full(3, assumed)
    return volume, spacing


def _read(record: Record, limits: Limits) -> tuple[np.ndarray, np.ndarray | None]:
    """The finite float32 array of a file, and for volumes the spacing where it is known."""
    for path in files_of(record):
        _check_file(path, limits)
    name = record.path.name.lower()
    spacing: np.ndarray | None = None
    if name.endswith((".nii", ".nii.gz")):
        array, spacing = _nifti(record.path, limits)
    elif name.endswith(".dcm"):
        array, affine = dicom.read(tuple(files_of(record)), max_voxels=limits.voxels)
        if affine is not None:
            array, spacing = oriented(array, affine)
    elif name.endswith((".npy", ".npz")):
        array = _numpy(record.path, limits)
    else:
        array = _picture(record.path, limits)
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise Unreadable("holds values that are not finite (NaN or infinite)")
    return array, spacing


def _check_file(path: Path, limits: Limits) -> None:
    try:
        size = path.stat().st_size
        head = _head(path, 200)
    except OSError as error:
        raise Unreadable(f"cannot be opened: {error.strerror}") from error
    if size == 0:
        raise Unreadable("is empty (0 bytes)")
    if size > limits.file_bytes:
        raise Unreadable(f"has {size:,} bytes, more than the limit of {limits.file_bytes:,}")
    if any(mark in head for mark in _POINTERS) and size < 2000:
        raise Unreadable("is a pointer of git-lfs or git-annex; fetch the image itself first")


def _head(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _picture(path: Path, limits: Limits) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is no reason to say anything
            with Image.open(path) as image:
                width, height = image.size
                if width * height > limits.pixels:
                    raise Unreadable(
                        f"declares {width:,} x {height:,} pixels, more than the limit of "
                        f"{limits.pixels:,}"
                    )
                if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
                    image = image.convert("RGB")
                array = np.asarray(image)
    except UnidentifiedImageError as error:
        raise Unreadable("is no PNG, JPEG or TIFF image, whatever its name says") from error
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, zlib.error) as error:
        raise Unreadable(f"is damaged or truncated ({type(error).__name__})") from error
    array = np.asarray(array, np.float32)
    if array.ndim == 3:
        colours = array.shape[-1]
        # Luminance (ITU-R BT.601); an alpha channel says nothing about the patient.
        array = (
            array[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
            if colours >= 3
            else array[..., 0]
        )
    return array


def _numpy(path: Path, limits: Limits) -> np.ndarray:
    try:
        if path.suffix.lower() == ".npz":
            import zipfile

            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if not names:
                    raise Unreadable("is an empty .npz file")
                member = archive.getinfo(names[0])
                if member.file_size > 8 * limits.voxels:
                    raise Unreadable(f"declares {member.file_size:,} bytes of array")
                with archive.open(member) as file:
                    content = file.read(member.file_size + 1)
            source: io.BytesIO | Path = io.BytesIO(content)
            array = np.load(source, allow_pickle=False)
        else:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"is no readable NumPy array ({type(error).__name__})") from error
    if array.dtype.kind not in "biuf":
        raise Unreadable(f"holds {array.dtype} values, and real numbers are needed")
    if array.size > limits.voxels:
        raise Unreadable(
            f"declares {array.size:,} values, more than the limit of {limits.voxels:,}"
        )
    if array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        array = np.asarray(array, np.float32)
        return array[..., 0] if array.shape[-1] == 1 else array[..., :3].mean(-1)
    return array


def _nifti(path: Path, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    compressed = path.name.lower().endswith(".gz")
    header_bytes = _inflate(path, 4096) if compressed else _head(path, 4096)
    try:
        header = nibabel.Nifti1Header(header_bytes[:348], check=False)
        if bytes(header["magic"])[:2] not in (b"n+", b"ni"):
            header = nibabel.Nifti2Header(header_bytes[:540], check=False)
        shape = tuple(int(s) for s in header.get_data_shape())
        item = header.get_data_dtype().itemsize
    except Exception as error:
        raise Unreadable("has no readable NIfTI header") from error
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise Unreadable(
            f"has {len(shape)} dimensions {shape}; one volume a file is read, so split it first"
        )
    voxels = int(np.prod([float(s) for s in shape]))
    if voxels > limits.voxels or voxels <= 0:
        raise Unreadable(f"declares {voxels:,} voxels, more than the limit of {limits.voxels:,}")
    size = path.stat().st_size
    if compressed and voxels * item > _MAX_RATIO * size:
        raise Unreadable(
            f"declares {voxels * item:,} bytes, which {size:,} compressed bytes cannot hold: truncated, "
            "or made to exhaust memory"
        )
    if compressed:
        _check_gzip_length(path, int(voxels * item + 1_000_000))
    try:
        image = nibabel.Nifti1Image.from_filename(path)
        volume = np.asarray(image.dataobj, np.float32).reshape(shape)
        affine = np.asarray(image.affine, float)
    except Exception as error:
        raise Unreadable(f"is damaged or truncated ({type(error).__name__})") from error
    return oriented(volume, affine)


def _inflate(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return zlib.decompressobj(31).decompress(file.read(65536), count)
    except zlib.error as error:
        raise Unreadable("is no gzip file, or damaged") from error


def _check_gzip_length(path: Path, most: int) -> None:
    """Inflates in small pieces, without keeping them, and refuses more than was declared."""
    inflater, total = zlib.decompressobj(31), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 16):
                while chunk and not inflater.eof:
                    total += len(inflater.decompress(chunk, 1 << 20))
                    chunk = inflater.unconsumed_tail
                    if total > most:
                        raise Unreadable(f"inflates to more than the {most:,} bytes it declares")
                if inflater.eof:
                    return
    except zlib.error as error:
        raise Unreadable("its compressed data are damaged") from error
    raise Unreadable("is truncated: its compressed data end too early")


def _sliced(
    volume: np.ndarray, spacing: np.ndarray | None, spec: SliceSpec
) -> tuple[np.ndarray, None]:
    image = spec.take(volume)
    if spacing is not None:
        rows, columns = (s for axis, s in enumerate(spacing) if axis != spec.axis)
        if abs(rows / columns - 1) > 0.01:
            # Square pixels, at the finer of the two spacings.
            fine = min(rows, columns)
            shape = (round(image.shape[1] * columns / fine), round(image.shape[0] * rows / fine))
            if max(shape) <= 20_000:
                resized = Image.fromarray(np.ascontiguousarray(image)).resize(
                    shape, Image.Resampling.BILINEAR
                )
                image = np.asarray(resized)
    return image, None
