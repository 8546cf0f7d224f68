"""Decoders of compressed DICOM, for pydicom to call: those of imagecodecs.

Contract: a frame's bytes become its samples, colour by pixel, as they were before compression; signs
and colours are pydicom's business. The decoders that pydicom would choose where they are installed
(GDCM) end the whole process at a damaged frame.
"""

import functools

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels import get_decoder
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import DecodeRunner

_LABEL = "imagecodecs"
_JPEG = (uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_2000 = (
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
)
# SOF0 to SOF15 without the tables and extensions among them, and SOF55 of JPEG-LS.
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
# What pydicom asks of a plugin.
DECODER_DEPENDENCIES = dict.fromkeys(_JPEG + _JPEG_LS + _JPEG_2000, ("imagecodecs",))
_OTHERS = {uid.JPEGBaseline8Bit: "pillow", uid.RLELossless: "pydicom"}


def is_available(syntax: str) -> bool:
    """Whether this module decodes a transfer syntax; pydicom asks."""
    return syntax in DECODER_DEPENDENCIES


@functools.cache
def plugin(syntax: uid.UID) -> str:
    """The name of the decoder for a transfer syntax, which pydicom knows from then on; "" for values
    that are not compressed.

    Raises:
      NotImplementedError: no decoder knows it.
    """
    if not syntax.is_compressed:
        return ""
    decoder = get_decoder(syntax)
    if syntax in _OTHERS:
        return _OTHERS[syntax]
    if _LABEL not in decoder.available_plugins:
        decoder.add_plugin(_LABEL, (__name__, "_decode_frame"))
    return _LABEL


def _decode_frame(source: bytes, runner: DecodeRunner) -> bytearray:
    """The samples of a frame; pydicom calls it."""
    syntax, coloured = runner.transfer_syntax, runner.samples_per_pixel > 1
    _check_size(source, runner)
    if syntax in _JPEG:
        # The same space before and after: no conversion.
        space = "RGB" if coloured else None
        values = imagecodecs.jpeg8_decode(source, colorspace=space, outcolorspace=space)
    elif syntax in _JPEG_LS:
        values = imagecodecs.jpegls_decode(source)
    else:
        values = imagecodecs.jpeg2k_decode(source)
        if runner.photometric_interpretation in (
            PhotometricInterpretation.YBR_ICT,
            PhotometricInterpretation.YBR_RCT,
        ):
            runner.set_option("photometric_interpretation", PhotometricInterpretation.RGB)
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", values.dtype.itemsize * 8)
    return bytearray(np.ascontiguousarray(values).tobytes())


def _check_size(source: bytes, runner: DecodeRunner) -> None:
    """Raises ValueError unless a frame has the size of its file: it could ask for any memory, or time."""
    if runner.transfer_syntax in _JPEG_2000:
        # SIZ follows at once (ISO 15444-1 A.5.1).
        start = source.find(b"\xff\x4f\xff\x51") + 8
        width, height, left, top = (_number(source, start + 4 * i, 4) for i in range(4))
        size = (height - top, width - left) if start >= 8 else None
    else:
        size = _size_of_jpeg(source)
    if size != (runner.rows, runner.columns):
        raise ValueError(f"a frame of {size}, and its file has {(runner.rows, runner.columns)}")


def _size_of_jpeg(source: bytes) -> tuple[int, int] | None:
    """Height and width by the frame header (SOF, ITU T.81 B.2.2 and T.87 C.2.2), found by the lengths
    of the segments before it.
    """
    place = 2
    while place + 9 <= len(source) and source[place] == 0xFF:
        if source[place + 1] in _FRAME_HEADERS:
            return _number(source, place + 5, 2), _number(source, place + 7, 2)
        place += 2 + _number(source, place + 2, 2)
    return None


def _number(source: bytes, start: int, count: int) -> int:
    return int.from_bytes(source[start : start + count], "big")
