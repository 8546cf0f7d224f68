"""DICOM files made here: rescale, inverted photometry, series sorted by position."""

from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.volume import SliceSpec

pydicom = pytest.importorskip("pydicom", reason="the dicom extra is not installed")


def write(path: Path, pixels: np.ndarray, *, series: str = "1.2.3", **tags: object) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientName, data.PatientID = "CT", "CANARY^NAME", "CANARY-ID"
    data.SeriesInstanceUID = series
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = pixels.astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)


def picture() -> np.ndarray:
    return np.arange(48, dtype=np.uint16).reshape(6, 8)


def only(folder: Path) -> np.ndarray:
    manifest = read_manifest(folder, role=Role.REAL)
    assert len(manifest.records) == 1
    return read_image(manifest.records[0], spec=None)


def test_rescale_and_inverted_photometry(tmp_path: Path) -> None:
    write(
        tmp_path / "a.dcm",
        picture(),
        RescaleSlope=2,
        RescaleIntercept=-100,
        PhotometricInterpretation="MONOCHROME1",
    )
    np.testing.assert_allclose(only(tmp_path), (2.0 * picture() - 100)[::-1, ::-1])


def test_a_series_is_sorted_by_position_not_by_name(tmp_path: Path) -> None:
    heights = [10.0, -5.0, 0.0, 5.0]
    for number, z in enumerate(heights):
        write(
            tmp_path / f"{number}.dcm",
            picture() + np.uint16(100 + int(z)),
            ImagePositionPatient=[0, 0, z],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
        )
    volume = only(tmp_path)
    assert volume.shape == (4, 6, 8)
    # LPS: rows run to the back and columns to the left, which is the order wanted.
    np.testing.assert_allclose(volume[:, 0, 0], [95, 100, 105, 110])
    manifest = read_manifest(tmp_path, role=Role.REAL)
    axial = read_image(manifest.records[0], spec=SliceSpec.parse("axial:0"))
    np.testing.assert_allclose(axial, picture() + 95.0)


def test_no_name_from_the_header_becomes_an_id(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", picture())
    manifest = read_manifest(tmp_path, role=Role.REAL)
    assert "CANARY" not in repr(manifest.records[0])


def test_a_damaged_file_is_listed(tmp_path: Path) -> None:
    from deepssim_jax.data.volume import Unreadable

    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"rubbish" * 20)
    manifest = read_manifest(tmp_path, role=Role.REAL)
    with pytest.raises(Unreadable):
        read_image(manifest.records[0], spec=None)
