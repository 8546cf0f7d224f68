"""NIfTI-1 and 2, Analyze and FreeSurfer's MGH, by nibabel; orientation by the affine.

Contract: `item` counts the volumes from 0 over the axes after the third, the fourth fastest. A 2D
file is a volume of one slice. Complex values become their magnitude, RGB becomes luminance.

A header may say the spacing twice, by the affine and by pixdim. Scanners write pixdim, and software
that forgets the affine leaves an identity in the sform. So where the lengths of the sform's columns
are not those of pixdim, the qform is used, whose lengths are pixdim's by definition, and without one
the sform's directions with the lengths of pixdim. Only a pixdim of 1 mm throughout, which is what
software that forgets pixdim leaves, is not believed against an sform. `two_spacings` says which files
contradict themselves. Lengths in metres or micrometres, as `xyzt_units` says, become millimetres.
"""

from __future__ import annotations

import contextlib
import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepssim_jax.data.decoded import Decoded, in_float32, luminance
from deepssim_jax.data.formats import Format, recognise
from deepssim_jax.data.guards import (
    GZIP,
    SLACK,
    Limits,
    check_gzip,
    check_ratio,
    check_voxels,
    inflated,
    inflated_head,
    once_a_file,
    read_head,
    the_item,
)
from deepssim_jax.data.volume import Unreadable, oriented

if TYPE_CHECKING:  # it takes a third of a second, which folders without such files need not wait
    import nibabel
    from nibabel.spatialimages import SpatialImage

# Spacings that differ by less are one spacing, rounded.
_DIFFER = 0.02
# Of `xyzt_units`; unknown ones are millimetres.
_IN_MM: dict[object, float] = {"meter": 1e3, "micron": 1e-3}
TWO_SPACINGS = (
    "its header says two spacings, by the affine and by pixdim; pixdim is believed unless it is 1 mm "
    "throughout"
)


def count(path: Path, kind: Format) -> int:
    """Volumes in the file."""
    if kind is Format.NIFTI:
        import nibabel

        # The header alone: folders hold thousands of such files.
        head = _head(path)
        known = nibabel.Nifti2Header if _is_second(head) else nibabel.Nifti1Header
        header = known(head[: known.template_dtype.itemsize], check=False)
        shape, item = header.get_data_shape(), header.get_data_dtype().itemsize
    else:
        with _opened(path, kind) as image:
            shape, item = image.shape, image.get_data_dtype().itemsize
    images = math.prod(_further(shape))
    _check_size(path, images * item)
    return images


def _head(path: Path) -> bytes:
    head = read_head(path, 4096)
    return inflated_head(head, 540) if head.startswith(GZIP) else head


def _is_second(head: bytes) -> bool:
    return head[4:7] == b"n+2"


def read(path: Path, item: int | None, kind: Format, limits: Limits) -> Decoded:
    """Reads one volume.

    Raises:
      Unreadable: with the reason; nibabel's own errors for damage pass.
    """
    with _opened(path, kind) as image:
        shape = tuple(int(length) for length in image.shape)
        if len(shape) < 2:
            raise Unreadable(f"has {len(shape)} dimensions, and 2 or 3 are known")
        space, further = (*shape, 1)[:3], _further(shape)
        voxels = check_voxels(space, limits)
        number = the_item(item, math.prod(further))
        size = voxels * math.prod(further) * image.get_data_dtype().itemsize
        _check_size(path, size)
        # All of a file is looked at before anything in it is believed, once for all of a series; of one
        # volume, what was inflated for that is what is read.
        if read_head(path, 2) == GZIP:
            import nibabel

            one_file = isinstance(image, nibabel.Nifti1Image | nibabel.MGHImage)
            if one_file and math.prod(further) == 1:
                image = type(image).from_stream(inflated(path, size + SLACK))
            else:
                once_a_file(check_gzip, path, size + SLACK)
        place = np.unravel_index(number, further, order="F") if further else ()
        values = np.asarray(image.dataobj[(..., *place)] if place else image.dataobj)
        return Decoded(*oriented(_real(values).reshape(space), affine_of(image)))


def affine_of(image: SpatialImage) -> np.ndarray:
    """float64 [4, 4], index to RAS millimetres, by the rule of the module."""
    import nibabel

    affine, header = np.asarray(image.affine, float), image.header
    if not isinstance(header, nibabel.Nifti1Header):
        return affine
    pixdim = _contradicting(header, affine)
    if pixdim is not None and not np.allclose(pixdim, 1.0):
        if int(header["qform_code"]) > 0:
            affine = np.asarray(header.get_qform(), float)
        else:
            affine = affine.copy()
            affine[:3, :3] *= pixdim / np.linalg.norm(affine[:3, :3], axis=0)
    return np.diag([*[_millimetres(header)] * 3, 1.0]) @ affine


def _millimetres(header: nibabel.Nifti1Header) -> float:
    """How many a unit of length of this header is."""
    try:
        return _IN_MM.get(header.get_xyzt_units()[0], 1.0)
    except KeyError:  # a number that stands for no unit
        return 1.0


def _contradicting(header: nibabel.Nifti1Header, affine: np.ndarray) -> np.ndarray | None:
    """The pixdim [3] of a header whose affine has other lengths."""
    pixdim = np.abs(np.asarray(header["pixdim"], float)[1:4])
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(pixdim).all() and (pixdim > 0).all() and (lengths > 0).all()):
        return None
    return None if np.allclose(lengths, pixdim, rtol=_DIFFER) else pixdim


def two_spacings(path: Path) -> bool:
    """Whether the affine and pixdim of a file contradict each other; only headers are read."""
    found = recognise(path)
    if found is None or found.format is not Format.NIFTI:
        return False
    import nibabel

    with _opened(path, found.format) as image:
        header = image.header
        if not isinstance(header, nibabel.Nifti1Header):
            return False
        return _contradicting(header, np.asarray(image.affine, float)) is not None


def _check_size(path: Path, size: int) -> None:
    """Raises `Unreadable` if a file is too small for the bytes of values that it declares."""
    if read_head(path, 2) == GZIP:
        check_ratio(size, path)
    elif size > path.stat().st_size:
        raise Unreadable(f"is truncated: it declares {size:,} bytes of values")


def _further(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes after the third, without those of one at the end."""
    further = list(shape[3:])
    while further and further[-1] == 1:
        further.pop()
    return tuple(further)


def _real(values: np.ndarray) -> np.ndarray:
    if values.dtype.names:
        return luminance(np.stack([values[name] for name in values.dtype.names], -1))
    if values.dtype.kind == "c":
        return np.abs(values).astype(np.float32)
    if values.dtype.kind not in "biuf":
        raise Unreadable(f"holds {values.dtype.name} values, and real numbers are needed")
    return in_float32(values)


@contextlib.contextmanager
def _opened(path: Path, kind: Format) -> Iterator[SpatialImage]:
    """The image of a file, whose name may have any suffix; its values are read while it is open."""
    import nibabel

    if kind is Format.ANALYZE:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.spatialimages.SpatialImage):
            raise Unreadable("is no Analyze image")
        yield image
        return
    packed = read_head(path, 2) == GZIP
    opened = gzip.open if packed else open
    head = _head(path)
    with opened(path, "rb") as file:
        if kind is Format.MGH:
            yield nibabel.MGHImage.from_stream(file)
        elif _is_second(head):
            yield nibabel.Nifti2Image.from_stream(file)
        elif head[344:347] == b"n+1":
            yield nibabel.Nifti1Image.from_stream(file)
        else:
            raise Unreadable(
                "has no readable NIfTI header"
                if packed == path.name.lower().endswith(".gz")
                else "is no gzip file, whatever its name says"
            )
