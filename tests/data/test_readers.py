"""Every kind of file is read as it should be, and every kind of bad file is refused with a reason."""

import concurrent.futures
import gzip
import struct
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from deepssim_jax.data.manifest import Record, Role, read_manifest
from deepssim_jax.data.quiet import quiet
from deepssim_jax.data.readers import Limits, read_image
from deepssim_jax.data.volume import SliceSpec, Unreadable, oriented
from tests.data.made import write_series

MIDDLE = SliceSpec.parse("axial:0.5")


def ramp(height: int = 12, width: int = 16) -> np.ndarray:
    return np.add.outer(np.arange(height) * 10, np.arange(width)).astype(np.uint8)


def read(path: Path, spec: SliceSpec | None = MIDDLE, limits: Limits = Limits()) -> np.ndarray:
    return read_image(Record("id", path), spec=spec, limits=limits)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".npz"])
def test_lossless_formats_give_the_values(tmp_path: Path, suffix: str) -> None:
    path, image = tmp_path / f"a{suffix}", ramp()
    if suffix == ".npy":
        np.save(path, image)
    elif suffix == ".npz":
        np.savez(path, image)
    else:
        Image.fromarray(image).save(path)
    np.testing.assert_array_equal(read(path), image)


def test_sixteen_bit_keeps_its_levels(tmp_path: Path) -> None:
    image = (ramp().astype(np.uint16) * 200) + 7
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), image)


def test_float_tiff(tmp_path: Path) -> None:
    image = ramp().astype(np.float32) / 7
    Image.fromarray(image).save(tmp_path / "a.tif")
    np.testing.assert_allclose(read(tmp_path / "a.tif"), image)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_colour_becomes_luminance(tmp_path: Path, mode: str) -> None:
    Image.fromarray(ramp()).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_allclose(read(tmp_path / "a.png"), ramp(), atol=0.01)


def test_jpeg(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read(tmp_path / "a.jpg") - ramp()).mean() < 2


def marked_volume() -> tuple[np.ndarray, np.ndarray]:
    """RAS volume [x, y, z] with a bright voxel right, front and top of the centre."""
    volume = np.random.default_rng(0).uniform(0, 1, (8, 10, 12)).astype(np.float32)
    volume[6, 8, 9] = 5.0
    return volume, np.diag([1.0, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("code", ["RAS", "LPS", "PIR", "SAL"])
def test_any_orientation_gives_the_same_volume(tmp_path: Path, code: str) -> None:
    volume, affine = marked_volume()
    image = nibabel.Nifti1Image(volume, affine)
    turned = image.as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(code)
        )
    )
    nibabel.save(turned, tmp_path / "a.nii.gz")
    found = read(tmp_path / "a.nii.gz", spec=None)
    # Upwards, front to back, right to left: z 9, y 9 - 8, x 7 - 6.
    assert found.shape == (12, 10, 8)
    assert found[9, 1, 1] == pytest.approx(5.0)


def test_slices_of_a_volume(tmp_path: Path) -> None:
    volume, affine = marked_volume()
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "a.nii")
    axial = read(tmp_path / "a.nii", SliceSpec.parse("axial:9"))
    assert axial[1, 1] == pytest.approx(5.0)
    coronal = read(tmp_path / "a.nii", SliceSpec.parse("coronal:1"))
    assert coronal[12 - 1 - 9, 1] == pytest.approx(5.0)  # head up


def test_oblong_voxels_become_square(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).uniform(0, 1, (8, 10, 6)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1, 2, 3, 1])), tmp_path / "a.nii")
    assert read(tmp_path / "a.nii").shape == (20, 8)


def test_oriented_reports_spacing_in_the_new_order() -> None:
    _, spacing = oriented(np.zeros((2, 3, 4)), np.diag([1.0, 2.0, 3.0, 1.0]))
    np.testing.assert_allclose(spacing, [3, 2, 1])


# Bad files, with what the reason must say.


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name: (file, words of the reason)."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(
        folder / "whole.png"
    )
    content = {
        "truncated.png": ((folder / "whole.png").read_bytes()[:-900], "truncated"),
        "text.png": (b"this is no picture\n", "no PNG"),
        "zero.png": (b"", "0 bytes"),
        "huge.png": (png_header(60_000, 60_000), "more pixels than the limit"),
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-lfs"),
        "noise.npy": (b"\x93NUMPY garbage", "NumPy"),
        "text.nii.gz": (gzip.compress(b"hello" * 100), "NIfTI"),
        "plain.nii.gz": (b"not gzip at all", "gzip"),
    }
    found = {}
    for name, (data, words) in content.items():
        (folder / name).write_bytes(data)
        found[name] = (folder / name, words)
    arrays = {
        "constant.npy": (np.zeros((8, 8)), "constant"),
        "nan.npy": (np.full((8, 8), np.nan), "not finite"),
        "objects.npy": (np.array([["a", "b"]]), "real numbers"),
        "flat.npy": (np.arange(8.0), "1 dimensions"),
    }
    for name, (array, words) in arrays.items():
        np.save(folder / name, array)
        found[name] = (folder / name, words)
    four = nibabel.Nifti1Image(np.random.default_rng(0).uniform(size=(4, 4, 4, 3)), np.eye(4))
    nibabel.save(four, folder / "four.nii.gz")
    found["four.nii.gz"] = (folder / "four.nii.gz", "3 images")
    (folder / "whole.png").unlink()
    return found


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spec", [None, MIDDLE, SliceSpec.parse("coronal:0.5")])
def test_a_volume_of_one_slice_is_that_slice(
    tmp_path: Path, axis: int, spec: SliceSpec | None
) -> None:
    shape = [12, 16]
    shape.insert(axis, 1)
    volume = nibabel.Nifti1Image(ramp().reshape(shape), np.diag([-1.0, -1.0, 1.0, 1.0]))
    nibabel.save(volume, tmp_path / "a.nii.gz")
    # Sagittal and coronal slices are shown with the head up: rows are z, downwards.
    wanted = ramp().T if axis == 2 else ramp().T[::-1]
    np.testing.assert_array_equal(read(tmp_path / "a.nii.gz", spec), wanted)


@pytest.mark.parametrize(
    "name",
    [
        "truncated.png",
        "text.png",
        "zero.png",
        "huge.png",
        "pointer.png",
        "noise.npy",
        "text.nii.gz",
        "plain.nii.gz",
        "constant.npy",
        "nan.npy",
        "objects.npy",
        "flat.npy",
        "four.nii.gz",
    ],
)
def test_a_bad_file_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    path, words = bad_files(tmp_path)[name]
    with pytest.raises(Unreadable) as caught:
        read(path)
    reason = str(caught.value)
    assert words in reason
    assert "\n" not in reason and str(tmp_path) not in reason


def bomb(folder: Path, *, declared: int, zeros: int) -> Path:
    header = nibabel.Nifti1Header()
    header.set_data_shape((declared, declared, declared))
    header.set_data_dtype(np.uint8)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path = folder / "bomb.nii.gz"
    with gzip.open(path, "wb") as file:
        file.write(bytes(header.binaryblock) + b"\0" * 4)
        for _ in range(zeros // 1_000_000):
            file.write(b"\0" * 1_000_000)
    return path


@pytest.mark.parametrize(("declared", "words"), [(780, "cannot hold"), (100, "inflates to more")])
def test_a_gzip_bomb_is_refused_in_little_memory(tmp_path: Path, declared: int, words: str) -> None:
    path = bomb(tmp_path, declared=declared, zeros=60_000_000)
    tracemalloc.start()
    with pytest.raises(Unreadable, match=words):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_limits_are_checked_before_decoding(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ramp())
    with pytest.raises(Unreadable, match="192 voxels"):
        read(tmp_path / "a.npy", limits=Limits(voxels=100))


@pytest.mark.parametrize("text", ["axial", "axial:1.5", "oblique:0.5", "axial:-3", "axial:x"])
def test_a_wrong_slice_says_what_is_right(text: str) -> None:
    with pytest.raises(ValueError, match="PLANE"):
        SliceSpec.parse(text)


@pytest.mark.parametrize("kind", ["double.npy", "deep.tif", "colour.png", "series"])
def test_no_more_than_two_decoded_images_are_in_memory(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 60_000, (20, 200, 200)).astype(np.uint16)
    flat = values.reshape(800, 1000)
    if kind == "series":
        write_series(tmp_path, values, PhotometricInterpretation="MONOCHROME1")
        decoded = 2 * values[0].nbytes
    elif kind == "double.npy":
        np.save(tmp_path / kind, flat.astype(np.float64))
        decoded = 8 * flat.size
    elif kind == "deep.tif":
        tifffile.imwrite(tmp_path / kind, flat)
        decoded = flat.nbytes
    else:
        Image.fromarray(np.stack([(flat >> 8).astype(np.uint8)] * 3, -1)).save(tmp_path / kind)
        decoded = 2 * 3 * flat.size  # Pillow's and NumPy's
    (record,) = read_manifest(tmp_path, role=Role.REAL).records
    read_image(record, spec=None)  # so that imports are not counted
    tracemalloc.start()
    read_image(record, spec=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.35 * (decoded + 4 * flat.size) + 500_000


def test_silence_ends_with_the_last_reader() -> None:
    before = list(warnings.filters)

    def reading(number: int) -> None:
        with quiet():
            time.sleep(0.002 * (number % 3))
            warnings.warn("of no account", UserWarning, stacklevel=1)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(reading, range(64)))
    assert list(warnings.filters) == before
