"""Real volumes of equal voxels are one patient's, whatever their files."""

import types
from pathlib import Path

import nibabel
import numpy as np
import pytest

from deepssim_jax import testing
from deepssim_jax.audit import replica_doubles
from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.scoring.volume_measure import MatchSettings
from deepssim_jax.scoring.volume_sides import LevelSources, build_volume_side
from deepssim_jax.workspace import Workspace


def test_an_uncompressed_twin_is_a_double_without_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_doubles, "MAX_SEARCHED", 0)
    for name, head in zip(("p0", "p1"), testing.phantom_volumes(2, size=32), strict=True):
        nibabel.save(
            nibabel.Nifti1Image(head.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii"
        )
    nibabel.save(nibabel.load(tmp_path / "p1.nii"), tmp_path / "p2.nii.gz")
    with Workspace.temporary(command="replicas") as out:
        side, images = build_volume_side(
            read_manifest(tmp_path, role=Role.REAL),
            out,
            settings=VolumeSettings((32,) * 3),
            sources=LevelSources(),
        )
        found = replica_doubles.find_volume_doubles(
            types.SimpleNamespace(side=side),
            images,
            settings=MatchSettings(),
            journal=out.section("doubles", images.fingerprint),
            on_progress=lambda done, total, what: None,
        )
    assert {int(x) for name in ("first", "second") for x in found.pairs[name]} == {1, 2}
    assert found.subjects.tolist() == [0, 1, 1]
