"""MetaImage (.mha, .mhd), as SimpleITK reads it.

Contract: `item` counts the volumes of a 4D file from 0. The header is read here, for ITK's own
reader, the only one there is, ends the whole process at a damaged one. Source: the tag reference of
MetaIO (https://itk.org/Wiki/MetaIO/Documentation).
"""

import math
import re
from pathlib import Path

import numpy as np

from deepssim_jax.data.guards import read_head
from deepssim_jax.data.raw_volume import LPS_TO_RAS, Axis, Packing, RawVolume, beside
from deepssim_jax.data.volume import Unreadable

_LINE = re.compile(rb"^[ \t]*([A-Za-z]{1,99})[ \t]*=[ \t]*([^\r\n]*)\r?\n", re.MULTILINE)
_LONGEST_HEADER = 1 << 16
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


def describe(path: Path) -> RawVolume:
    """What a file holds.

    Raises:
      Unreadable: with the reason.
    """
    tags, end = _header(path)
    size = _numbers(tags, ("DimSize",), None)
    kind = _TYPES.get(tags.get("ElementType", "").upper().removesuffix("_ARRAY"))
    count = len(size)
    if kind is None or not 2 <= count <= 4 or count != _whole(tags, "NDims", -1):
        raise Unreadable("its MetaImage header is damaged, or not of an image of 2 to 4 dimensions")
    channels = _whole(tags, "ElementNumberOfChannels", 1)
    if channels not in (1, 3, 4):
        raise Unreadable(f"has {channels} values a voxel, and 1, 3 or 4 are known")
    axes = (Axis.SPACE,) * min(count, 3) + (Axis.IMAGES,) * (count == 4)
    shape = tuple(int(length) for length in size)
    name = tags["ElementDataFile"]
    files, offset = ((path,), end) if name.upper() == "LOCAL" else (beside(path, name), 0)
    skip = _whole(tags, "HeaderSize", 0)
    if tags.get("BinaryData", "True").lower() == "false":
        raise Unreadable("holds its values as text; save it as binary")
    big = tags.get("BinaryDataByteOrderMSB", tags.get("ElementByteOrderMSB", "False"))
    steps = _numbers(tags, ("ElementSpacing", "ElementSize"), np.ones(count))
    turn = _numbers(tags, ("TransformMatrix", "Rotation", "Orientation"), np.eye(count).ravel())
    if len(steps) != count or len(turn) != count * count:
        raise Unreadable("its spacing or orientation has not as many numbers as it has dimensions")
    affine = np.eye(4)
    # The file lists the direction of one axis after the other.
    spatial = min(count, 3)
    affine[:spatial, :spatial] = turn.reshape(count, count).T[:spatial, :spatial] * steps[:spatial]
    packed = tags.get("CompressedData", "False").lower() == "true"
    return RawVolume(
        files=files,
        offset=None if skip == -1 else offset + max(skip, 0),
        dtype=np.dtype((">" if big.lower() == "true" else "<") + kind),
        shape=shape if channels == 1 else (channels, *shape),
        axes=axes if channels == 1 else (Axis.COLOUR, *axes),
        packing=Packing.ZLIB if packed else Packing.RAW,
        affine=LPS_TO_RAS @ affine if count > 2 else None,
        spacing=steps[1::-1] if count == 2 else None,
    )


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Tags, and where the values start: after the tag that names their file, which is the last."""
    tags: dict[str, str] = {}
    for line in _LINE.finditer(read_head(path, _LONGEST_HEADER)):
        value = line[2].decode("utf-8", "surrogateescape").strip()
        tags[line[1].decode()] = value
        if line[1] == b"ElementDataFile":
            return tags, line.end()
    raise Unreadable("has no MetaImage header that names its data")


def _numbers(
    tags: dict[str, str], names: tuple[str, ...], otherwise: np.ndarray | None
) -> np.ndarray:
    text = next((tags[name] for name in names if name in tags), None)
    if text is None:
        if otherwise is None:
            raise Unreadable(f"its MetaImage header has no {names[0]}")
        return otherwise
    try:
        numbers = np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise Unreadable(f"its MetaImage header has a damaged {names[0]}") from error
    if not np.isfinite(numbers).all():
        raise Unreadable(f"its MetaImage header has a damaged {names[0]}")
    return numbers


def _whole(tags: dict[str, str], name: str, otherwise: int) -> int:
    number = _numbers(tags, (name,), np.array([float(otherwise)]))
    if len(number) != 1 or not math.isclose(number[0], round(number[0])):
        raise Unreadable(f"its MetaImage header has a damaged {name}")
    return round(float(number[0]))
