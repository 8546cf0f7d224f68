"""NRRD (.nrrd, .nhdr): the header by pynrrd, geometry as SimpleITK takes it.

Contract: `item` counts the images along the one axis that is neither of space nor of colour. A file
without a space is taken to lie as an axial scan in LPS does.
"""

from pathlib import Path

import nrrd
import numpy as np

from deepssim_jax.data.raw_volume import LPS_TO_RAS, Axis, Packing, RawVolume, beside
from deepssim_jax.data.volume import Unreadable

_PACKINGS = {
    "raw": Packing.RAW,
    "gzip": Packing.GZIP,
    "gz": Packing.GZIP,
    "bzip2": Packing.BZIP2,
    "bz2": Packing.BZIP2,
}
_COLOURS = {"rgb-color", "rgba-color", "3-color", "4-color"}
# To RAS: which axes change sign.
_SPACES = {
    "left-posterior-superior": LPS_TO_RAS,
    "lps": LPS_TO_RAS,
    "right-anterior-superior": np.eye(4),
    "ras": np.eye(4),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "las": np.diag([-1.0, 1.0, 1.0, 1.0]),
    # These do not say which side is which; SimpleITK takes them as they are.
    "scanner-xyz": LPS_TO_RAS,
    "3d-right-handed": LPS_TO_RAS,
    "3d-left-handed": LPS_TO_RAS,
}


def describe(path: Path) -> RawVolume:
    """What a file holds.

    Raises:
      Unreadable: with the reason; pynrrd's own errors for damage pass.
    """
    with path.open("rb") as file:
        header = nrrd.read_header(file)
        offset: int | None = file.tell()
    files: tuple[Path, ...] = (path,)
    name = header.get("data file", header.get("datafile"))
    if name is not None:
        files, offset = beside(path, str(name)), 0
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    if skip < -1 or int(header.get("line skip", header.get("lineskip", 0))):
        raise Unreadable("its values start at an offset of lines, which is not read")
    packing = _PACKINGS.get(str(header["encoding"]).lower())
    if packing is None:
        raise Unreadable("its encoding is not raw, gzip or bzip2")
    offset = None if skip == -1 and packing is Packing.RAW else (offset or 0) + max(skip, 0)
    directions = header.get("space directions")
    axes = _axes(header, directions)
    space = [number for number, axis in enumerate(axes) if axis is Axis.SPACE]
    to_ras = _SPACES.get("-".join(str(header.get("space", "lps")).lower().split()))
    if to_ras is None:
        raise Unreadable("its space is none of three axes whose directions are known")
    affine, spacing = _geometry(header, directions, space, to_ras)
    return RawVolume(
        files=files,
        offset=offset,
        dtype=_dtype(header),
        shape=tuple(int(length) for length in header["sizes"]),
        axes=axes,
        packing=packing,
        affine=affine,
        spacing=spacing,
    )


def _dtype(header: dict) -> np.dtype:
    names = {
        "signed char": "i1", "int8": "i1", "int8_t": "i1",
        "uchar": "u1", "unsigned char": "u1", "uint8": "u1", "uint8_t": "u1",
        "short": "i2", "signed short": "i2", "int16": "i2", "int16_t": "i2",
        "ushort": "u2", "unsigned short": "u2", "uint16": "u2", "uint16_t": "u2",
        "int": "i4", "signed int": "i4", "int32": "i4", "int32_t": "i4",
        "uint": "u4", "unsigned int": "u4", "uint32": "u4", "uint32_t": "u4",
        "longlong": "i8", "long long": "i8", "int64": "i8", "int64_t": "i8",
        "ulonglong": "u8", "unsigned long long": "u8", "uint64": "u8", "uint64_t": "u8",
        "float": "f4", "double": "f8",
    }  # fmt: skip
    order = ">" if str(header.get("endian", "little")).lower() == "big" else "<"
    name = names.get(str(header["type"]).lower())
    if name is None:
        raise Unreadable("its type is none of real numbers that are known")
    return np.dtype(order + name)


def _axes(header: dict, directions: np.ndarray | None) -> tuple[Axis, ...]:
    count = int(header["dimension"])
    kinds = [str(kind).lower() for kind in header.get("kinds", [])] or [""] * count
    if directions is not None:
        placed = [bool(np.isfinite(np.asarray(row, float)).all()) for row in directions]
    else:
        placed = [kind in ("domain", "space") for kind in kinds]
        if not any(placed):
            placed = [number < 3 for number in range(count)]
    if len(placed) != count or len(kinds) != count:
        raise Unreadable("its header contradicts itself about the number of axes")
    return tuple(
        Axis.SPACE if own else Axis.COLOUR if kind in _COLOURS
        else Axis.COMPLEX if kind == "complex" else Axis.IMAGES
        for own, kind in zip(placed, kinds, strict=True)
    )  # fmt: skip


def _geometry(
    header: dict, directions: np.ndarray | None, space: list[int], to_ras: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The affine of three axes of space, or the spacing [rows, columns] of two."""
    if directions is not None:
        rows = np.array([directions[number] for number in space], float)
        if len(space) == 3 and rows.shape == (3, 3):
            affine = np.eye(4)
            affine[:3, :3] = rows.T
            return to_ras @ affine, None
        steps = np.linalg.norm(rows, axis=1)
    else:
        given = np.asarray(header.get("spacings", np.ones(int(header["dimension"]))), float)
        steps = np.array([given[number] for number in space])
        steps = np.where(np.isfinite(steps) & (steps > 0), steps, 1.0)
    if len(steps) == 3:
        return LPS_TO_RAS @ np.diag([*steps, 1.0]), None
    return None, steps[::-1]
