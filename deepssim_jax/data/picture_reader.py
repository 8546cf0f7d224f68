"""Pictures: PNG, JPEG, JPEG 2000, BMP, GIF and WebP, as every viewer shows them.

Contract: `item` counts the pictures of an animation from 0. Orientation by EXIF is undone. The
resolution that a picture may declare is ignored, as viewers do.
"""

from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from deepssim_jax.data.decoded import Decoded, check_alpha, in_float32, luminance, upright
from deepssim_jax.data.guards import Limits, check_pixels, read_head, the_item
from deepssim_jax.data.volume import Unreadable

# Pillow refuses twice as many, from the header and from that of every frame of an animation.
Image.MAX_IMAGE_PIXELS = Limits().pixels // 2

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L")
_EXIF_ORIENTATION = 274


def count(path: Path) -> int:
    """Pictures in the file."""
    with Image.open(path) as image:
        return getattr(image, "n_frames", 1)


def read(path: Path, item: int | None, limits: Limits) -> Decoded:
    """Reads one picture.

    Raises:
      Unreadable: with the reason; Pillow's own errors for damage pass.
    """
    try:
        return _read(path, item, limits)
    except Image.DecompressionBombError as error:
        raise Unreadable(f"declares more pixels than the limit of {Limits().pixels:,}") from error
    except UnidentifiedImageError as error:
        raise Unreadable(
            "is no PNG, JPEG, BMP, GIF or WebP image, whatever its name says"
        ) from error


def _read(path: Path, item: int | None, limits: Limits) -> Decoded:
    with Image.open(path) as image:
        check_pixels(*image.size, limits)
        place = the_item(item, getattr(image, "n_frames", 1))
        if place:
            image.seek(place)
            check_pixels(*image.size, limits)  # a frame can enlarge the canvas
        if place == 0 and _is_deep_colour(path):
            # Pillow keeps 8 of the 16 bits of a colour.
            values = imagecodecs.png_decode(path.read_bytes())
            if values.shape[-1] in (2, 4):
                check_alpha(values[..., -1])
                values = values[..., :-1]
            grey = luminance(values)
            return Decoded(upright(grey, image.getexif().get(_EXIF_ORIENTATION, 1)))
        image = ImageOps.exif_transpose(image)
        if image.mode in _GREY:
            return Decoded(in_float32(np.asarray(image)))
        # That of a grey or coloured picture which names one colour as transparent hides nothing else.
        layered = "A" in image.getbands() or (image.mode == "P" and "transparency" in image.info)
        if layered:
            check_alpha(np.asarray(image.convert("RGBA").getchannel("A")))
        return Decoded(luminance(np.asarray(image.convert("RGB"))))


def _is_deep_colour(path: Path) -> bool:
    """Whether a file is a PNG of 16 bits (byte 24) and not plain grey (byte 25)."""
    head = read_head(path, 26)
    return head.startswith(_PNG) and head[24:25] == b"\x10" and head[25:26] != b"\x00"
