"""Samples beside an image's own are never passed over, and no value is rounded away."""

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.records import ArrayLayout, Record
from deepssim_jax.data.volume import Unreadable
from tests.data.made import dicom_bytes

RNG = np.random.default_rng(0)
IMAGE, OTHER = RNG.integers(0, 256, (2, 40, 30), np.uint8)
CUT = np.where(np.indices(IMAGE.shape).sum(0) < 35, 0, 255).astype(np.uint8)
FLAT = np.full_like(IMAGE, 255)


def record(path: Path) -> Record:
    return Record(path.name, path, layout=ArrayLayout.IMAGES)


def read(path: Path) -> np.ndarray:
    return read_image(record(path), spec=None)


def test_a_second_sample_of_a_tiff_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for photometric in ("minisblack", "miniswhite"):
        for planar, axis in (("contig", -1), ("separate", 0)):
            how = {"photometric": photometric, "planarconfig": planar}
            for second in (OTHER, CUT):
                tifffile.imwrite(path, np.stack([IMAGE, second], axis), **how)
                with pytest.raises(Unreadable, match="2 channels that are no colours"):
                    read(path)
            tifffile.imwrite(path, np.stack([IMAGE, FLAT], axis), **how)
            wanted = IMAGE if photometric == "minisblack" else 255 - IMAGE
            np.testing.assert_array_equal(read(path), wanted)


def test_the_fourth_sample_of_a_coloured_tiff_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for extra, second, reason in (
        ("unspecified", OTHER, "4 channels that are no colours"),
        ("unassalpha", OTHER, "alpha channel of more than two values"),
        ("unspecified", FLAT, None),
        ("unassalpha", CUT, None),
    ):
        colours = np.stack([IMAGE] * 3 + [second], -1)
        tifffile.imwrite(path, colours, photometric="rgb", extrasamples=[extra])
        if reason is None:
            np.testing.assert_allclose(read(path), IMAGE, atol=0.01)
        else:
            with pytest.raises(Unreadable, match=reason):
                read(path)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_alpha_channel_that_is_an_image_is_refused(
    tmp_path: Path, mode: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    for alpha, said in ((OTHER, "more than two values"), (CUT, None), (FLAT, None)):
        picture = Image.fromarray(IMAGE).convert(mode)
        picture.putalpha(Image.fromarray(alpha))
        picture.save(path, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
        if said is not None:
            with pytest.raises(Unreadable, match=said):
                read(path)
            continue
        np.testing.assert_allclose(read(path), IMAGE, atol=0.01)


def test_a_palette_of_many_transparencies_is_refused(tmp_path: Path) -> None:
    picture = Image.fromarray(IMAGE).convert("P")
    picture.save(tmp_path / "a.png", transparency=bytes(range(256)))
    with pytest.raises(Unreadable, match="more than two values"):
        read(tmp_path / "a.png")
    picture.save(tmp_path / "a.png", transparency=7)
    np.testing.assert_allclose(read(tmp_path / "a.png"), IMAGE, atol=0.01)


def test_contrasts_in_the_channels_of_an_array_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    four = RNG.integers(0, 256, (40, 30, 4), np.uint8)
    for values in (four, np.stack([four] * 3), np.moveaxis(np.stack([four] * 3), -1, 1)):
        np.save(path, values)
        for one in read_manifest(tmp_path, role=Role.REAL).records:
            with pytest.raises(Unreadable, match="4 channels, and the last varies"):
                read_image(one, spec=None)
    np.save(path, four[..., :2])
    with pytest.raises(Unreadable, match="2 channels that are no colours"):
        read(path)
    four[..., 3] = 255
    np.save(path, four)
    np.testing.assert_allclose(read(path), four[..., :3] @ [0.299, 0.587, 0.114], atol=0.01)


@pytest.mark.parametrize("level", [4_000_000_000, 2**40, -(2**40)])
def test_an_image_far_from_zero_keeps_its_values(tmp_path: Path, level: int) -> None:
    for dtype in ("uint32", "int64", "uint64", "float64"):
        if not np.can_cast(np.min_scalar_type(level), dtype):
            continue
        np.save(tmp_path / "a.npy", IMAGE.astype(dtype) + np.array(level, dtype))
        np.testing.assert_array_equal(read(tmp_path / "a.npy"), IMAGE)
        tifffile.imwrite(tmp_path / "a.tif", np.load(tmp_path / "a.npy"), photometric="minisblack")
        np.testing.assert_array_equal(read(tmp_path / "a.tif"), IMAGE)
    np.save(tmp_path / "a.npy", IMAGE / 255 + 1e6)
    np.testing.assert_allclose(read(tmp_path / "a.npy"), IMAGE / 255, atol=1e-6)


def test_values_near_zero_stay_as_they_are(tmp_path: Path) -> None:
    for values in (IMAGE.astype(np.int32) - 1024, IMAGE * 1e-3 + 0.1):
        np.save(tmp_path / "a.npy", values)
        np.testing.assert_array_equal(read(tmp_path / "a.npy"), values.astype(np.float32))


def test_dicom_of_32_bits_keeps_its_values(tmp_path: Path) -> None:
    high = IMAGE.astype(np.uint32) + np.uint32(4_000_000_000)
    for photometric, wanted in (("MONOCHROME2", IMAGE), ("MONOCHROME1", IMAGE.max() - IMAGE)):
        tags = {"PhotometricInterpretation": photometric}
        (tmp_path / "a.dcm").write_bytes(dicom_bytes(high, **tags))
        found = read(tmp_path / "a.dcm")
        np.testing.assert_array_equal(found - found.min(), wanted - wanted.min())


def test_a_tiff_of_a_damaged_size_is_refused_at_once(tmp_path: Path) -> None:
    """A width that is no number but bytes, times the height, would be a text of gigabytes."""
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, metadata=None)
    content = (tmp_path / "a.tif").read_bytes()
    number = next(x for kind in (3, 4) if (x := struct.pack("<HHI", 256, kind, 1)) in content)
    assert content.count(number) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(number, struct.pack("<HHI", 256, 1, 1)))
    with pytest.raises(Unreadable, match="declares no size"):
        read(tmp_path / "a.tif")
