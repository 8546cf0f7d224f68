"""Writing pictures: values in [0, 1], float [h, w], to files whose bytes depend on nothing else.

Contract: what `ImageFormat.as_read` says of an image is what `data.readers` gives for its file.
"""

import enum
import gzip
import io

import nibabel
import numpy as np
from PIL import Image

from deepssim_jax.data.preprocess import without_outliers

# A picture has no size in millimetres: a pixel counts 1, and the unit stays unknown. Columns run to
# the patient's left and rows to the back, which is how the reader shows a slice.
_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


class ImageFormat(enum.StrEnum):
    """PNG holds 8 bits a pixel; NIfTI (`.nii.gz`, [w, h, 1]) holds float32, every value as it is."""

    PNG = "png"
    NIFTI = "nifti"

    @property
    def suffix(self) -> str:
        """Of the names of files."""
        return ".png" if self is ImageFormat.PNG else ".nii.gz"

    def encoded(self, image: np.ndarray) -> bytes:
        """The file of an image."""
        return png(image) if self is ImageFormat.PNG else nifti(image)

    def as_read(self, image: np.ndarray) -> np.ndarray:
        """The image as its file will be read, float32 [h, w]."""
        kept = as_uint8(image) if self is ImageFormat.PNG else image
        return without_outliers(np.asarray(kept, np.float32))


def as_uint8(image: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as the pixels of a picture."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """An image [h, w] of values in [0, 1] as an 8-bit PNG."""
    return whole_png(as_uint8(image))


def whole_png(values: np.ndarray) -> bytes:
    """Whole numbers from 0 as a PNG: [h, w] of 8 bits, or of 16 where one exceeds 255; or uint8 [h, w, 3]."""
    buffer = io.BytesIO()
    kind = np.uint8 if values.max() < 1 << 8 else np.uint16
    Image.fromarray(values.astype(kind, copy=False)).save(buffer, "PNG")
    return buffer.getvalue()


def nifti(image: np.ndarray) -> bytes:
    """An image [h, w] as a NIfTI file of float32."""
    volume = np.asarray(image, np.float32).T[:, :, None]
    # A time in the gzip header would make every run another file.
    return gzip.compress(nibabel.Nifti1Image(volume, _AFFINE).to_bytes(), mtime=0)
