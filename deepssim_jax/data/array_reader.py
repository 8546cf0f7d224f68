"""NumPy's files, which say nothing of what their axes are.

Contract: `item` counts the images from 0: by the rule of `ArrayLayout` in an `.npy`, and through the
arrays of an `.npz` in the order in which they were saved. An array of one axis, or of rows of one
number, is no image; neither is what an `.npz` holds beside its images as their labels, by its name and its
few whole values, or as a table of one row an image.
"""

import dataclasses
import functools
import math
import re
import threading
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from deepssim_jax.data.decoded import Contents, Decoded, in_float32, luminance
from deepssim_jax.data.guards import (
    MAX_RATIO,
    Limits,
    check_voxels,
    once_a_file,
    read_head,
    the_item,
)
from deepssim_jax.data.records import ArrayLayout
from deepssim_jax.data.volume import Unreadable

_COLOURS = (1, 3, 4)
# Different values of a map of labels, of so many values at most.
_MOST_LABELS, _LOOKED_AT = 32, 1 << 22
_PIECE = 1 << 20  # bytes that are looked at together
_MAGIC = b"\x93NUMPY"
# Names of arrays that may say something of images and be none, as in `train_labels` or `y_test`.
_LABELS = re.compile(
    r"(?:^|[^a-z])(?:labels?|targets?|masks?|segs?|segmentations?|annotations?|class(?:es)?|y)"
    r"(?:[^a-z]|$)",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class _Array:
    """One array of a file: its name and its number in the `.npz`, None in an `.npy`, and its header."""

    name: str
    member: int | None
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int


def contents(path: Path, layout: ArrayLayout) -> Contents:
    """What a file holds.

    Raises:
      Unreadable: with the reason; NumPy's and zipfile's own errors for damage pass.
    """
    held = _held(path, layout)
    others = tuple((one.array.name, one.reason) for one in held if one.reason is not None)
    images = sum(one.images for one in held)
    if others and not images:
        raise Unreadable(others[0][1])
    return Contents(images, others)


def read(path: Path, item: int | None, layout: ArrayLayout, limits: Limits) -> Decoded:
    """Reads one image or volume; None is the only one there is.

    Raises:
      Unreadable: with the reason; NumPy's and zipfile's own errors for damage pass.
    """
    held = _held(path, layout)
    images = sum(one.images for one in held)
    if not images and held[0].reason is not None:
        raise Unreadable(held[0].reason)
    place = the_item(item, images)
    for one in held:
        if place < one.images:
            return Decoded(_values(path, one.array, place, layout, limits))
        place -= one.images
    raise AssertionError("the_item lets no other place through")


@dataclasses.dataclass(frozen=True)
class _Held:
    """An array of a file, its images, and why it has none."""

    array: _Array
    images: int
    reason: str | None = None

    def without(self, reason: str) -> "_Held":
        return _Held(self.array, 0, reason)


def _held(path: Path, layout: ArrayLayout) -> list[_Held]:
    found = []
    for array in _arrays(path):
        try:
            found.append(_Held(array, _count(array, layout)))
        except Unreadable as error:
            found.append(_Held(array, 0, str(error)))
    if any(one.images and not _LABELS.search(one.array.name) for one in found):
        found = [
            one.without("labels, by its name and values")
            if one.images and _LABELS.search(one.array.name) and _is_labels(path, one.array)
            else one
            for one in found
        ]
    stacks = [(x.images, _without_ones(x.array.shape, layout)[1:]) for x in found if x.images > 1]
    return [
        one.without("a table of one row an image")
        if one.images == 1 and any(_is_table(one.array.shape, *stack) for stack in stacks)
        else one
        for one in found
    ]


def _is_labels(path: Path, array: _Array) -> bool:
    """Whether the values are those of labels: few whole numbers; False if they cannot be read."""
    status = path.stat()
    try:
        return _few_values(path, array, status.st_size, status.st_mtime_ns)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, Unreadable):
        return False


@functools.lru_cache(maxsize=256)  # asked again for each image of the file
def _few_values(path: Path, array: _Array, size: int, changed: int) -> bool:
    del size, changed
    values = np.unique(_run(path, array, 0, min(math.prod(array.shape), _LOOKED_AT)))
    return len(values) <= _MOST_LABELS and bool((values == np.round(values)).all())


def _is_table(shape: tuple[int, ...], images: int, size: tuple[int, ...]) -> bool:
    """Whether an array has a row for each of so many images, and not the size of one of them."""
    return len(shape) == 2 and shape[0] == images and shape != size


def _arrays(path: Path) -> list[_Array]:
    if read_head(path, len(_MAGIC)) == _MAGIC or not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return [_header(file, "", None)]
    with zipfile.ZipFile(path) as archive:
        found = []
        for number, member in enumerate(archive.infolist()):
            if member.file_size > MAX_RATIO * max(member.compress_size, 1):
                raise Unreadable(
                    f"declares {member.file_size:,} bytes, which its compressed bytes cannot hold"
                )
            with archive.open(member) as file:
                found.append(_header(file, member.filename, number))
    if not found:
        raise Unreadable("is an empty .npz file")
    return found


def _header(file: IO[bytes], name: str, member: int | None) -> _Array:
    version = np.lib.format.read_magic(file)
    if version == (3, 0):
        raise Unreadable("holds records with named fields, and real numbers are needed")
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read_header(file)
    return _Array(name.removesuffix(".npy"), member, shape, dtype, fortran, file.tell())


def _count(array: _Array, layout: ArrayLayout) -> int:
    """Images of an array.

    Raises:
      Unreadable: it holds none.
    """
    if array.dtype.kind not in "biuf":
        raise Unreadable(f"holds {array.dtype.name} values, and real numbers are needed")
    shape = _without_ones(array.shape, layout)
    if len(shape) < 2 or (len(shape) == 2 and min(array.shape) < 2 and len(array.shape) == 2):
        raise Unreadable(f"has {len(array.shape)} dimensions {array.shape}, and 2 or 3 are known")
    if min(shape[1:], default=0) < 1:
        raise Unreadable(f"holds no image: its dimensions are {array.shape}")
    if layout is ArrayLayout.IMAGES and shape[-1] == 2 and len(shape) > 2 and min(shape[-3:-1]) > 4:
        raise Unreadable("has 2 channels that are no colours; split it first")
    if len(shape) == 2 or (len(shape) == 3 and _is_coloured(shape, layout)):
        return 1
    if layout is not ArrayLayout.IMAGES:
        if len(shape) > 4:
            raise Unreadable(f"has {len(shape)} dimensions, and 2 to 4 are known")
        return 1 if len(shape) == 3 else shape[0]
    if len(shape) == 3 or (
        len(shape) == 4 and (_is_coloured(shape, layout) or shape[1] in _COLOURS)
    ):
        return shape[0]
    raise Unreadable(
        f"has {len(shape)} dimensions {array.shape}; if it holds volumes, say so by --arrays=zyx "
        "or --arrays=xyz"
    )


def _without_ones(shape: tuple[int, ...], layout: ArrayLayout) -> tuple[int, ...]:
    """A shape without axes of one in front, as batches and channels leave them."""
    least = 2 if layout is ArrayLayout.IMAGES else 3
    while len(shape) > least and shape[0] == 1:
        shape = shape[1:]
    return shape


def _is_coloured(shape: tuple[int, ...], layout: ArrayLayout) -> bool:
    """Whether the last axis is of colours; in volumes every axis is one of space."""
    if layout is not ArrayLayout.IMAGES:
        return False
    return shape[-1] in _COLOURS and min(shape[-3:-1]) > 4


def _values(
    path: Path, array: _Array, place: int, layout: ArrayLayout, limits: Limits
) -> np.ndarray:
    """float32 [h, w] or [d, h, w]."""
    shape = _without_ones(array.shape, layout)
    single = len(shape) == 2 or (len(shape) == 3 and _count(array, layout) == 1)
    one = shape if single else shape[1:]
    check_voxels(one, limits)
    rows = math.prod(one)
    if array.fortran:  # its images do not lie one after the other
        check_voxels(array.shape, limits)
        whole = _run(path, array, 0, math.prod(array.shape)).reshape(array.shape, order="F")
        values = whole.reshape(shape) if single else whole.reshape(shape)[place]
    else:
        values = _run(path, array, 0 if single else place * rows, rows).reshape(one)
    if len(one) == 3 and _is_coloured(one, layout):
        return luminance(values)
    if len(one) == 3 and layout is ArrayLayout.IMAGES:  # [c, h, w]
        return luminance(np.moveaxis(values, 0, -1))
    values = in_float32(values)
    if len(one) == 3 and layout is ArrayLayout.XYZ:
        return np.ascontiguousarray(values.T)
    return values


class _Open(threading.local):
    """The member of an archive that a thread read from last.

    Compressed members can only be read forwards. Images are asked for in their order, so keeping the
    place makes a pass over the file of one that would be of its square.
    """

    key: object = None
    archive: zipfile.ZipFile | None = None
    file: IO[bytes] | None = None


_last = _Open()


def _run(path: Path, array: _Array, start: int, count: int) -> np.ndarray:
    """`count` values from number `start` on."""
    size = array.dtype.itemsize
    if array.member is None:
        return np.fromfile(path, array.dtype, count, offset=array.offset + start * size)
    once_a_file(_check_member, path, array.member)
    status = path.stat()
    key = (path, status.st_size, status.st_mtime_ns, array.member)
    if _last.key != key or _last.file is None:
        if _last.archive is not None:
            _last.archive.close()
        _last.archive = zipfile.ZipFile(path)
        _last.file = _last.archive.open(_last.archive.infolist()[array.member])
        _last.key = key
    _last.file.seek(array.offset + start * size)
    return np.frombuffer(_last.file.read(count * size), array.dtype, count)


def _check_member(path: Path, number: int) -> None:
    """Reads a member of an archive to its end, where zipfile compares its checksum."""
    with zipfile.ZipFile(path) as archive:
        member = archive.infolist()[number]
        try:
            with archive.open(member) as file:
                while file.read(_PIECE):
                    pass
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise Unreadable("its compressed data are damaged or truncated") from error
