"""DICOM made here: what the pixels of one file mean, and which files are refused."""

import gzip
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from deepssim_jax.data.volume import Unreadable
from tests.data.dicom_folders import images, only, single
from tests.data.made import (
    SYNTAXES,
    compressed_dicom,
    dicom_bytes,
    dicom_dataset,
    picture,
    volume,
    write_series,
)


def test_rescale_and_inverted_photometry(tmp_path: Path) -> None:
    found = single(
        tmp_path, picture(), RescaleSlope=2, RescaleIntercept=-100,
        PhotometricInterpretation="MONOCHROME1",
    )  # fmt: skip
    meant = 2.0 * picture() - 100
    np.testing.assert_allclose(found, meant.max() + meant.min() - meant)


def test_a_slope_alone_counts(tmp_path: Path) -> None:
    np.testing.assert_allclose(single(tmp_path, picture(), RescaleSlope="0.5"), picture() / 2)


def test_signed_values_of_twelve_bits(tmp_path: Path) -> None:
    signed = picture().astype(np.int16) - 1000
    np.testing.assert_allclose(
        single(tmp_path, signed & 0xFFF, BitsStored=12, HighBit=11, PixelRepresentation=1), signed
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_looked_up(tmp_path: Path, bits: int) -> None:
    grey = np.random.default_rng(0).permutation(256)
    table = (grey * (257 if bits == 16 else 1)).astype("<u2" if bits == 16 else "u1").tobytes()
    tags: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        tags[f"{colour}PaletteColorLookupTableData"] = table
    found = single(tmp_path, np.argsort(grey).astype(np.uint8)[picture()], **tags)
    np.testing.assert_allclose(found, picture() * (257.0 if bits == 16 else 1.0), rtol=1e-4)


def test_a_modality_table_is_looked_up(tmp_path: Path) -> None:
    data = dicom_dataset(255 - picture())
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 16])
    table.add_new("LUTData", "US", [int(x) for x in np.arange(256)[::-1] * 16])
    table.ModalityLUTType = "US"
    data.ModalityLUTSequence = [table]
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_allclose(only(tmp_path), picture() * 16.0)


@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_as_dark_as_the_darkest(tmp_path: Path, photometric: str, vr: str) -> None:
    meant = picture().astype(np.int16) * 4 + 100
    stored = 4095 - meant if photometric == "MONOCHROME1" else meant.copy()
    stored[:3] = -2000
    data = dicom_dataset(stored, PhotometricInterpretation=photometric)
    data.add_new("PixelPaddingValue", vr, -2000 if vr == "SS" else 65536 - 2000)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    found = only(tmp_path)
    inner = found[3:] - found[3:].min()
    np.testing.assert_allclose(inner, meant[3:] - meant[3:].min(), atol=1e-3)
    assert (found[:3] == found[3:].min()).all()


def test_a_range_of_padding(tmp_path: Path) -> None:
    data = dicom_dataset(picture().astype(np.int16))
    data.add_new("PixelPaddingValue", "SS", 0)
    data.add_new("PixelPaddingRangeLimit", "SS", 20)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    lowest = picture()[picture() > 20].min()
    np.testing.assert_array_equal(only(tmp_path), np.maximum(picture(), lowest))


@pytest.mark.parametrize(
    "tags",
    [
        {"PixelSpacing": [2, 1]},
        {"ImagerPixelSpacing": [0.4, 0.2]},
        {"PixelAspectRatio": [2, 1]},
    ],
)
def test_oblong_pixels_become_square(tmp_path: Path, tags: dict) -> None:
    ramp = np.arange(24, dtype=np.uint8)[:, None] * np.ones((1, 18), np.uint8)
    found = single(tmp_path, ramp, **tags)
    assert found.shape == (48, 18)
    # Row k of the new ones has its centre at (k + 1/2) / 2 - 1/2 of the old.
    wanted = (np.arange(48) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(found[1:-1, 5], wanted[1:-1], atol=1e-4)


@pytest.mark.parametrize("syntax", list(SYNTAXES))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressed_pixels_are_as_before(tmp_path: Path, syntax: str, dtype: type) -> None:
    pixels = picture().astype(dtype) * dtype(1 if dtype is np.uint8 else 200)
    (tmp_path / "a.dcm").write_bytes(compressed_dicom(syntax, pixels))
    np.testing.assert_array_equal(only(tmp_path), pixels)


def test_rle_and_gzip(tmp_path: Path) -> None:
    data = dicom_dataset(volume()[:, :, :])
    data.compress(pydicom.uid.RLELossless)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    (tmp_path / "a.dcm.gz").write_bytes(gzip.compress(buffer.getvalue()))
    for found, wanted in zip(images(tmp_path), volume(), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("syntax", list(SYNTAXES))
def test_a_frame_of_another_size_than_its_file_is_refused(tmp_path: Path, syntax: str) -> None:
    data = pydicom.dcmread(io.BytesIO(compressed_dicom(syntax, picture())))
    data.Rows = 23
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(Unreadable):
        images(tmp_path)


def test_other_compression_is_named(tmp_path: Path) -> None:
    data = pydicom.dcmread(io.BytesIO(compressed_dicom("JPEG-LS", picture())))
    data.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(Unreadable, match="MPEG2"):
        images(tmp_path)
    buffer = io.BytesIO()
    data = dicom_dataset(picture())
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(buffer, enforce_file_format=True)
    (tmp_path / "a.dcm").write_bytes(buffer.getvalue())
    with pytest.raises(Unreadable, match="deflated"):
        images(tmp_path)


@pytest.mark.parametrize(
    ("name", "vr", "value"),
    [
        ("NumberOfFrames", "LO", "1A"), ("NumberOfFrames", "IS", "2147483647"),
        ("Rows", "US", [24, 24]), ("Rows", "LO", ""),
        ("RescaleSlope", "LO", "1,5"), ("RescaleSlope", "LO", "1\\2"), ("RescaleSlope", "LO", "nan"),
    ],
)  # fmt: skip
def test_a_bad_header_is_refused(tmp_path: Path, name: str, vr: str, value: object) -> None:
    data = dicom_dataset(picture())
    with pydicom.config.disable_value_validation():
        data[name] = pydicom.DataElement(name, vr, value)
        data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(Unreadable):
        images(tmp_path)


def test_a_damaged_file_is_listed(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"rubbish" * 20)
    with pytest.raises(Unreadable):
        images(tmp_path)


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("name", ["a.dcm", "a"])
def test_a_file_that_begins_with_its_data_set(tmp_path: Path, name: str, implicit: bool) -> None:
    """As scanners wrote before 1993: no preamble, no file meta information."""
    data = pydicom.dcmread(io.BytesIO(dicom_bytes(picture())))
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    pydicom.filewriter.write_dataset(buffer, Dataset(data))
    (tmp_path / name).write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(only(tmp_path), picture())


def test_a_large_intercept_leaves_the_picture_as_it_is(tmp_path: Path) -> None:
    pixels = np.arange(24 * 18, dtype=np.uint16).reshape(24, 18)
    found = single(tmp_path, pixels, RescaleSlope=1, RescaleIntercept=1e9)
    np.testing.assert_array_equal(found - found.min(), pixels)
    write_series(tmp_path / "series", volume(), RescaleSlope=1, RescaleIntercept=10**9)
    found = images(tmp_path / "series")[0]
    np.testing.assert_array_equal(found - found.min(), volume())


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "PALETTE COLOR"])
def test_more_pixels_than_one_image_has_are_no_channels(tmp_path: Path, photometric: str) -> None:
    data = {"PixelData": picture().tobytes() * 30, "PhotometricInterpretation": photometric}
    with pytest.raises(Unreadable, match="holds the pixels of 30 images .* declares one"):
        single(tmp_path, picture(), **data)
