"""The search for replicas from folders to files: planted replicas, ratings, resumption, refusals."""

import csv
import dataclasses
import functools
import itertools
import json
import re
import shutil
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest

import deepssim_jax as ds
from benchmarks.cases.planted_volumes import make_replica
from deepssim_jax.audit import replica_report, replica_trials
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.replica_conclusion import call_of, together
from deepssim_jax.audit.replica_pictures import FRAMES
from deepssim_jax.audit.replica_result import Kind, LevelMatch
from deepssim_jax.data.manifest import InputError, Role
from deepssim_jax.data.phantom_heads import angiograms
from deepssim_jax.detection.assessment import Verdict
from deepssim_jax.detection.calls import Call, Calls
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.plant_volumes import Edit
from deepssim_jax.scoring.volume_search import Level
from deepssim_jax.scoring.volume_sides import Modality
from deepssim_jax.testing import assert_same_outputs, outputs

SIZE, REAL, COPIES, OTHERS = 32, 22, 5, 5
SETTINGS = ds.ReplicaSettings(size=SIZE, modality=Modality.ANGIOGRAPHY, candidates=1)
HOSTILE = "<b>'=1+1.npy"


@pytest.fixture(scope="module", autouse=True)
def few_controls():
    """One copy under each edit, a quarter of what is usual."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_trials, "EACH_EDIT", 1)
        yield


@functools.cache
def people() -> np.ndarray:
    count = REAL + COPIES + OTHERS
    return np.asarray(angiograms(jax.random.key(0), count, size=(SIZE,) * 3).volumes)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("replicas")
    (root / "real").mkdir()
    (root / "synthetic").mkdir()
    volumes, rng = people(), np.random.default_rng(1)
    for i in range(REAL):
        image = nibabel.Nifti1Image(volumes[i], np.diag([3.0, 3, 3, 1]))
        nibabel.save(image, root / "real" / f"p{i:02d}.nii.gz")
    rows = [("synthetic_id", "anna", "ben")]
    for i in range(COPIES + OTHERS):
        volume, copied = volumes[REAL + i], i < COPIES
        if copied:  # the file's axes, as the real ones are stored
            volume = make_replica(volumes[i], volume, rng)
        name = f"copy{i}.nii.gz" if copied else f"other{i}.nii.gz"
        image = nibabel.Nifti1Image(volume.astype(np.float32), np.diag([3.0, 3, 3, 1]))
        nibabel.save(image, root / "synthetic" / name)
        rows.append((name, int(copied), int(copied or i == COPIES)))
    np.save(root / "synthetic" / HOSTILE, np.zeros((8, 8, 8)))
    (root / "real" / "broken.nii.gz").write_bytes(b"broken")
    with (root / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="module")
def found(folders: Path) -> ds.ReplicaResult:
    return ds.replicas(
        folders / "real",
        folders / "synthetic",
        out=folders / "out",
        rated=folders / "ratings.csv",
        settings=SETTINGS,
    )


def test_planted_replicas_are_found_and_nobody_else(found: ds.ReplicaResult) -> None:
    assert found.verdict.value == "copies_found"
    assert {m.synthetic_id for m in found.replicas} == {f"copy{i}.nii.gz" for i in range(COPIES)}
    for match in found.matches[:COPIES]:
        number = int(match.synthetic_id[4])
        assert match.levels[Level.VOXEL].real_id == f"p{number:02d}.nii.gz"
        assert match.levels[Level.SEGMENTATION].real_id == f"p{number:02d}.nii.gz"
        assert "a replica by" in match.reason
    voxel = found.thresholds[Level.VOXEL]
    assert voxel.calibrated
    assert voxel.counts
    assert len(voxel.null) == REAL
    assert voxel.same_person <= voxel.replica
    assert set(voxel.recall_by_edit) == {edit.value for edit in Edit}
    assert any("chance alone would give (about" in reason for reason in found.reasons)
    assert found.assessment.subjects is not None
    assert found.assessment.subjects.exposed == COPIES
    by_edit = {row.change: row.share for row in found.assessment.recall_by_edit}
    assert set(by_edit) == set(voxel.recall_by_edit)
    for at, level in found.thresholds.items():
        if level.counts:  # together the levels find what each of them finds
            assert all(by_edit[e].count >= n for e, n in level.recall_by_edit.items()), at


def test_ratings_are_judged_on_other_volumes(found: ds.ReplicaResult) -> None:
    rated = found.ratings
    assert (rated.raters, rated.rated, rated.replicas) == (2, COPIES + OTHERS, COPIES)
    assert 0.7 < rated.kappa < 0.9
    assert rated.agreement == pytest.approx(0.9)
    by_name = {m.measure: m for m in rated.measures}
    assert by_name["body_ncc"].cross_validated.value >= 0.9
    assert by_name["body_ncc"].auc == 1.0
    assert by_name["dice"].cross_validated.value >= 0.8
    assert len(rated.measures) == 17  # sixteen, and the choice among them


def test_the_files_say_what_the_result_says(found: ds.ReplicaResult, folders: Path) -> None:
    out = folders / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["counts"]["replicas"] == len(found.replicas)
    assert summary["counts"]["unreadable_real"] == 1
    assert set(summary["levels"]) == {"points", "voxel", "feature", "segmentation"}
    with (out / "replicas.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["synthetic_id"] for r in rows] == [m.synthetic_id for m in found.matches]
    for row, match in zip(rows, found.matches, strict=True):
        assert row["kind"] == match.kind.value
        level = match.levels[Level.VOXEL]
        assert float(row["voxel_ssim"]) == pytest.approx(level.measures["ssim"], abs=1e-6)
    with (out / "overlap.csv").open(newline="") as file:
        overlap = list(csv.DictReader(file))
    assert {r["label"] for r in overlap} == {"vessels"}
    assert float(overlap[0]["dice"]) == pytest.approx(
        found.matches[0].levels[Level.SEGMENTATION].measures["dice"], abs=1e-6
    )


def test_reports_are_closed_and_the_shared_one_names_nobody(folders: Path, found) -> None:
    for name in ("report.html", "report_share.html"):
        text = (folders / "out" / name).read_text()
        assert "default-src 'none'" in text
        assert "<script" not in text
        # Of pictures in base64 any four letters may come out.
        words = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
        assert "http" not in words.replace("http-equiv", "")
        assert "<b>'" not in text
    internal = (folders / "out" / "report.html").read_text()
    assert internal.count("data:image/jpeg") >= FRAMES * COPIES
    assert internal.count(" checked>") == internal.count('role="radiogroup"') >= COPIES
    assert "&lt;b&gt;" in internal
    shared = (folders / "out" / "report_share.html").read_text()
    assert "data:image" not in shared
    assert not any(f"p{i:02d}.nii" in shared or f"copy{i}" in shared for i in range(REAL))
    assert str(folders) not in internal + shared


def test_few_replicas_and_few_volumes_are_not_counted_outside(found) -> None:
    pages = set()
    for count, real, verdict in itertools.product(
        range(1, 5), range(1, 5), (Verdict.INCONCLUSIVE, Verdict.COPIES_FOUND)
    ):
        rate = clopper_pearson(count, 40)
        world = dataclasses.replace(
            found,
            assessment=dataclasses.replace(found.assessment, verdict=verdict, copy_rate=rate),
            counts={**found.counts, "real": real, "synthetic": 40, "replicas": count},
            notes=(*found.notes, f"{count} images were left out as asked (--forget)."),
        )
        pages.add(replica_report._render(world, (), edition=Edition.SHARED, salt=b"salt"))
    (page,) = pages
    assert "fewer than 5 look like replicas of one of fewer than 5 real ones" in page
    assert "A few volumes look like replicas" in page and "--forget" not in page


def test_half_of_the_work_lost_gives_the_same_bytes(folders: Path, found) -> None:
    """As a run killed before those files were written would find it."""
    again = folders / "again"
    shutil.copytree(folders / "out", again)
    for name in outputs(again):
        (again / name).unlink()
    for lost in ("steps/search.volumes-*", "steps/calibration.controls*", "cache/labels-*"):
        for path in (again / "work").glob(lost):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    ds.replicas(
        folders / "real",
        folders / "synthetic",
        out=again,
        rated=folders / "ratings.csv",
        settings=SETTINGS,
    )
    assert_same_outputs(folders / "out", again)


def test_what_cannot_be_meant_is_refused(folders: Path, tmp_path: Path) -> None:
    real, synthetic = folders / "real", folders / "synthetic"
    with pytest.raises(InputError, match="--allow_same"):
        ds.replicas(real, real)
    with pytest.raises(InputError, match="--segmentations_synthetic is not"):
        ds.replicas(real, synthetic, files=ds.LevelFiles(segmentations={Role.REAL: real}))
    (tmp_path / "r.csv").write_text("synthetic_id,replica\nnobody.nii,1\n")
    with pytest.raises(ValueError, match="size 8"):
        ds.replicas(real, synthetic, settings=ds.ReplicaSettings(size=8))


def test_levels_that_count_decide_and_disputes_are_said() -> None:
    def match(kind: Kind) -> LevelMatch:
        p = {Kind.REPLICA: 1e-6, Kind.SAME_PERSON: 1e-3, Kind.DIFFERENT: 0.5}[kind]
        return LevelMatch("r", None, 0.9, p, kind, {}, False, 0.0, 0.0)

    def decided(kinds: tuple[Kind, ...], patients: tuple[int, ...], *counting: Level):
        levels = dict(zip(Level, map(match, kinds), strict=False))
        known = dict(zip(Level, patients, strict=False))
        return together("s", levels, known, counting or tuple(levels))

    yes, same, no = Kind
    both = decided((yes, yes), (1, 1))
    assert (both.kind, both.votes, both.disputed) == (Kind.REPLICA, 2, False)
    other = decided((yes, yes), (1, 2))
    assert (other.kind, other.votes, other.disputed) == (Kind.REPLICA, 1, True)
    # A level that finds nothing here vetoes nothing, and alone it decides nothing.
    unheard = decided((no, yes, no), (2, 1, 3), Level.VOXEL)
    assert (unheard.kind, unheard.disputed) == (Kind.REPLICA, False)
    alone = decided((no, yes), (2, 1), Level.POINTS)
    assert (alone.kind, alone.disputed) == (Kind.DIFFERENT, True)
    assert "too few" in alone.reason
    assert decided((same, no), (1, 2)).kind is Kind.SAME_PERSON
    # A volume without label map, where segmentations alone count.
    assert decided((no, no), (1, 1), Level.SEGMENTATION).reason.startswith("not measured")
    # Keypoints distinguish a second scan from a copy: voxels that do not are disputed.
    second = decided((same, yes), (1, 1))
    assert (second.kind, second.disputed) == (Kind.REPLICA, True)
    assert "not by points" in second.reason
    assert not decided((yes, same), (1, 1)).disputed


def test_a_regex_that_misses_files_is_refused(folders: Path) -> None:
    settings = ds.ReplicaSettings(size=SIZE, subject_regex=r"^(p0[0-9])")
    with pytest.raises(InputError, match="no patient in 13 of 23"):
        ds.replicas(folders / "real", folders / "synthetic", settings=settings)


def test_volumes_with_one_holder_are_look_alikes_unless_most_levels_agree() -> None:
    def level(p: float, kind: Kind) -> LevelMatch:
        return LevelMatch("r", None, 0.9, p, kind, {}, False, 0.0, 0.0)

    points, voxel = level(1e-9, Kind.REPLICA), level(1e-4, Kind.REPLICA)
    both = {Level.POINTS: points, Level.VOXEL: voxel}
    patients, originals = {Level.POINTS: 7, Level.VOXEL: 7}, {Level.POINTS: 3, Level.VOXEL: 4}
    counting = (Level.POINTS, Level.VOXEL)
    assert call_of(both, patients, originals, counting) == Call(3, confirmed=True)
    # One that does not count has no say, but can agree.
    assert call_of(both, patients, originals, counting[:1]) == Call(3, confirmed=True)
    three = both | {Level.FEATURE: level(0.5, Kind.DIFFERENT)}
    half = call_of(three, patients | {Level.FEATURE: 1}, originals | {Level.FEATURE: 1}, counting)
    assert half == Call(3, confirmed=False)
    elsewhere = {Level.POINTS: 7, Level.VOXEL: 8}
    alone = call_of(both, elsewhere, originals, counting)
    assert alone == Call(3, confirmed=False)
    assert Calls.of([alone] * 6) == Calls(alike=6, originals=1)
