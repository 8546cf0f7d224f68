"""The audit on slices of real brains: copies against other contrasts and other people."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

import deepssim_jax as ds
from deepssim_jax.audit.result import Label


def slices(path: Path, count: int) -> dict[int, np.ndarray]:
    """Axial slices through the middle of a volume."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    volume = np.asarray(image.dataobj, np.float32)
    image.uncache()
    heights = np.linspace(0.35 * volume.shape[2], 0.7 * volume.shape[2], count).astype(int)
    return {int(z): np.rot90(volume[:, :, z]) for z in heights}


def changed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned by 3 to 12 degrees, gamma 0.6 to 1.5, another scale, 2 % noise."""
    angle = np.deg2rad(rng.uniform(3, 12) * rng.choice([-1, 1]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(image.shape) - 1) / 2
    out = ndimage.affine_transform(image, turn, offset=centre - turn @ centre, order=1)
    out = ((out - out.min()) / np.ptp(out)).clip(0, 1) ** rng.uniform(0.6, 1.5)
    return rng.uniform(0.5, 2) * out + rng.normal(0, 0.02, out.shape)


@pytest.fixture(scope="module")
def audited(tmp_path_factory, data_dir: Path) -> tuple[ds.AuditResult, dict[str, str]]:
    root = tmp_path_factory.mktemp("brains")
    rng = np.random.default_rng(0)
    truth = {}
    (root / "real").mkdir()
    (root / "synthetic").mkdir()
    for patient, name in (
        ("p07", "mni/patient07_T1"),
        ("p26", "mni/patient26_T1"),
        ("p01", "rescan/patient01_study1_T1W"),
        ("p03", "rescan/patient03_study1_FLAIR"),
    ):
        for z, image in slices(data_dir / "brain3d" / f"{name}.nii.gz", 7).items():
            real, copy = f"{patient}_{z}.npy", f"copy_{patient}_{z}.npy"
            np.save(root / "real" / real, image)
            if len(list((root / "real").iterdir())) % 2:
                np.save(root / "synthetic" / copy, changed(image, rng))
                truth[copy] = real
    for what, name in (
        ("contrast", "mni/patient07_T2"),
        ("contrast", "mni/patient26_T2"),
        ("person", "rescan/patient04_study1_FLAIR"),
        ("person", "rescan/patient04_study1_T1W"),
    ):
        for z, image in slices(data_dir / "brain3d" / f"{name}.nii.gz", 5).items():
            np.save(root / "synthetic" / f"{what}_{Path(name).name}_{z}.npy", image)
    settings = ds.AuditSettings(subject_regex=r"^(p[0-9]+)_", plant=0)
    return ds.audit(root / "real", root / "synthetic", settings=settings), truth


def test_turned_and_recoloured_slices_are_found(audited) -> None:
    result, truth = audited
    found = {m.synthetic_id: m for m in result.nearest if m.synthetic_id in truth}
    assert len(found) == 14
    assert {name: m.real_id for name, m in found.items()} == truth
    assert all(m.label is not Label.UNRELATED for m in found.values())


@pytest.mark.parametrize("what", ["contrast", "person"])
def test_another_contrast_and_another_person_are_no_copies(audited, what: str) -> None:
    result, _ = audited
    others = [m for m in result.nearest if m.synthetic_id.startswith(what)]
    assert len(others) == 10
    assert [m.synthetic_id for m in others if m.label is not Label.UNRELATED] == []
    assert max(m.verified_score for m in others) < result.thresholds.near - 0.01
