"""NRRD and MetaImage (.nrrd, .nhdr, .mha, .mhd), by SimpleITK; needs the `itk` extra.

Contract: `item` counts the volumes of a 4D file from 0. Pixels of three or four components are
colours. Data may lie in a second file, which must stand beside the header.
"""

import re
from pathlib import Path

import numpy as np

from deepssim_jax.data.decoded import Decoded, luminance
from deepssim_jax.data.guards import Limits, check_ratio, check_voxels, read_head, the_item
from deepssim_jax.data.volume import Unreadable, oriented

_DATA_FILE = re.compile(rb"^\s*(?:data ?file\s*:|ElementDataFile\s*=)\s*([^\r\n]*)", re.I | re.M)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_INLINE = (b"", b"local")


def _itk():
    try:
        import SimpleITK
    except ImportError as error:
        raise Unreadable(
            "reading NRRD and MetaImage needs SimpleITK: pip install 'deepssim-jax[itk]'"
        ) from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def parts(path: Path) -> tuple[Path, ...]:
    """All files of the image: the header, and the data that it names.

    Raises:
      Unreadable: the data are missing, are elsewhere, or in several files.
    """
    found = _DATA_FILE.search(read_head(path, 1 << 16))
    name = found.group(1).strip() if found else b""
    if name.lower() in _INLINE:
        return (path,)
    data = path.parent / name.decode("utf-8", "surrogateescape")
    if data.parent != path.parent or name.lower().startswith(b"list") or b"%" in name:
        raise Unreadable("its header names data in several files, or elsewhere than beside it")
    if not data.is_file():
        raise Unreadable("its data file is missing")
    return path, data


def count(path: Path) -> int:
    """Volumes in the file."""
    size = _information(path).GetSize()
    return int(size[3]) if len(size) == 4 else 1


def read(path: Path, item: int | None, limits: Limits) -> Decoded:
    """Reads one image or volume.

    Raises:
      Unreadable: with the reason; SimpleITK's own errors for damage pass.
    """
    files = parts(path)
    reader = _information(path)
    size = tuple(int(length) for length in reader.GetSize())
    if not 2 <= len(size) <= 4:
        raise Unreadable(f"has {len(size)} dimensions, and 2 to 4 are known")
    channels = reader.GetNumberOfComponents()
    if channels not in (1, 3, 4):
        raise Unreadable(f"has {channels} values a voxel, and 1, 3 or 4 are known")
    check_ratio(check_voxels(size[:3], limits), files[-1])
    number = the_item(item, size[3] if len(size) == 4 else 1)
    if len(size) == 4:
        reader.SetExtractSize([*size[:3], 0])
        reader.SetExtractIndex([0, 0, 0, number])
    itk = _itk()
    image = reader.Execute()
    values = itk.GetArrayFromImage(image)
    if values.dtype.kind == "c":
        values = np.abs(values)
    values = luminance(values) if channels > 1 else values.astype(np.float32)
    spacing = np.array(image.GetSpacing(), float)
    if values.ndim == 2:
        return Decoded(values, spacing[::-1])
    affine = np.eye(4)
    dimensions = len(size)
    direction = np.array(reader.GetDirection(), float).reshape(dimensions, dimensions)[:3, :3]
    affine[:3, :3] = _LPS_TO_RAS @ direction * spacing
    return Decoded(*oriented(values.transpose(2, 1, 0), affine))


def _information(path: Path):
    reader = _itk().ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader
