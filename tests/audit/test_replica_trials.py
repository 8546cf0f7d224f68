"""What experiments on the real side come to: thresholds, and what second scans do to them."""

import dataclasses
from pathlib import Path

import nibabel
import numpy as np
import pytest

from deepssim_jax.audit.replica_calibration import Evidence, _counting, kind_of
from deepssim_jax.audit.replica_conclusion import stray_maps
from deepssim_jax.audit.replica_result import Kind, LevelThresholds
from deepssim_jax.audit.replica_trials import LevelTrial
from deepssim_jax.data.label_maps import common_labels
from deepssim_jax.data.manifest import InputError, Manifest, Role, read_manifest
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.detection.controls import share_of
from deepssim_jax.scoring.evidence import MOST_FALSE, GumbelLaw
from deepssim_jax.scoring.plant_volumes import Edit
from deepssim_jax.scoring.volume_measure import pair_dtype
from deepssim_jax.scoring.volume_search import Level

_SECOND_SCAN = 3.0


def trial_of(*, can: bool, lost: int = 0) -> LevelTrial:
    """Sixty unrelated volumes, three second scans of much evidence, and 18 copies of no less or more, so
    many of which agree as second scans do.
    """
    null = np.random.default_rng(0).gumbel(0.6, 0.3, 60).clip(max=1.8)
    edits = tuple(edit for edit in Edit for _ in range(2))
    return LevelTrial(
        null=null,
        null_tunes=np.arange(60) % 2 == 0,
        null_can=np.zeros(60, bool),
        repeats=np.full(3, _SECOND_SCAN),
        repeats_can=np.full(3, can),
        right=np.linspace(2.8, 4.5, len(edits)),
        right_tunes=np.zeros(len(edits), bool),
        right_can=np.arange(len(edits)) >= lost,
        edits=edits,
    )


def thresholds_of(trial: LevelTrial) -> LevelThresholds:
    nothing = LevelThresholds(
        replica=0.0, same_person=0.0, origin="", null=trial.null, repeats=trial.repeats,
        planted=np.zeros(0), false_rate=None, recall=None, calibrated=True, recall_by_edit={},
        tells=True, counts=True, law=GumbelLaw(0.6, 0.3, 60),
    )  # fmt: skip
    pairs = np.zeros(0, pair_dtype(()))
    evidence = Evidence({Level.POINTS: nothing}, {Level.POINTS: trial}, pairs, 0.95)
    return evidence.at(MOST_FALSE).thresholds[Level.POINTS]


def test_second_scans_that_agree_as_copies_do_raise_the_threshold() -> None:
    found = thresholds_of(trial_of(can=True))
    assert _SECOND_SCAN < found.replica < _SECOND_SCAN + 0.01
    assert "3 pairs of scans of one patient" in found.origin


def test_second_scans_that_keypoints_tell_from_copies_cost_no_recall() -> None:
    trial = trial_of(can=False)
    found, raised = thresholds_of(trial), thresholds_of(trial_of(can=True))
    assert found.replica < _SECOND_SCAN - 0.1
    assert found.recall is not None
    assert raised.recall is not None
    assert found.recall.count > raised.recall.count
    # They are the same person's, however much evidence there is.
    assert kind_of(_SECOND_SCAN, found, can_be_copy=False) is Kind.SAME_PERSON
    assert kind_of(_SECOND_SCAN, found, can_be_copy=True) is Kind.REPLICA


def test_a_p_value_is_no_less_than_the_share_of_unrelated_volumes_that_reach_it() -> None:
    found = thresholds_of(trial_of(can=False))
    # A law that is narrower than the volumes at hand; two of these can be copies that nobody knows of.
    narrow = dataclasses.replace(found, law=GumbelLaw(0.2, 0.05, 60), null=np.linspace(0, 3, 60))
    p_values = narrow.p_values(np.array([-1.0, 1.5, 2.9, 3.5]))
    np.testing.assert_allclose(p_values[:2], [1.0, 28 / 60], atol=1e-6)
    assert p_values[2] < 1e-6
    np.testing.assert_allclose(p_values[3], narrow.law.p_values(np.array([3.5]))[0])


def test_label_maps_of_no_volume_are_counted(tmp_path: Path) -> None:
    volume = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    for name in ("a_seg", "a_seg_2", "b", "stray"):
        nibabel.save(volume, tmp_path / f"{name}.nii.gz")
    maps = {Role.REAL: read_manifest(tmp_path, role=Role.REAL)}
    (said,) = stray_maps(maps, {Role.REAL: ("a.nii.gz", "b.nii.gz", "c.nii.gz")})
    assert said.startswith("2 label maps of the real side")
    for name in ("a_seg_2", "stray"):
        (tmp_path / f"{name}.nii.gz").unlink()
    maps = {Role.REAL: read_manifest(tmp_path, role=Role.REAL)}
    assert stray_maps(maps, {Role.REAL: ("a.nii.gz", "b.nii.gz")}) == ()


def test_where_copies_agree_as_second_scans_do_nothing_tells_them() -> None:
    one, many = (
        thresholds_of(trial_of(can=False, lost=1)),
        thresholds_of(trial_of(can=False, lost=3)),
    )
    assert (one.tells, many.tells) == (True, False)
    assert one.recall is not None
    assert many.recall is not None
    assert one.recall.count == 17
    # The second scans raise the threshold, then: some copies are lost to it, and those that reach it count.
    assert many.replica > _SECOND_SCAN
    assert many.recall.count == (trial_of(can=False).right > _SECOND_SCAN).sum()
    assert kind_of(4.0, many, can_be_copy=False) is Kind.REPLICA
    assert "cannot be distinguished" in many.origin


def test_beside_segmentations_a_level_counts_that_measures_every_volume() -> None:
    base = thresholds_of(trial_of(can=False))

    def counting(**found: int) -> set[Level]:
        recalls = {
            Level(name): share_of(np.arange(20) < hits, 0.95) for name, hits in found.items()
        }
        thresholds = {
            at: dataclasses.replace(
                base, recall=recall, false_rate=share_of(np.zeros(20) > 0, 0.95)
            )
            for at, recall in recalls.items()
        }
        return {at for at, found in _counting(thresholds).items() if found.counts}

    assert counting(segmentation=19, points=12, voxel=4) == {Level.SEGMENTATION, Level.POINTS}
    assert counting(segmentation=19, points=17, voxel=4) == {Level.SEGMENTATION, Level.POINTS}
    assert counting(segmentation=19, points=1, voxel=0) == {Level.SEGMENTATION}
    assert counting(segmentation=4, points=12, voxel=11) == {Level.POINTS, Level.VOXEL}


def test_labels_of_one_side_are_named_and_not_compared(tmp_path: Path) -> None:
    def side(role: Role, labels: tuple[int, ...]) -> Manifest:
        folder = tmp_path / role.value
        folder.mkdir(exist_ok=True)
        volume = np.zeros((16, 16, 16), np.uint8)
        for place, label in enumerate(labels):
            volume[place] = label
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "a.nii")
        return read_manifest(folder, role=role)

    grid = VolumeSettings((16, 16, 16))
    real = side(Role.REAL, (1, 2, 3))
    both = {Role.REAL: real, Role.SYNTHETIC: side(Role.SYNTHETIC, (2, 3, 11))}
    assert common_labels(both, grid) == ((2, 3), {Role.REAL: (1,), Role.SYNTHETIC: (11,)})
    disjoint = {Role.REAL: real, Role.SYNTHETIC: side(Role.SYNTHETIC, (11, 12))}
    with pytest.raises(InputError, match=r"no label in common \(real 1, 2, 3 and synthetic 11, 12"):
        common_labels(disjoint, grid)
