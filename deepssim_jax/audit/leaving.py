"""An image of a folder as it leaves: its pixels in a new file that holds nothing else.

Contract: what is written is what is judged. A file can hold much beside the image that is seen: a second
picture, an alpha channel, a header with a patient's name, bytes after its end. So no file leaves as it
is. Colours are judged channel by channel, a sheet of several pictures also picture by picture, and where
pixels are not square, the image is judged as it is shown, too.
"""

import dataclasses

import numpy as np
from PIL import Image, ImageOps

from deepssim_jax.audit.guard import View
from deepssim_jax.data.decoded import constant, luminance
from deepssim_jax.data.formats import Format, recognise
from deepssim_jax.data.manifest import Record
from deepssim_jax.data.pictures import ImageFormat, nifti, whole_png
from deepssim_jax.data.preprocess import without_outliers
from deepssim_jax.data.readers import read_pixels
from deepssim_jax.data.sheets import fields
from deepssim_jax.data.store import InputSettings

_COLOURED = (Format.PICTURE, Format.TIFF)
_ROUNDING = 1e-3  # of the luminance of three equal colours


@dataclasses.dataclass(frozen=True)
class Leaving:
    """A file `content` with its `suffix`, and what of it is judged.

    `views` are the image, then its colours and, of a sheet, the pictures on it; `shown` is the image with
    square pixels where its own are not, which the new file does not say.
    """

    content: bytes
    suffix: str
    views: tuple[View, ...]
    shown: View | None = None

    @property
    def all_views(self) -> tuple[View, ...]:
        """Those of the file, and that of the image as it is shown."""
        return self.views if self.shown is None else (*self.views, self.shown)

    @classmethod
    def of(cls, record: Record, form: InputSettings) -> "Leaving":
        """What the image of a record becomes.

        Raises:
          Unreadable: it is no image of two dimensions, or holds nothing.
        """
        pixels, square = read_pixels(record)
        colours = _colours(record)
        if colours is None:
            image_format, content = _grey(pixels)
            views = [View.of(pixels, form)]
        else:
            image_format, content = ImageFormat.PNG, whole_png(colours)
            views = [View.of(without_outliers(luminance(colours)), form)]
            views += [
                View.of(np.asarray(channel, np.float32), form)
                for channel in np.moveaxis(colours, -1, 0)
                if not constant(channel)
            ]
        views += [View.of(box.of(pixels), form) for box in fields(pixels)]
        shown = View.of(square, form) if square.shape != pixels.shape else None
        return cls(content, image_format.suffix, tuple(views), shown)


def _grey(pixels: np.ndarray) -> tuple[ImageFormat, bytes]:
    """PNG of 8 or 16 bits where that holds every value, else NIfTI."""
    whole = np.round(pixels)
    if whole.min() >= 0 and whole.max() < 1 << 16 and (np.abs(pixels - whole) < _ROUNDING).all():
        return ImageFormat.PNG, whole_png(whole)
    return ImageFormat.NIFTI, nifti(pixels)


def _colours(record: Record) -> np.ndarray | None:
    """uint8 [h, w, 3] of a coloured picture; None where it is grey, or its format keeps none here."""
    found = recognise(record.path)
    if found is None or found.format not in _COLOURED:
        return None
    if found.format is Format.TIFF and record.items:
        return None  # Pillow counts its pages otherwise
    try:
        with Image.open(record.path) as image:
            if record.items:
                image.seek(record.items[0])
            upright = ImageOps.exif_transpose(image)
            if len(upright.getbands()) == 1 and upright.mode != "P":
                return None
            values = np.asarray(upright.convert("RGB"))
    except (OSError, ValueError):
        return None  # Pillow knows fewer kinds of TIFF than their reader
    return None if (values == values[..., :1]).all() else values
