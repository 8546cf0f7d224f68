"""Every file of a folder is accounted for once: used, refused, or no image."""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from scipy import ndimage

from deepssim_jax.data.manifest import InputError, Role, files_of, read_manifest
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.records import ArrayLayout, FileCounts, Links, Manifest, Unused
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.workspace import MARKER
from tests.data.made import LPS, dicom_bytes, files, picture, volume, write_series


def ids(manifest: Manifest) -> list[str]:
    return [record.image_id for record in manifest.records]


def listed(root: Path, **options) -> Manifest:
    """The manifest of a folder, after its counts were held against the files there."""
    found = read_manifest(root, role=Role.REAL, **options)
    found_there = [p for p in root.rglob("*") if p.is_symlink() or not p.is_dir()]
    there = {p.relative_to(root).as_posix() for p in found_there}
    used = {p.relative_to(root).as_posix() for r in found.records for p in files_of(r)}
    refused = {r.image_id.split("#")[0] for r in found.rejected} & there
    others = {u.name for u in found.unused if u.files == 1 and not u.name.endswith("/")}
    folders = tuple(u.name for u in found.unused if u.name.endswith("/"))
    passed_over = {name for name in there if name.startswith(folders)} if folders else set()
    assert used | refused | others | passed_over == there
    assert len(used) + len(refused) + len(others) + len(passed_over) == len(there)
    counts = FileCounts(len(there), len(used), len(refused), len(others) + len(passed_over))
    assert found.counts == counts
    return found


def test_every_format_is_recognised_and_every_image_of_a_file_counts(tmp_path: Path) -> None:
    made = files()
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.txt").write_text("none")
    several = {"anim.png": 3, "anim.gif": 3, "pages.tif": 3, "stack.npz": 3, "frames.dcm": 3}
    wanted = [
        f"{name}#{k + 1}" if name in several else name
        for name in made
        for k in range(several.get(name, 1))
    ]
    found = listed(tmp_path)
    assert sorted(ids(found)) == sorted(wanted)
    assert {u.name: u.files for u in found.unused} == {"notes.txt": 1, "stack.npz:labels": 0}


@pytest.mark.parametrize(
    ("shape", "layout", "images"),
    [
        ((9, 8, 7), ArrayLayout.IMAGES, 9),
        ((9, 8, 7), ArrayLayout.ZYX, 1),
        ((9, 8, 3), ArrayLayout.IMAGES, 1),
        ((6, 9, 8, 3), ArrayLayout.IMAGES, 6),
        ((6, 1, 9, 8), ArrayLayout.IMAGES, 6),
        ((1, 1, 9, 8), ArrayLayout.IMAGES, 1),
        ((1, 9, 8, 7), ArrayLayout.XYZ, 1),
        ((2, 9, 8, 7), ArrayLayout.XYZ, 2),
        ((2, 9, 8, 7), ArrayLayout.IMAGES, 0),
        ((9,), ArrayLayout.IMAGES, 0),
        ((16, 16, 4), ArrayLayout.XYZ, 1),
        ((5, 16, 16, 3), ArrayLayout.ZYX, 5),
    ],
)
def test_the_rule_of_numpy_arrays(
    tmp_path: Path, shape: tuple[int, ...], layout: ArrayLayout, images: int
) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    found = listed(tmp_path, arrays=layout)
    # What cannot be told is one record, and is refused when it is read.
    assert len(found.records) == max(images, 1)
    assert bool(found.notes) == (len(found.records) > 1 or layout is not ArrayLayout.IMAGES)
    flags = ["zyx", "xyz"] if layout is ArrayLayout.IMAGES else [layout]
    assert all(f"--arrays={flag}" in note for note in found.notes for flag in flags)


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"train_labels": (20, 14)}, "labels, by its name and values"),
        (
            {"y_train": (20, 14), "mask": (8, 7), "segmentation": (20, 8, 7)},
            "labels, by its name and values",
        ),
        ({"findings": (20, 14)}, "a table of one row an image"),
    ],
)
def test_labels_beside_images_are_no_images(tmp_path: Path, others: dict, reason: str) -> None:
    arrays = {name: np.ones(shape, np.uint8) for name, shape in others.items()}
    stack = np.arange(20 * 8 * 7).reshape(20, 8, 7)
    np.savez(tmp_path / "a.npz", **arrays, train_images=stack, yaw_x=np.eye(9))
    found = listed(tmp_path)
    assert len(found.records) == 21
    assert {u.name: u.reason for u in found.unused} == {
        f"a.npz:{name}": f"no image: {reason}" for name in others
    }
    np.testing.assert_array_equal(read_image(found.records[19], spec=None), stack[19])
    np.testing.assert_array_equal(read_image(found.records[20], spec=None), np.eye(9))


def test_images_called_as_labels_are_images(tmp_path: Path, monkeypatch) -> None:
    """A map of labels has few whole values; that is asked once for all images of a file."""
    stack = np.arange(6 * 8 * 7).reshape(6, 8, 7)
    looked = []
    monkeypatch.setattr(np, "unique", lambda x, of=np.unique: looked.append(1) or of(x))
    arrays = {"target": stack + 1, "mask": stack % 5, "y": stack[0] / 7}
    np.savez_compressed(tmp_path / "a.npz", source=stack, **arrays)
    found = listed(tmp_path)
    assert {u.name for u in found.unused} == {"a.npz:mask"}
    wanted = [*stack, *(stack + 1), stack[0] / 7]
    for record, values in zip(found.records, wanted, strict=True):
        np.testing.assert_allclose(read_image(record, spec=None), values, rtol=1e-6)
    assert len(looked) == 3


def test_an_archive_of_nothing_but_labels_is_taken_as_it_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", masks=np.ones((3, 8, 7)), label=np.ones((8, 7)))
    assert len(listed(tmp_path).records) == 4


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def _far_apng() -> bytes:
    content = files()["anim.png"]
    return content[:33] + _chunk(b"tEXt", b"Comment\0acTL IDAT " + b"x" * 5000) + content[33:]


def _far_album() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(np.roll(picture(64, 48), i, 0)) for i in range(2)]
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:])
    content = buffer.getvalue()
    comment = b"x\xff\xda" * 2000
    return (
        content[:2] + b"\xff\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + content[2:]
    )


def _far_webp() -> bytes:
    buffer, profile = io.BytesIO(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    frames = [Image.fromarray(np.roll(picture(), i, 0)).convert("RGB") for i in range(3)]
    icc = profile.tobytes() + b"\0" * 5000
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], icc_profile=icc)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "make", "images"),
    [("a.png", _far_apng, 3), ("a.jpg", _far_album, 2), ("a.webp", _far_webp, 3)],
)
def test_an_animation_is_counted_wherever_its_mark_stands(
    tmp_path: Path, name: str, make: Callable[[], bytes], images: int
) -> None:
    content = make()
    assert not any(mark in content[:4096] for mark in (b"ANMF", b"MPF\0")) or name == "a.png"
    (tmp_path / name).write_bytes(content)
    found = listed(tmp_path)
    assert ids(found) == [f"{name}#{k + 1}" for k in range(images)]
    assert all(read_image(record, spec=None).ndim == 2 for record in found.records)


def test_pages_below_a_page_are_images_unless_they_say_otherwise(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        writer.write(picture(), subifds=2)
        writer.write(picture()[::2, ::2], subfiletype=1)
        writer.write(picture()[::4, ::4], subfiletype=1)
    with tifffile.TiffWriter(
        tmp_path / "raw.tif"
    ) as writer:  # as DNG: a thumbnail above the picture
        writer.write(picture()[::2, ::2], subfiletype=1, subifds=1)
        writer.write(picture(), subfiletype=0)
    with tifffile.TiffWriter(tmp_path / "several.tif") as writer:
        writer.write(picture(), subifds=1)
        writer.write(picture() // 2)
        writer.write(picture() // 3)
    found = listed(tmp_path)
    several = [f"several.tif#{k}" for k in (1, 2, 3)]
    assert ids(found) == ["pyramid.tif", "raw.tif", *several]
    for record, divisor in zip(found.records, (1, 1, 1, 2, 3), strict=True):
        np.testing.assert_array_equal(read_image(record, spec=None), picture() // divisor)


def test_pages_that_only_call_themselves_thumbnails_or_masks_are_images(tmp_path: Path) -> None:
    """A thumbnail is smaller than a page of its proportions, a mask has one bit a pixel."""
    with tifffile.TiffWriter(tmp_path / "deck.tif") as writer:
        writer.write(picture())
        writer.write(picture() // 2, subfiletype=1)  # as large as the page
        writer.write(picture()[::2], subfiletype=1)  # of other proportions
        writer.write(picture() // 3, subfiletype=2)
        writer.write(picture()[::2, ::2], subfiletype=1)
        writer.write(picture() > 9, subfiletype=4, photometric="miniswhite")
    # The page that says 2 becomes a mask that is grey, which no writer makes.
    content, tag = (tmp_path / "deck.tif").read_bytes(), b"\xfe\x00\x04\x00\x01\x00\x00\x00"
    assert content.count(tag + b"\x02") == 1
    (tmp_path / "deck.tif").write_bytes(content.replace(tag + b"\x02", tag + b"\x04"))
    with tifffile.TiffWriter(tmp_path / "only.tif") as writer:
        writer.write(picture(), subfiletype=1)
        writer.write(picture() // 2, subfiletype=1)
    found = listed(tmp_path)
    assert ids(found) == [*(f"deck.tif#{k}" for k in range(1, 5)), "only.tif#1", "only.tif#2"]
    unused = {x.name: x.reason for x in found.unused}
    assert unused == {
        "deck.tif:page 5": "no image: a smaller version of another page",
        "deck.tif:page 6": "no image: a mask",
    }
    wanted = [picture(), picture() // 2, picture()[::2], picture() // 3, picture(), picture() // 2]
    for record, pixels in zip(found.records, wanted, strict=True):
        np.testing.assert_array_equal(read_image(record, spec=None), pixels)


def test_a_page_that_shows_something_else_is_no_smaller_version(tmp_path: Path) -> None:
    small = ndimage.zoom(picture().astype(float), 0.5, order=1).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(picture())
        writer.write(255 - small[::-1], subfiletype=1)  # of another patient
        writer.write(picture().reshape(12, 2, 9, 2).mean((1, 3)).astype(np.uint8), subfiletype=1)
        writer.write(np.full((12, 9), 7, np.uint8), subfiletype=1)
    found = listed(tmp_path)
    assert ids(found) == ["a.tif#1", "a.tif#2", "a.tif#3"]
    assert [x.name for x in found.unused] == ["a.tif:page 3"]
    np.testing.assert_array_equal(read_image(found.records[1], spec=None), 255 - small[::-1])
    with pytest.raises(Unreadable, match="constant"):
        read_image(found.records[2], spec=None)


def test_file_2_comes_before_file_10(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((12, 8, 8)))
    assert ids(listed(tmp_path)) == [f"a.npy#{k}" for k in range(1, 13)]


def test_four_axes_and_pairs_of_files(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 3)), LPS), tmp_path / "fmri.nii.gz")
    nibabel.save(nibabel.Nifti1Pair(np.zeros((4, 5, 6), np.int16), LPS), tmp_path / "pair.img")
    (tmp_path / "alone.img").write_bytes(b"\0" * 100)
    header = "ObjectType = Image\nNDims = 2\nDimSize = 18 24\nElementType = MET_UCHAR\n"
    (tmp_path / "two.mhd").write_text(f"{header}ElementDataFile = two.raw\n")
    (tmp_path / "two.raw").write_bytes(picture().tobytes())
    found = listed(tmp_path)
    assert ids(found) == ["fmri.nii.gz#1", "fmri.nii.gz#2", "fmri.nii.gz#3", "pair.img", "two.mhd"]
    assert [r.image_id for r in found.rejected] == ["alone.img"]
    assert not found.unused


def test_what_is_passed_over_is_named(tmp_path: Path) -> None:
    for name in (
        "a.png", ".hidden.png", ".git/annex/x.png", ".git/HEAD", "__MACOSX/a.png", "@eaDir/a.png/S.jpg",
        f"earlier/{MARKER}", "earlier/work/cache/chunk-0.npy",
        "earlier/0001.png",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(files()["a.png"])
    (tmp_path / ".git" / "link").symlink_to(tmp_path / "earlier")
    found = listed(tmp_path)
    assert ids(found) == ["a.png"]
    reasons = {u.name: (u.files, u.reason) for u in found.unused}
    files_there, reason = reasons["earlier/"]
    assert (files_there, reason.partition("; ")[0]) == (
        3,
        "output of an earlier run, of 3 files, 1 of an image format",
    )
    assert "give this folder itself to include them" in reason
    assert found.said == (
        "9 files were passed over: a disk station's thumbnails (1), a hidden folder (3), archiver's "
        "by-products (1), hidden (1), output of an earlier run (3); 1 of them is of an image format in "
        "output of an earlier run: to include such a folder, give it itself",
    )
    assert reasons[".git/"] == (3, "a hidden folder, of 3 files")
    assert reasons["@eaDir/"] == (1, "a disk station's thumbnails, of 1 file")
    assert found.counts.found == 1 + sum(u.files for u in found.unused) == 10
    # What the user names is read, even if it is ours: `generate` writes images. Kept work is none.
    ours = read_manifest(tmp_path / "earlier", role=Role.REAL)
    assert ids(ours) == ["0001.png"]
    assert Unused("work/", "output of an earlier run, of 1 file") in ours.unused
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match="no image among 9 files.*give it itself"):
        read_manifest(tmp_path, role=Role.REAL)


def test_a_released_folder_called_work_holds_images(tmp_path: Path) -> None:
    """Kept work is what has its list, whatever else is called so."""
    for name in (MARKER, "a.png", "work/b.png", "work/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(files()["a.png"])
    assert ids(listed(tmp_path)) == ["a.png", "work/b.png", "work/deep/c.png"]
    (tmp_path / "work" / "outputs.jsonl").touch()
    assert ids(listed(tmp_path)) == ["a.png"]


def test_links_between_earlier_outputs_end(tmp_path: Path) -> None:
    for name in ("a.png", f"one/{MARKER}", "one/1.png", f"one/two/{MARKER}", "one/two/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(files()["a.png"])
    (tmp_path / "one" / "two" / "up").symlink_to(tmp_path)
    found = listed(tmp_path, links=Links.FOLLOW)
    assert ids(found) == ["a.png"]
    assert [(u.name, u.files, u.images) for u in found.unused] == [("one/", 5, 1)]


def test_special_files_and_names(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(files()["a.png"])
    os.mkfifo(tmp_path / "pipe.png")
    with open(os.fsencode(tmp_path) + b"/gr\xf6\xdfe.png", "wb") as file:
        file.write(files()["a.png"])
    found = read_manifest(tmp_path, role=Role.REAL, subject_regex="^([^.]+)")
    assert ids(found) == ["a.png", r"gr\xf6\xdfe.png"]
    assert [r.subject_id for r in found.records] == ["a", r"gr\xf6\xdfe"]
    assert json.dumps(ids(found), ensure_ascii=False).encode()
    assert [(r.image_id, "regular" in r.reason) for r in found.rejected] == [("pipe.png", True)]
    assert found.counts == FileCounts(found=3, used=2, refused=1, not_images=0)


def test_links_are_followed_on_request(tmp_path: Path) -> None:
    store, root = tmp_path / "annex", tmp_path / "root"
    (store / "deep").mkdir(parents=True)
    root.mkdir()
    (store / "deep" / "1.png").write_bytes(files()["a.png"])
    (root / "1.png").symlink_to(store / "deep" / "1.png")
    (root / "folder").symlink_to(store)
    (root / "2.png").write_bytes(files()["a.png"])
    inside = read_manifest(root, role=Role.REAL)
    assert ids(inside) == ["2.png"]
    assert all("--follow_links" in r.reason for r in inside.rejected)
    followed = read_manifest(root, role=Role.REAL, links=Links.FOLLOW)
    assert ids(followed) == ["1.png", "2.png", "folder/deep/1.png"]
    (store / "loop").symlink_to(root)
    assert len(read_manifest(root, role=Role.REAL, links=Links.FOLLOW).records) == 3


def test_a_closed_folder_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(files()["a.png"])
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(folder: str):
        if folder.endswith("closed"):  # the tests may run as root, for whom nothing is closed
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    found = read_manifest(tmp_path, role=Role.REAL)
    assert [(r.image_id, r.reason) for r in found.rejected] == [
        ("closed", "cannot be opened: Permission denied")
    ]


def test_dicom_is_known_by_its_content(tmp_path: Path) -> None:
    write_series(tmp_path / "s", volume(), name="IM{:04d}")
    (tmp_path / "s" / "IM0001").rename(tmp_path / "s" / "IM0001.dcm")
    (tmp_path / "report").write_bytes(dicom_bytes(picture()).replace(b"DICM", b"DICX"))
    found = listed(tmp_path)
    assert [len(r.parts) for r in found.records] == [5]
    assert [u.name for u in found.unused] == ["report"]
    assert "5 DICOM files are taken as 1 volume" in found.notes[0]


def test_a_stray_file_leaves_the_reference_layout_as_it_is(tmp_path: Path) -> None:
    for name in ("0/training.png", "0/gen-0.png", "1/training.png", "0/mask.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(files()["a.png"])
    real = listed(tmp_path)
    assert (real.kind, ids(real)) == ("reference", ["0___training", "1___training"])
    assert [r.image_id for r in real.rejected] == ["0/mask.png"]
    synthetic = read_manifest(tmp_path, role=Role.SYNTHETIC)
    assert ids(synthetic) == ["0___gen-0"]
    assert synthetic.counts == FileCounts(found=4, used=1, refused=1, not_images=2)


def test_a_folder_without_images_says_how_many_files_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="no image among 1 files"):
        read_manifest(tmp_path, role=Role.REAL)


def test_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.png").write_bytes(files()["a.png"])
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    found = read_manifest(".", role=Role.REAL)
    assert ids(found) == ["deep/a.png"]
    assert [u.name for u in found.unused] == ["a.txt"]
    assert found.counts == FileCounts(found=2, used=1, refused=0, not_images=1)


@pytest.mark.parametrize("how", [{"truncate": True}, {"imagej": True, "truncate": True}])
def test_a_tiff_that_describes_only_the_first_of_its_images(tmp_path: Path, how: dict) -> None:
    stack = np.stack([picture() + np.uint8(k) for k in range(5)])
    tifffile.imwrite(tmp_path / "a.tif", stack, **how)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.pages) == 1
    found = listed(tmp_path)
    assert ids(found) == [f"a.tif#{k}" for k in range(1, 6)]
    for image, record in zip(stack, found.records, strict=True):
        np.testing.assert_array_equal(read_image(record, spec=None), image)


def test_a_file_named_like_an_image_of_another_is_refused(tmp_path: Path) -> None:
    for name in ("gif_anim.gif", "gif_anim.gif#2"):
        (tmp_path / name).write_bytes(files()["anim.gif" if name.endswith("gif") else "a.png"])
    found = read_manifest(tmp_path, role=Role.REAL)
    assert ids(found) == [f"gif_anim.gif#{k}" for k in (1, 2, 3)]
    assert [r.image_id for r in found.rejected] == ["gif_anim.gif#2"]
    assert found.counts == FileCounts(found=2, used=1, refused=1)
