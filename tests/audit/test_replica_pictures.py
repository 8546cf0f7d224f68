"""Pictures of pairs of volumes: as fine as the files, through the alignment that the search found."""

import types
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.audit import replica_pictures
from deepssim_jax.audit.replica_pictures import FRAMES, Drawer
from deepssim_jax.audit.replica_result import Kind, LevelMatch, VolumeMatch
from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.records import ArrayLayout
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.ops.transform import Transform
from deepssim_jax.ops.volume_grid import Geometry
from deepssim_jax.scoring.volume_measure import Alignment
from deepssim_jax.scoring.volume_search import Level


@pytest.mark.parametrize("inverted", [False, True])
def test_a_moved_and_mirrored_copy_is_drawn_on_its_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inverted: bool
) -> None:
    rng = np.random.default_rng(0)
    real = ndimage.zoom(rng.random((8, 8, 8)), 20, order=3).astype(np.float32)
    # The copy is mirrored and lies 10 voxels lower: x_copy = F (x_real + t), in voxels of 160.
    copy = np.roll(real, 10, axis=0)[:, :, ::-1]
    volumes = {Role.REAL: real, Role.SYNTHETIC: 1 - copy if inverted else copy}
    for role, volume in volumes.items():
        (tmp_path / role.value).mkdir()
        np.save(tmp_path / role.value / "v.npy", volume)
    shift = np.array([[10 * 32 / 160, 0, 0]], np.float32)  # in voxels of the search
    transform = Transform.of(np.ones(1), np.eye(3, dtype=np.float32)[None], shift)
    found = types.SimpleNamespace(transform=transform)
    monkeypatch.setattr(replica_pictures, "shown_together", lambda *args, **names: found)
    one = types.SimpleNamespace(image_ids=("v.npy",), geometry=Geometry.filled(1, 32))
    level = LevelMatch("v.npy", None, 9.0, 1e-9, Kind.REPLICA, {}, True, 0.0, 0.0)
    match = VolumeMatch("v.npy", {Level.VOXEL: level}, Kind.REPLICA, 1, False)
    drawer = Drawer(
        sides=dict.fromkeys(volumes, one),
        references=None,
        stores=dict.fromkeys(volumes, one),
        manifests={
            role: read_manifest(tmp_path / role.value, role=role, arrays=ArrayLayout.ZYX)
            for role in volumes
        },
        grid=VolumeSettings((32, 32, 32)),
        contrast=lambda x, grid: x,
        alignment=Alignment.AFFINE,
    )
    (picture,) = drawer.gallery(types.SimpleNamespace(matches=(match,)))
    assert picture.inverted is inverted
    assert [frame.shape for frame in picture.frames] == [(480, 480)] * FRAMES
    middle = picture.frames[FRAMES // 2].astype(int)
    axial, coronal = middle[:160], middle[160:320]
    shown = 255 - axial[:, 160:320] if inverted else axial[:, 160:320]
    assert np.abs(shown - axial[:, :160]).mean() < 2
    assert np.abs(axial[:, 320:] - 127).mean() < 2
    # Without its outer 0.5 %, the real volume's own middle slice; coronal, with the head up.
    for part, wanted in ((axial, real[79:81].mean(0)), (coronal, real[::-1, 79:81].mean(1))):
        assert np.corrcoef(part[:, :160].ravel(), wanted.ravel())[0, 1] > 0.99
