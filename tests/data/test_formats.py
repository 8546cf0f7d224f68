"""Pixels of every format against the formula that made them, and against other readers."""

import importlib.util
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.preprocess import without_outliers
from deepssim_jax.data.readers import Limits, read_image, read_volume
from deepssim_jax.data.records import ArrayLayout
from deepssim_jax.data.volume import SliceSpec, Unreadable
from deepssim_jax.data.whole_volume import VolumeSettings
from tests.data.made import LPS, files, picture, volume

MADE = files()
AXIAL = SliceSpec.parse("axial:2")


def images(folder: Path, **options) -> list[np.ndarray]:
    """Every image of a folder, in its order."""
    records = read_manifest(folder, role=Role.REAL, **options).records
    return [read_image(record, spec=AXIAL) for record in records]


def only(folder: Path, **options) -> np.ndarray:
    (image,) = images(folder, **options)
    return image


@pytest.mark.parametrize("name", list(MADE))
def test_pixels_are_those_of_the_formula(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(MADE[name])
    first = images(tmp_path)[0]
    volumes = (".nii", ".nii.gz", ".mgz", ".nrrd", ".mha")
    wanted = volume()[2] if name.endswith(volumes) else picture()
    if name == "deep.png":
        wanted = wanted.astype(np.float32) * 257
    tolerance = {"a.jpg": 6.0, "a.jp2": 6.0}.get(name, 0.01)
    assert first.dtype == np.float32
    assert np.abs(first - wanted).mean() <= tolerance


@pytest.mark.parametrize("name", ["anim.png", "anim.gif"])
def test_frames_of_an_animation_differ(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(MADE[name])
    for number, image in enumerate(images(tmp_path)):
        np.testing.assert_allclose(image, np.roll(picture(), number, 0), atol=0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_orientation_is_undone(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    if suffix == ".tif":
        tifffile.imwrite(path, picture(), extratags=[(274, "H", 1, orientation, True)])
    else:
        Image.fromarray(picture()).save(path, exif=exif)
    # Pillow turns PNG and JPEG; of a TIFF file it mixes up rows and columns.
    other = tmp_path / "a.png.other"
    Image.fromarray(picture()).save(other, "PNG", exif=exif)
    with Image.open(path if suffix == ".jpg" else other) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image), np.float32)
    other.unlink()
    np.testing.assert_array_equal(only(tmp_path), wanted)


W = picture().astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("array", "options", "wanted"),
    [
        (W, {}, W),
        (65535 - W, {"photometric": "miniswhite"}, W),
        (W.astype(int) - 32768, {"dtype": np.int16}, W.astype(float) - 32768),
        (picture().astype(int) - 128, {"dtype": np.int8}, picture().astype(float) - 128),
        (picture().astype(np.uint32) * 16843009, {}, picture() * 16843009.0),
        (picture().astype(np.uint64), {}, picture()),
        (picture() / 256, {"dtype": np.float16}, picture() / 256),
        (picture() / 255.0, {}, picture() / 255.0),
        (picture() * np.exp(0.5j), {"dtype": np.complex64}, picture()),
        (np.stack([W] * 3), {"photometric": "rgb", "planarconfig": "separate"}, W),
        (np.stack([W // 16] * 3, -1), {"photometric": "rgb"}, W // 16),
        (W, {"compression": "deflate", "predictor": True, "tile": (16, 16)}, W),
        (W, {"compression": "lzw", "byteorder": ">"}, W),
        (
            picture(),
            {"photometric": "palette", "colormap": np.stack([np.arange(256)[::-1] * 257] * 3)},
            (255 - picture()) * 257.0,
        ),
        (picture() > 99, {"photometric": "minisblack", "compression": "packbits"}, picture() > 99),
        (picture() > 99, {"photometric": "miniswhite"}, picture() <= 99),
    ],
)
def test_tiff_of_every_kind(
    tmp_path: Path, array: np.ndarray, options: dict, wanted: np.ndarray
) -> None:
    array = array.astype(options.pop("dtype", array.dtype))
    if "colormap" in options:
        options["colormap"] = options["colormap"].astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    np.testing.assert_allclose(only(tmp_path), wanted, rtol=1e-3, atol=0.01)


def test_thumbnail_pages_are_no_images_of_their_own(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(picture())
        writer.write(picture()[::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(only(tmp_path), picture())


def test_a_stack_with_one_page_described(tmp_path: Path) -> None:
    stack = np.stack([picture() + np.uint8(i) for i in range(4)])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", truncate=True)
    for image, wanted in zip(images(tmp_path), stack, strict=True):
        np.testing.assert_array_equal(image, wanted)


def test_png_of_sixteen_bits_a_colour_keeps_them(tmp_path: Path) -> None:
    deep = picture().astype(np.uint16) * 16
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.stack([deep] * 3, -1)))
    np.testing.assert_allclose(only(tmp_path), deep, rtol=1e-5, atol=0.01)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_nifti_of_two_to_five_axes(tmp_path: Path, kind: type) -> None:
    xyz = volume().transpose(2, 1, 0).astype(np.int16)
    for name, array in {
        "2d": xyz[:, :, 2], "4d": np.stack([xyz, xyz + 1000], -1),
        "5d": np.stack([xyz, xyz + 1000], -1)[:, :, :, None, :],
    }.items():  # fmt: skip
        (tmp_path / name).mkdir()
        nibabel.save(kind(array, LPS), tmp_path / name / "a.nii.gz")
    np.testing.assert_array_equal(only(tmp_path / "2d"), volume()[2])
    for name in ("4d", "5d"):
        first, second = images(tmp_path / name)
        np.testing.assert_array_equal(first, volume()[2])
        np.testing.assert_array_equal(second, volume()[2] + 1000.0)


def test_complex_and_coloured_nifti(tmp_path: Path) -> None:
    turning = picture().T[:, :, None] * np.exp(1j * np.arange(24))[None, :, None]
    rgb = np.zeros((18, 24, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for channel in "RGB":
        rgb[channel] = picture().T[:, :, None]
    nibabel.save(nibabel.Nifti1Image(turning.astype(np.complex64), LPS), tmp_path / "c.nii")
    nibabel.save(nibabel.Nifti1Image(rgb, LPS), tmp_path / "rgb.nii")
    for image in images(tmp_path):
        np.testing.assert_allclose(image, picture(), atol=1e-3)


def test_the_layout_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", volume().transpose(2, 1, 0))
    (tmp_path / "z").mkdir()
    np.save(tmp_path / "z" / "a.npy", volume())
    np.testing.assert_array_equal(only(tmp_path / "z", arrays=ArrayLayout.ZYX), volume()[2])
    (tmp_path / "z" / "a.npy").unlink()
    np.testing.assert_array_equal(only(tmp_path, arrays=ArrayLayout.XYZ), volume()[2])
    planes = images(tmp_path)
    assert len(planes) == 6
    np.testing.assert_array_equal(planes[1], volume()[:, :, 1].T)


@pytest.mark.parametrize("order", ["C", "F"])
def test_four_slices_are_no_colours_where_volumes_are_named(tmp_path: Path, order: str) -> None:
    xyz = np.asarray(np.arange(16 * 12 * 4).reshape(16, 12, 4), order=order)
    np.save(tmp_path / "a.npy", xyz)
    record = read_manifest(tmp_path, role=Role.REAL, arrays=ArrayLayout.XYZ).records[0]
    np.testing.assert_array_equal(read_image(record, spec=None), xyz.T)


@pytest.mark.parametrize("order", ["C", "F"])
def test_images_of_an_archive_in_any_order(tmp_path: Path, order: str) -> None:
    stack = np.asarray(np.arange(20 * 8 * 7).reshape(20, 8, 7), order=order)
    np.savez_compressed(tmp_path / "a.npz", mask=picture() > 99, images=stack, name=np.array("x"))
    records = read_manifest(tmp_path, role=Role.REAL).records
    assert len(records) == 20
    for number in (20, 1, 7, 8, 3):
        image = read_image(records[number - 1], spec=None)
        np.testing.assert_array_equal(image, stack[number - 1])


def test_an_index_beyond_the_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(192.0).reshape(3, 8, 8))
    record = read_manifest(tmp_path, role=Role.REAL).records[2]
    np.save(tmp_path / "a.npy", np.arange(128.0).reshape(2, 8, 8))
    with pytest.raises(Unreadable, match="holds 2 images, and number 3"):
        read_image(record, spec=None)


@pytest.mark.parametrize("name", ["a.nrrd", "gzip.nrrd", "a.mha", "turned.mha", "b.mhd"])
def test_nrrd_and_metaimage_as_simpleitk_reads_them(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec("SimpleITK") is None:
        pytest.skip("SimpleITK is not installed")
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(volume())
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((5.0, -3.0, 2.0))
    # An oblique coronal scan: columns to the left, rows downwards.
    turn = np.array([[1, 0, 0], [0, 0.28, 0.96], [0, -0.96, 0.28]])
    image.SetDirection((turn if name != "a.mha" else np.eye(3)).ravel())
    sitk.WriteImage(image, str(tmp_path / name), useCompression=name == "gzip.nrrd")
    found, spacing = read_volume(read_manifest(tmp_path, role=Role.REAL).records[0])
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    nibabel.save(
        nibabel.Nifti1Image(volume().transpose(2, 1, 0).astype(np.int16), LPS @ affine),
        tmp_path / "same.nii",
    )
    (record,) = [
        r for r in read_manifest(tmp_path, role=Role.REAL).records if r.image_id == "same.nii"
    ]
    wanted, wanted_spacing = read_volume(record)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(spacing, wanted_spacing, rtol=1e-5)


@pytest.mark.parametrize(
    "space", ["RAS", "right anterior superior", "Left-Anterior-Superior", "scanner-xyz", "LPS"]
)
def test_the_space_of_nrrd_is_simpleitks(tmp_path: Path, space: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    depth, height, width = volume().shape
    header = (
        f"NRRD0004\ntype: uint8\ndimension: 3\nspace: {space}\nsizes: {width} {height} {depth}\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nendian: little\n"
        "encoding: raw\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + volume().astype(np.uint8).tobytes())
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nrrd")), str(tmp_path / "b.nii"))
    ours, theirs = images(tmp_path)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("space", ["foo", "RAST", "right_anterior_superior"])
def test_a_space_of_nrrd_that_nobody_knows_is_refused(tmp_path: Path, space: str) -> None:
    header = f"NRRD0004\ntype: uint8\ndimension: 3\nspace: {space}\nsizes: 2 2 2\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(header.encode() + bytes(8))
    with pytest.raises(Unreadable, match="its space"):
        images(tmp_path)


@pytest.mark.parametrize("filling", [b"\n", b" ", b"a", b"a \n", b"a = \n", b"\r"])
def test_a_metaimage_of_nothing_is_refused_at_once(tmp_path: Path, filling: bytes) -> None:
    """Half a minute each, when every blank line was tried from every other one."""
    (tmp_path / "c.mhd").write_bytes(filling * (65_000 // len(filling)))
    with pytest.raises(Unreadable, match="no MetaImage header"):
        images(tmp_path)


def test_a_bmp_is_known_by_its_content(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.bmp")
    (tmp_path / "a.bmp").rename(tmp_path / "a")
    (tmp_path / "BMW").write_bytes(b"BM is no picture" * 9)
    np.testing.assert_array_equal(only(tmp_path), picture())


def test_headers_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.raw").write_bytes(picture().tobytes())
    (tmp_path / "in").mkdir()
    header = "ObjectType = Image\nNDims = 2\nDimSize = 18 24\nElementType = MET_UCHAR\n"
    for name in ("../secret.raw", "/etc/passwd", "LIST", "absent.raw"):
        (tmp_path / "in" / "a.mhd").write_text(f"{header}ElementDataFile = {name}\n")
        with pytest.raises(Unreadable, match="data"):
            images(tmp_path / "in")


def test_headers_that_declare_much_are_refused(tmp_path: Path) -> None:
    content = MADE["a.npy"].replace(b"(24, 18)", b"(24, 9**9)")
    (tmp_path / "a.npy").write_bytes(content)
    (tmp_path / "a.mha").write_bytes(MADE["a.mha"].replace(b"6 8 5", b"6000 8000 5"))
    for record in read_manifest(tmp_path, role=Role.REAL).records:
        with pytest.raises(Unreadable):
            read_image(record, spec=AXIAL, limits=Limits())


def test_single_values_far_from_the_rest_are_cut() -> None:
    image = np.random.default_rng(0).normal(100, 10, (64, 64)).astype(np.float32)
    hot = image.copy()
    hot[3, 4], hot[5, 6] = 1e6, -1e6
    cut = without_outliers(hot)
    elsewhere = hot == image
    low, high = np.quantile(hot, [0.001, 0.999], method="nearest")
    np.testing.assert_array_equal(cut[elsewhere], image[elsewhere].clip(low, high))
    assert image.min() - 1 <= cut.min() and cut.max() <= image.max() + 1
    assert without_outliers(image) is image
    one = np.zeros((64, 64), np.float32)
    one[1, 1] = 1
    assert without_outliers(one) is one


def test_a_hot_voxel_leaves_the_volume(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(100, 10, (16, 16, 16)).astype(np.float32)
    values[2, 3, 4] = 1e6
    np.save(tmp_path / "a.npy", values)
    record = read_manifest(tmp_path, role=Role.REAL, arrays=ArrayLayout.ZYX).records[0]
    loaded = VolumeSettings((16, 16, 16)).load(record)["pixels"]
    assert loaded.std() > 5000  # of 65535; the hot voxel alone would leave less than 10
