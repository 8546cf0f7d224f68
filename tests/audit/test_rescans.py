"""People scanned twice: the same person, no replica; and contrasts are not confused."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

import deepssim_jax as ds
from deepssim_jax.audit.replica_result import Kind
from deepssim_jax.scoring.volume_search import Level

REAL = (
    "patient01_study1_FLAIR", "patient01_study2_FLAIR", "patient01_study1_T1W",
    "patient01_study2_T1W", "patient03_study1_FLAIR", "patient04_study1_FLAIR",
    "patient04_study1_T1W",
)  # fmt: skip
SETTINGS = ds.ReplicaSettings(
    size=48, spacing=4.6, subject_regex=r"^(patient[0-9]+)_", candidates=1
)


@pytest.fixture(scope="module")
def found(tmp_path_factory, data_dir: Path) -> ds.ReplicaResult:
    root, scans = tmp_path_factory.mktemp("rescans"), data_dir / "brain3d" / "rescan"
    (root / "real").mkdir()
    (root / "synthetic").mkdir()
    for name in REAL:
        shutil.copy(scans / f"{name}.nii.gz", root / "real")
    for name in ("patient03_study2_FLAIR", "patient03_study2_T1W"):
        shutil.copy(scans / f"{name}.nii.gz", root / "synthetic")
    image = nibabel.load(scans / "patient04_study1_FLAIR.nii.gz")
    volume = np.asarray(image.dataobj, np.float32)
    turned = ndimage.rotate(volume, 4, axes=(0, 1), reshape=False, order=1)
    noise = np.random.default_rng(0).normal(0, 0.02 * volume.std(), volume.shape)
    copy = nibabel.Nifti1Image((turned + noise).astype(np.float32), image.affine)
    nibabel.save(copy, root / "synthetic" / "copy.nii.gz")
    return ds.replicas(root / "real", root / "synthetic", settings=SETTINGS)


@pytest.mark.slow
def test_scans_of_one_person_are_no_replicas(found: ds.ReplicaResult) -> None:
    repeats = {(r.first_id, r.second_id): r for r in found.repeats}
    for contrast in ("FLAIR", "T1W"):
        names = tuple(f"patient01_study{i}_{contrast}.nii.gz" for i in (1, 2))
        assert set(repeats[names].kinds.values()) == {Kind.SAME_PERSON}
    again = next(m for m in found.matches if m.synthetic_id.startswith("patient03_study2_FLAIR"))
    assert again.levels[Level.VOXEL].real_id == "patient03_study1_FLAIR.nii.gz"
    assert again.levels[Level.VOXEL].kind is Kind.SAME_PERSON
    assert again.kind is not Kind.REPLICA


@pytest.mark.slow
def test_a_copy_is_a_replica_and_contrasts_are_not_confused(found: ds.ReplicaResult) -> None:
    by_name = {m.synthetic_id: m for m in found.matches}
    copy = by_name["copy.nii.gz"].levels[Level.VOXEL]
    assert (copy.real_id, copy.kind) == ("patient04_study1_FLAIR.nii.gz", Kind.REPLICA)
    other = by_name["patient03_study2_T1W.nii.gz"]
    assert "T1W" in other.levels[Level.VOXEL].real_id
    assert other.kind is Kind.DIFFERENT
