"""Volumes that are a text header and values in a row: what NRRD and MetaImage have in common.

Contract: a `RawVolume` says where the values lie and what they mean; `read` gives one of its images.
Axes are counted as the files count them, the fastest first. Compressed values are inflated to the end of
their stream, where its checksum stands, and not kept beyond the bytes that the header declares.
"""

import bz2
import dataclasses
import enum
import functools
import math
import zlib
from pathlib import Path

import numpy as np

from deepssim_jax.data.decoded import Decoded, in_float32, luminance
from deepssim_jax.data.guards import Limits, check_voxels, stream_start, the_item
from deepssim_jax.data.volume import Unreadable, oriented

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Packing(enum.Enum):
    """How the values are compressed."""

    RAW = "raw"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    ZLIB = "zlib"


_INFLATERS = {
    Packing.GZIP: functools.partial(zlib.decompressobj, 31),
    Packing.BZIP2: bz2.BZ2Decompressor,
    Packing.ZLIB: zlib.decompressobj,
}


class Axis(enum.Enum):
    """What an axis is: of space, of the parts of a colour or a complex number, or of images."""

    SPACE = "space"
    COLOUR = "colour"
    COMPLEX = "complex"
    IMAGES = "images"


@dataclasses.dataclass(frozen=True)
class RawVolume:
    """The values start at `offset` of the last of `files`, or fill its end where it is None.

    `affine` (4 x 4, from the indices of the axes of space to RAS mm) is of three axes of space;
    `spacing` of two.
    """

    files: tuple[Path, ...]
    offset: int | None
    dtype: np.dtype
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    packing: Packing
    affine: np.ndarray | None = None
    spacing: np.ndarray | None = None

    @property
    def images(self) -> int:
        """How many images the file holds.

        Raises:
          Unreadable: its axes are not those of images or volumes.
        """
        if len(self.shape) != len(self.axes) or self.axes.count(Axis.SPACE) not in (2, 3):
            raise Unreadable(f"has {self.axes.count(Axis.SPACE)} axes of space, not 2 or 3")
        if len(self.axes) - self.axes.count(Axis.SPACE) > 1:
            raise Unreadable(f"has {len(self.axes)} dimensions, and 2 to 4 are known")
        return self.shape[self.axes.index(Axis.IMAGES)] if Axis.IMAGES in self.axes else 1


def read(volume: RawVolume, item: int | None, limits: Limits) -> Decoded:
    """Reads one image.

    Raises:
      Unreadable: with the reason.
    """
    place = the_item(item, volume.images)
    check_voxels(volume.shape, limits)
    data = _bytes(volume, math.prod(volume.shape) * volume.dtype.itemsize)
    values = np.frombuffer(data, volume.dtype).reshape(volume.shape, order="F")
    for number, axis in enumerate(volume.axes):
        if axis is Axis.IMAGES:
            values = np.take(values, place, number)
        elif axis is Axis.COLOUR:
            values = luminance(np.moveaxis(values, number, -1))
        elif axis is Axis.COMPLEX:
            real, imaginary = np.moveaxis(values, number, 0).astype(np.float32)
            values = np.hypot(real, imaginary)
    values = in_float32(values)
    if values.ndim == 2:
        return Decoded(np.ascontiguousarray(values.T), volume.spacing)
    if volume.affine is None:
        raise Unreadable("does not say how its axes lie")
    return Decoded(*oriented(values, volume.affine))


def _bytes(volume: RawVolume, size: int) -> bytes | bytearray:
    path = volume.files[-1]
    data: bytes | bytearray
    with path.open("rb") as file:
        if volume.offset is None:
            file.seek(max(0, path.stat().st_size - size))
        else:
            file.seek(volume.offset)
        if volume.packing is Packing.RAW:
            data = file.read(size)
        else:
            data = stream_start(file, _INFLATERS[volume.packing], size)
    if len(data) < size:
        raise Unreadable(f"is truncated: {len(data):,} of {size:,} bytes of values are there")
    return data


def beside(path: Path, name: str) -> tuple[Path, Path]:
    """A header and the file of values that it names.

    Raises:
      Unreadable: the name leads elsewhere, or to nothing.
    """
    if not name or "\0" in name or Path(name).name != name:
        raise Unreadable("its header names data in several files, or elsewhere than beside it")
    if not (path.parent / name).is_file():
        raise Unreadable("its data file is missing")
    return path, path.parent / name
