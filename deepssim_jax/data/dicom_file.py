"""One DICOM file as pydicom's data set. Needs the `dicom` extra."""

import io
from pathlib import Path
from types import ModuleType
from typing import Any

from deepssim_jax.data.formats import begins_with_data
from deepssim_jax.data.guards import GZIP, Limits, inflated, read_head
from deepssim_jax.data.volume import Unavailable, Unreadable

_HINT = "reading DICOM needs pydicom: pip install 'deepssim-jax[dicom]'"
DEFLATED = b"1.2.840.10008.1.2.1.99"


def pydicom_module() -> ModuleType:
    """pydicom, or the reason why not."""
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise Unavailable(_HINT) from error
    return pydicom


def dataset(path: Path, limits: Limits = Limits(), **how: Any) -> Any:
    """The data set of a file, as pydicom's `dcmread` gives it, also of a gzipped one.

    Files of before 1993 begin with the data set itself: they are read in the encoding that they show.

    Raises:
      Unreadable: the content would be inflated without a limit; pydicom's own errors pass.
    """
    head = read_head(path, 1024)
    if head.startswith(GZIP):
        content = inflated(path, limits.file_bytes)
        head = content.getvalue()[:1024]
        source: Path | io.BytesIO = content
    else:
        source = path
    if DEFLATED in head:
        raise Unreadable("is deflated DICOM; write it again in Explicit VR Little Endian")
    pydicom = pydicom_module()
    found = pydicom.dcmread(source, force=begins_with_data(head), **how)
    if "TransferSyntaxUID" not in found.file_meta:
        implicit = found.original_encoding[0]
        syntax = (
            pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        )
        found.file_meta.TransferSyntaxUID = syntax
    return found
