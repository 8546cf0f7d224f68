"""Sides of volumes: which label maps are taken with them."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from deepssim_jax import testing
from deepssim_jax.data.manifest import ArrayLayout, Role, read_manifest
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.scoring.volume_sides import LevelSources, build_volume_side
from deepssim_jax.workspace import Workspace


def save(path: Path, volume: np.ndarray, spacing: float) -> None:
    path.parent.mkdir(exist_ok=True)
    image = nibabel.Nifti1Image(volume, np.diag([spacing] * 3 + [1.0]))
    nibabel.save(image, path)


def side_of(root: Path):
    """What is searched in `root/volumes` with the label maps in `root/maps`."""
    maps = read_manifest(root / "maps", role=Role.REAL, arrays=ArrayLayout.ZYX)
    with Workspace.temporary(command="replicas") as out:
        side, _ = build_volume_side(
            read_manifest(root / "volumes", role=Role.REAL, arrays=ArrayLayout.ZYX),
            out,
            settings=VolumeSettings((16,) * 3),
            sources=LevelSources(segmentations=maps, labels=(1,)),
        )
        return side.occupancy.any(1).tolist()


def test_a_map_of_another_field_of_view_is_left_out(tmp_path: Path) -> None:
    labels = np.zeros((32, 32, 32), np.uint8)
    labels[12:20, 12:20, 12:20] = 1
    for name, head in zip("abc", testing.phantom_volumes(3, size=32), strict=True):
        save(tmp_path / "volumes" / f"{name}.nii", head.astype(np.float32), 2.0)
    save(tmp_path / "maps" / "a.nii", labels, 2.0)
    save(tmp_path / "maps" / "b.nii", labels[::2, ::2, ::2], 4.0)  # coarser, of the same extent
    save(tmp_path / "maps" / "c.nii", labels[6:26, 6:26, 6:26], 2.0)  # cropped
    assert side_of(tmp_path) == [True, True, False]
    for name in "ab":
        (tmp_path / "maps" / f"{name}.nii").unlink()
    with pytest.raises(ValueError, match="none of 1 label maps has the field of view"):
        side_of(tmp_path)


def test_a_map_without_spacing_fits_a_volume_without_one(tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    (tmp_path / "maps").mkdir()
    labels = np.zeros((16, 24, 32), np.uint8)
    labels[4:12] = 1
    np.save(tmp_path / "volumes" / "a.npy", np.random.default_rng(0).random(labels.shape))
    np.save(tmp_path / "maps" / "a.npy", labels)
    assert side_of(tmp_path) == [True]
