"""Decoding: once, in order, restartable, whatever is missing."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepssim_jax.data import picture_reader, store
from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.preprocess import fit_to_size, quantize
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.records import Record
from deepssim_jax.data.volume import Unavailable
from deepssim_jax.workspace import Workspace
from tests.data.made import dicom_bytes, picture

SETTINGS = store.InputSettings(size=(32, 32))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(store, "CHUNK", 4)
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    root.mkdir()
    for number in range(10):
        image = rng.integers(0, 255, (40, 50), np.uint8)
        Image.fromarray(image).save(root / f"{number}.png")
    (root / "3.png").write_bytes(b"broken")
    return root


def fill(root: Path, directory: Path) -> store.ImageStore:
    manifest = read_manifest(root, role=Role.REAL)
    with Workspace.open(directory, command="test") as workspace:
        reading = store.Reading.of(manifest, workspace, settings=SETTINGS)
        assert sum(len(chunk.images) for chunk in reading.chunks()) == 9
        return reading.images()


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in files}


def test_images_come_back_in_order(folder: Path, tmp_path: Path) -> None:
    found = fill(folder, tmp_path / "store")
    assert found.image_ids == tuple(f"{i}.png" for i in range(10) if i != 3)
    assert [r.image_id for r in found.rejected] == ["3.png"]
    images = found.take(np.array([8, 0, 4]))
    direct = [
        quantize(
            fit_to_size(np.asarray(Image.open(folder / f"{i}.png"), np.float32), size=(32, 32))
        )
        for i in (9, 0, 5)
    ]
    np.testing.assert_array_equal(images, direct)


def test_a_stopped_store_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    fill(folder, tmp_path / "whole")
    manifest = read_manifest(folder, role=Role.REAL)
    with Workspace.open(tmp_path / "stopped", command="test") as workspace:
        reading = store.Reading.of(manifest, workspace, settings=SETTINGS)
        chunks = reading.chunks()
        next(chunks)
        chunks.close()
        with pytest.raises(KeyError):
            reading.images()
    fill(folder, tmp_path / "stopped")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_only_new_files_are_decoded(folder: Path, tmp_path: Path, monkeypatch) -> None:
    fill(folder, tmp_path / "store")
    seen = []
    read = store.read_image
    monkeypatch.setattr(
        store, "read_image", lambda r, **how: seen.append(r.image_id) or read(r, **how)
    )
    (folder / "5.png").rename(folder / "renamed.png")
    Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(folder / "2.png")
    found = fill(folder, tmp_path / "store")
    assert seen == ["2.png"] and "renamed.png" in found.image_ids


def test_a_file_of_equal_size_and_time_is_not_taken_for_the_old_one(
    folder: Path, tmp_path: Path
) -> None:
    path = folder / "1.npy"
    (folder / "1.png").unlink()
    np.save(path, np.arange(1600, dtype=np.float32).reshape(40, 40))
    before, status = fill(folder, tmp_path / "store"), path.stat()
    np.save(path, np.arange(1600, dtype=np.float32)[::-1].reshape(40, 40))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    after = fill(folder, tmp_path / "store")
    row = after.image_ids.index("1.npy")
    assert before.fingerprint != after.fingerprint
    assert not np.array_equal(before.take(np.array([row])), after.take(np.array([row])))


def test_a_changed_file_replaces_the_store(folder: Path, tmp_path: Path) -> None:
    before = fill(folder, tmp_path / "store")
    Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(folder / "0.png")
    after = fill(folder, tmp_path / "store")
    assert before.fingerprint != after.fingerprint
    assert not np.array_equal(before.take(np.array([0])), after.take(np.array([0])))


@pytest.mark.parametrize("shape", [(64, 64), (64, 32), (20, 50), (31, 7)])
def test_the_aspect_is_kept(shape: tuple[int, int]) -> None:
    image = np.zeros(shape, np.float32)
    image[2:-2, 2:-2] = 1.0  # a frame: its border is the fill
    fitted = fit_to_size(image, size=(32, 32))
    rows, columns = np.flatnonzero(fitted.max(1) > 0.5), np.flatnonzero(fitted.max(0) > 0.5)
    ratio = (len(rows) / len(columns)) / ((shape[0] - 4) / (shape[1] - 4))
    assert fitted.shape == (32, 32) and 0.6 < ratio < 1.7
    assert abs((rows[0] + rows[-1]) - 31) <= 1 and abs((columns[0] + columns[-1]) - 31) <= 1


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.EMFILE, "Too many open files"), ImportError(name="pydicom")],
)
def test_what_the_machine_lacked_is_read_by_the_next_run(
    folder: Path, tmp_path: Path, monkeypatch, error: Exception
) -> None:
    """Of the reader, and where the file is opened; a damaged file is not looked at again."""
    read, looked = picture_reader.read, []

    def failing(path: Path, *how):
        looked.append(path.name)
        if path.name == "5.png":
            raise error
        return read(path, *how)

    monkeypatch.setattr(picture_reader, "read", failing)
    with Workspace.open(tmp_path / "store", command="test") as workspace:
        manifest = read_manifest(folder, role=Role.REAL)
        reading = store.Reading.of(manifest, workspace, settings=SETTINGS)
        assert sum(len(chunk.images) for chunk in reading.chunks()) == 8
        assert [r.image_id for r in reading.images().rejected] == ["3.png", "5.png"]
    monkeypatch.setattr(
        picture_reader, "read", lambda path, *how: looked.append(path.name) or read(path, *how)
    )
    looked.clear()
    assert [r.image_id for r in fill(folder, tmp_path / "store").rejected] == ["3.png"]
    assert looked == ["5.png"]


def test_a_file_that_changes_while_it_is_read_is_kept_under_no_hash(
    folder: Path, tmp_path: Path, monkeypatch
) -> None:
    read = picture_reader.read
    other = (folder / "0.png").read_bytes()

    def changing(path: Path, *how):
        if path.name == "5.png":
            path.write_bytes(other)
        return read(path, *how)

    with (
        monkeypatch.context() as patch,
        Workspace.open(tmp_path / "s", command="test") as workspace,
    ):
        patch.setattr(picture_reader, "read", changing)
        manifest = read_manifest(folder, role=Role.REAL)
        reading = store.Reading.of(manifest, workspace, settings=SETTINGS)
        assert sum(len(chunk.images) for chunk in reading.chunks()) == 8
        reasons = {r.image_id: r.reason for r in reading.images().rejected}
    assert reasons["5.png"] == "was changed while it was read; run the same command again"
    again = fill(folder, tmp_path / "s")
    np.testing.assert_array_equal(*again.take(np.array([0, 4])))


def test_a_missing_extra_is_no_reason_to_be_kept(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom_bytes(picture()))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(Unavailable, match="pip install"):
        read_image(Record("a.dcm", path), spec=None)
