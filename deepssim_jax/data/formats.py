"""Which format a file is of: by its first bytes, and by its name where bytes do not tell.

Contract: `recognise` opens a file once, reads its first 4 KiB, and never raises for what it holds.
"""

import dataclasses
import enum
from pathlib import Path

from deepssim_jax.data.guards import GZIP, inflated_head, read_head

_HEAD = 4096


class Format(enum.Enum):
    """What a file is, by the reader that opens it."""

    PICTURE = "picture"  # PNG, JPEG, JPEG 2000, BMP, GIF, WebP
    TIFF = "TIFF"
    NUMPY = "NumPy"
    NIFTI = "NIfTI"
    ANALYZE = "Analyze"  # or NIfTI in two files
    MGH = "MGH"
    NRRD = "NRRD"
    METAIMAGE = "MetaImage"
    DICOM = "DICOM"


_SUFFIXES = {
    ".png": Format.PICTURE, ".apng": Format.PICTURE, ".jpg": Format.PICTURE,
    ".jpeg": Format.PICTURE, ".jp2": Format.PICTURE, ".j2k": Format.PICTURE,
    ".bmp": Format.PICTURE, ".gif": Format.PICTURE, ".webp": Format.PICTURE,
    ".tif": Format.TIFF, ".tiff": Format.TIFF,
    ".npy": Format.NUMPY, ".npz": Format.NUMPY,
    ".nii": Format.NIFTI, ".nii.gz": Format.NIFTI, ".img": Format.ANALYZE,
    ".mgh": Format.MGH, ".mgz": Format.MGH, ".mgh.gz": Format.MGH,
    ".nrrd": Format.NRRD, ".nhdr": Format.NRRD,
    ".mha": Format.METAIMAGE, ".mhd": Format.METAIMAGE,
    ".dcm": Format.DICOM, ".dcm.gz": Format.DICOM, ".dicom": Format.DICOM,
}  # fmt: skip
SUFFIXES = tuple(_SUFFIXES)

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_MAGIC = (
    (_PNG, Format.PICTURE),
    (_JPEG, Format.PICTURE),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", Format.PICTURE),
    (b"\xff\x4f\xff\x51", Format.PICTURE),
    (b"GIF8", Format.PICTURE),
    (b"II*\x00", Format.TIFF),
    (b"MM\x00*", Format.TIFF),
    (b"II+\x00\x08\x00", Format.TIFF),
    (b"MM\x00+\x00\x08", Format.TIFF),
    (b"\x93NUMPY", Format.NUMPY),
    (b"NRRD000", Format.NRRD),
    (b"\x00\x00\x02\x1cn+2", Format.NIFTI),
    (b"\x1c\x02\x00\x00n+2", Format.NIFTI),
)

# Lengths of the second header of a BMP.
_BMP_HEADERS = tuple(length.to_bytes(4, "little") for length in (12, 40, 52, 56, 64, 108, 124))


@dataclasses.dataclass(frozen=True)
class Recognised:
    """The format; whether it may hold several images, which only opening it can tell."""

    format: Format
    several: bool


def recognise(path: Path) -> Recognised | None:
    """The format of a file, or None if it is no image that is known.

    Bytes count more than the name: a picture called `.dcm` is a picture. A name counts where the
    bytes tell nothing, so that a damaged image is found and refused rather than passed over.

    Raises:
      OSError: it cannot be opened.
    """
    head = read_head(path, _HEAD)
    found = _by_content(head)
    if found is None:
        found = _SUFFIXES.get(_suffix(path.name))
    if found is None:
        return None
    if found is Format.PICTURE:
        return Recognised(found, _may_hold_several(head))
    return Recognised(found, found is not Format.DICOM)


def _by_content(head: bytes) -> Format | None:
    if head.startswith(GZIP):
        head = inflated_head(head, _HEAD)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[128:132] == b"DICM":
        return Format.DICOM
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Format.PICTURE
    if head[344:348] == b"n+1\x00":
        return Format.NIFTI
    if head[:2] == b"BM" and head[6:10] == bytes(4) and head[14:18] in _BMP_HEADERS:
        return Format.PICTURE
    return Format.DICOM if begins_with_data(head) else None


def begins_with_data(head: bytes) -> bool:
    """Whether these first bytes of a file are DICOM elements of group 2 or 8, without anything before them.

    By the first element and the group of the next (PS3.5, 7.1).
    """
    groups = (b"\x02\x00", b"\x08\x00")
    if head[:2] not in groups or head[3:4] != b"\x00":
        return False
    explicit = head[4:6] in (b"UL", b"CS", b"UI", b"SH", b"LO", b"DA")
    length = int.from_bytes(head[6:8] if explicit else head[4:8], "little")
    return length % 2 == 0 and head[8 + length : 10 + length] in groups


def _may_hold_several(head: bytes) -> bool:
    """Whether a picture is an animation or an album, or what says so may stand further on."""
    if head.startswith(_PNG):  # chunks: length, kind, content, checksum; acTL comes before IDAT
        at = len(_PNG)
        while (kind := head[at + 4 : at + 8]) not in (b"IDAT", b"acTL", b""):
            at += 12 + int.from_bytes(head[at : at + 4], "big")
        return kind != b"IDAT"
    if head.startswith(_JPEG):  # segments: mark, length, content; MPF comes before SOS
        at = 2
        while (mark := head[at : at + 2]) not in (b"\xff\xda", b""):
            if mark == b"\xff\xe2" and head[at + 4 : at + 8] == b"MPF\x00":
                return True
            filled = mark == b"\xff\xff"  # any number of these may stand before a mark
            at += 1 if filled else 2 + int.from_bytes(head[at + 2 : at + 4], "big")
        return mark == b""
    if head[8:12] == b"WEBP":
        return head[12:16] == b"VP8X"  # only this kind can
    return head.startswith(b"GIF8")


def _suffix(name: str) -> str:
    """The suffix in small letters, `.nii.gz` and its like as one."""
    parts = name.lower().rsplit(".", 2)
    if len(parts) == 3 and parts[-1] == "gz":
        return f".{parts[-2]}.gz"
    return f".{parts[-1]}" if len(parts) > 1 else ""


def suffix_of(name: str) -> str:
    """That of an image format, in small letters; "" where it is none."""
    found = _suffix(name)
    return found if found in _SUFFIXES else ""
