"""Volumes on one grid: proportions, absolute values, labels, and what is refused."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from deepssim_jax.data.embedding_file import read_embeddings
from deepssim_jax.data.manifest import Record
from deepssim_jax.data.nifti_reader import affine_of
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.data.whole_volume import Content, VolumeSettings

AXES = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # as data.volume


def record(path: Path, volume: np.ndarray, spacing: tuple[float, ...] = (1, 1, 1)) -> Record:
    affine = AXES @ np.diag([*spacing, 1.0])
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), affine), path)
    return Record(path.name, path)


def ball(shape: tuple[int, ...], spacing: tuple[float, ...], radius: float) -> np.ndarray:
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return (np.sqrt(z**2 + y**2 + x**2) < radius).astype(np.float32)


@pytest.mark.parametrize("content", list(Content))
def test_a_ball_of_thick_slices_is_round(tmp_path: Path, content: Content) -> None:
    shape, spacing = (20, 60, 50), (3.0, 1.0, 1.0)
    item = record(tmp_path / "a.nii.gz", ball(shape, spacing, 18), spacing)
    for wanted in (None, 1.5):
        settings = VolumeSettings((40, 40, 40), spacing=wanted, content=content)
        out = settings.load(item)["pixels"]
        voxel = wanted or 60 / 40
        inside = out > (out.max() / 2)
        assert inside.sum() * voxel**3 == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.06)
        extents = [np.ptp(axis) + 1 for axis in np.nonzero(inside)]
        assert max(extents) - min(extents) <= 2
        centre = [axis.mean() for axis in np.nonzero(inside)]
        np.testing.assert_allclose(centre, 19.5, atol=0.3)


def test_absolute_values_survive(tmp_path: Path) -> None:
    volume = np.full((32, 32, 32), -1000.0)
    volume[8:24, 8:24, 8:24] = 60.0
    settings = VolumeSettings((32, 32, 32), window=(-100.0, 200.0))
    values = settings.values(settings.load(record(tmp_path / "ct.nii.gz", volume))["pixels"])
    assert values[16, 16, 16] == pytest.approx(60, abs=0.01)
    assert values[0, 0, 0] == pytest.approx(-100, abs=0.01)


@pytest.mark.parametrize(
    ("volume", "settings", "words"),
    [
        (np.ones((9, 9, 9)), VolumeSettings(), "constant"),
        (np.eye(9)[None], VolumeSettings(), "single slice"),
        (
            np.eye(9)[None] * np.ones((9, 1, 1)),
            VolumeSettings(window=(-100.0, 200.0)),
            "Hounsfield",
        ),
        (np.full((9, 9, 9), 0.5), VolumeSettings(content=Content.LABELS), "no label map"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, volume: np.ndarray, settings: VolumeSettings, words: str
) -> None:
    with pytest.raises(Unreadable, match=words):
        settings.load(record(tmp_path / "x.nii.gz", volume))


def test_embeddings_of_others(tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    np.savez(path, ids=np.array(["a", "b"]), embeddings=np.eye(2, dtype=np.float32))
    np.testing.assert_array_equal(read_embeddings(path)["b"], [0, 1])
    np.savez(path, ids=np.array(["a", "a"]), embeddings=np.eye(2, dtype=np.float32))
    with pytest.raises(ValueError, match="twice"):
        read_embeddings(path)
    np.savez(path, names=np.array(["a"]))
    with pytest.raises(ValueError, match="`ids`, text"):
        read_embeddings(path)


def test_without_a_spacing_the_field_of_view_counts(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).random((12, 40, 20)).astype(np.float32)
    np.save(tmp_path / "a.npy", volume)
    found = VolumeSettings((32, 32, 32), spacing=2.0).load(Record("a.npy", tmp_path / "a.npy"))
    np.testing.assert_allclose(found["geometry"], [32, 32, 32, np.nan])
    known = VolumeSettings((32, 32, 32)).load(record(tmp_path / "a.nii", volume, (4.0, 1.0, 1.0)))
    # 48, 40 and 20 mm in a cube of 48.
    np.testing.assert_allclose(known["geometry"], [32, 40 / 1.5, 20 / 1.5, 1.5], rtol=1e-5)


def test_pixdim_is_believed_where_the_affine_contradicts_it(tmp_path: Path) -> None:
    """As a well-known set of hearts has it: an identity in the sform, the spacing in pixdim alone."""
    volume = np.random.default_rng(0).random((20, 20, 5)).astype(np.float32)
    for name, qform in (("none.nii", 0), ("qform.nii", 1)):
        image = nibabel.Nifti1Image(volume, None)
        image.header.set_zooms((1.5, 1.5, 10.0))
        image.header.set_sform(np.eye(4), code=1)
        turned = np.diag([-1.5, -1.5, 10.0, 1.0])
        if qform:
            image.header.set_qform(turned, code=1)
        image.to_filename(tmp_path / name)
        image = nibabel.load(tmp_path / name)
        assert np.linalg.norm(image.affine[:3, 2]) == 1
        found = affine_of(image)
        np.testing.assert_allclose(np.linalg.norm(found[:3, :3], axis=0), [1.5, 1.5, 10])
        np.testing.assert_allclose(found[0, 0], -1.5 if qform else 1.5)
        loaded = VolumeSettings((32, 32, 32)).load(Record(name, tmp_path / name))
        np.testing.assert_allclose(loaded["geometry"], [32, 19.2, 19.2, 50 / 32], rtol=1e-5)


def test_a_pixdim_that_nobody_set_is_not_believed_and_contradictions_are_told(
    tmp_path: Path,
) -> None:
    volume = np.random.default_rng(0).random((20, 20, 5)).astype(np.float32)
    image = nibabel.Nifti1Image(volume, np.diag([1.5, 1.5, 10.0, 1.0]))
    image.to_filename(tmp_path / "whole.nii")
    image.header["pixdim"][1:4] = 1
    image.header.set_qform(None, code=0)
    image.to_filename(tmp_path / "ones.nii")
    raw = bytearray((tmp_path / "ones.nii").read_bytes())
    # nibabel writes pixdim with the affine: here the file's own bytes are what is meant.
    raw[80:92] = np.ones(3, "<f4").tobytes()
    raw[252:254] = np.zeros(1, "<i2").tobytes()
    (tmp_path / "ones.nii").write_bytes(bytes(raw))
    told = {}
    for name in ("whole.nii", "ones.nii"):
        loaded = VolumeSettings((32, 32, 32)).load(Record(name, tmp_path / name))
        np.testing.assert_allclose(loaded["geometry"], [32, 19.2, 19.2, 50 / 32], rtol=1e-5)
        told[name] = int(loaded["two_spacings"])
    assert told == {"whole.nii": 0, "ones.nii": 1}


def test_labels_of_a_parcellation_stay_as_they_are(tmp_path: Path) -> None:
    """SynthSeg's reach 2035."""
    labels = np.zeros((32, 32, 32), np.float32)
    labels[8:16], labels[16:24] = 17, 2035
    np.save(tmp_path / "a.npy", labels)
    settings = VolumeSettings((32, 32, 32), content=Content.LABELS)
    found = settings.load(Record("a.npy", tmp_path / "a.npy"))["pixels"]
    np.testing.assert_array_equal(found, labels)
