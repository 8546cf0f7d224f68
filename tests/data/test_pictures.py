"""A written picture reads back as it was said to, whichever format it is in."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from deepssim_jax.data.manifest import Record
from deepssim_jax.data.pictures import ImageFormat
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.volume import SliceSpec


def picture() -> np.ndarray:
    """No two of its mirrorings or turns are the same."""
    return np.random.default_rng(0).uniform(size=(9, 7)).astype(np.float32)


def read(folder: Path, image_format: ImageFormat, spec: str) -> np.ndarray:
    path = folder / f"a{image_format.suffix}"
    path.write_bytes(image_format.encoded(picture()))
    return read_image(Record("a", path), spec=SliceSpec.parse(spec))


@pytest.mark.parametrize("image_format", list(ImageFormat))
@pytest.mark.parametrize("spec", ["axial:0.5", "sagittal:3"])
def test_a_file_is_read_as_it_was_said(
    tmp_path: Path, image_format: ImageFormat, spec: str
) -> None:
    found = read(tmp_path, image_format, spec)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, image_format.as_read(picture()))


def test_nifti_shows_the_pixels_of_the_png_with_every_value_kept(tmp_path: Path) -> None:
    exact = read(tmp_path, ImageFormat.NIFTI, "axial:0.5")
    np.testing.assert_array_equal(exact, picture())
    np.testing.assert_array_equal(
        np.round(exact * 255), read(tmp_path, ImageFormat.PNG, "axial:0.5")
    )
    volume = nibabel.load(tmp_path / "a.nii.gz")
    assert volume.shape == (7, 9, 1) and volume.get_data_dtype() == np.float32
    assert nibabel.aff2axcodes(volume.affine) == ("L", "P", "S")


def test_the_bytes_hold_no_time(monkeypatch) -> None:
    once = ImageFormat.NIFTI.encoded(picture())
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert ImageFormat.NIFTI.encoded(picture()) == once
    assert once[4:8] == b"\0" * 4
    assert gzip.decompress(once)[344:348] == b"n+1\0"
