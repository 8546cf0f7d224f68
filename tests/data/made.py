"""One small file of every format that is read, made from one formula."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
CT, SC = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT = "1.2.840.10008.1.2.1"


def picture(height: int = 24, width: int = 18) -> np.ndarray:
    """uint8 [height, width], different from each of its turned and mirrored self."""
    y, x = np.mgrid[:height, :width]
    return ((7 * y + 3 * x + (y * x) // 3) % 251).astype(np.uint8)


def volume(depth: int = 5, height: int = 8, width: int = 6) -> np.ndarray:
    """uint16 [depth, height, width], every value different."""
    return np.arange(depth * height * width, dtype=np.uint16).reshape(depth, height, width)


def dicom_dataset(pixels: np.ndarray, **tags: object) -> Dataset:
    """A DICOM image of [h, w] or frames [n, h, w], unsigned or signed; `tags` are set last."""
    pixels = np.ascontiguousarray(pixels)
    data, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CT, EXPLICIT
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[str(tags)])
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CT, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID = "CANARY^NAME", "CANARY-ID"
    data.SeriesInstanceUID = "1.2.3"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    bits = pixels.dtype.itemsize * 8
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    data["PixelData"].VR = "OW" if bits > 8 else "OB"
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def dicom_bytes(pixels: np.ndarray, **tags: object) -> bytes:
    """The file of `dicom_dataset`."""
    buffer = io.BytesIO()
    dicom_dataset(pixels, **tags).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_series(
    folder: Path, values: np.ndarray, *, name: str = "{:02d}.dcm", **tags: object
) -> None:
    """An axial series, one mm a step unless `tags` say otherwise; a callable tag takes the slice."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(values):
        given = {
            "InstanceNumber": i + 1,
            "ImagePositionPatient": [0, 0, i],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1, 1],
        } | {key: tag(i) if callable(tag) else tag for key, tag in tags.items()}
        (folder / name.format(i)).write_bytes(dicom_bytes(frame, **given))


def compressed_dicom(syntax: str, pixels: np.ndarray) -> bytes:
    """A file of one frame in a compressed transfer syntax: `SYNTAXES`."""
    data = dicom_dataset(pixels)
    data.file_meta.TransferSyntaxUID = SYNTAXES[syntax][0]
    data.PixelData = pydicom.encaps.encapsulate([SYNTAXES[syntax][1](pixels)])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    return _saved(lambda f: data.save_as(f, enforce_file_format=True))


SYNTAXES = {
    "JPEG Lossless": ("1.2.840.10008.1.2.4.70", imagecodecs.ljpeg_encode),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
    "JPEG 2000": (
        "1.2.840.10008.1.2.4.90",
        lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True),
    ),
}


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def _pillow(format_name: str, **options: object) -> bytes:
    return _saved(lambda f: Image.fromarray(picture()).save(f, format_name, **options))


def _animated(format_name: str) -> bytes:
    frames = [Image.fromarray(np.roll(picture(), i, 0)) for i in range(3)]
    return _saved(lambda f: frames[0].save(f, format_name, save_all=True, append_images=frames[1:]))


def _nrrd(encoding: str) -> bytes:
    data = volume().tobytes()
    head = (
        "NRRD0004\ntype: uint16\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 8 5\n"
        f"space directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\nencoding: {encoding}\n"
        "space origin: (0,0,0)\n\n"
    )
    return head.encode() + (data if encoding == "raw" else gzip.compress(data, mtime=0))


def _mha() -> bytes:
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
        "ElementSpacing = 1 1 1\nDimSize = 6 8 5\nElementType = MET_USHORT\n"
        "ElementDataFile = LOCAL\n"
    )
    return head.encode() + volume().tobytes()


def _xyz() -> np.ndarray:
    return volume().transpose(2, 1, 0).astype(np.int16)


def _npz(**arrays: np.ndarray) -> bytes:
    return _saved(lambda f: np.savez_compressed(f, **arrays))


def files() -> dict[str, bytes]:
    """File name: content, of every format in which one file is enough."""
    rgb = np.stack([picture()] * 3, -1)
    return {
        "a.png": _pillow("PNG"),
        "deep.png": _saved(lambda f: Image.fromarray(picture().astype(np.uint16) * 257).save(f, "PNG")),
        "anim.png": _animated("PNG"),
        "a.jpg": _pillow("JPEG", quality=95),
        "a.bmp": _pillow("BMP"),
        "a.gif": _pillow("GIF"),
        "anim.gif": _animated("GIF"),
        "a.webp": _saved(lambda f: Image.fromarray(rgb).save(f, "WEBP", lossless=True)),
        "a.jp2": _pillow("JPEG2000"),
        "a.tif": _saved(lambda f: tifffile.imwrite(f, picture())),
        "lzw.tif": _saved(lambda f: tifffile.imwrite(f, picture(), compression="lzw")),
        "pages.tif": _saved(
            lambda f: tifffile.imwrite(f, np.stack([picture()] * 3), photometric="minisblack")
        ),
        "a.npy": _saved(lambda f: np.save(f, picture())),
        "stack.npz": _npz(images=np.stack([picture()] * 3), labels=np.arange(3)[:, None]),
        "a.nii": nibabel.Nifti1Image(_xyz(), LPS).to_bytes(),
        "a.nii.gz": gzip.compress(nibabel.Nifti1Image(_xyz(), LPS).to_bytes(), mtime=0),
        "two.nii": nibabel.Nifti2Image(_xyz(), LPS).to_bytes(),
        "a.mgz": gzip.compress(nibabel.MGHImage(_xyz(), LPS).to_bytes(), mtime=0),
        "a.nrrd": _nrrd("raw"),
        "gzip.nrrd": _nrrd("gzip"),
        "a.mha": _mha(),
        "a.dcm": dicom_bytes(picture()),
        "IM0001": dicom_bytes(picture()),
        "frames.dcm": dicom_bytes(np.stack([picture()] * 3)),
        "a.dcm.gz": gzip.compress(dicom_bytes(picture()), mtime=0),
        **{f"{name}.dcm": compressed_dicom(name, picture()) for name in SYNTAXES},
    }  # fmt: skip
