"""Duplicates among volumes: every group of heads that was made is found, and nothing else."""

import csv
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

import deepssim_jax as ds
from deepssim_jax import testing
from deepssim_jax.audit.volume_join import KEPT, LEAST_NOTED, NOTED, VolumeJoin
from deepssim_jax.cli.main import main
from deepssim_jax.data.manifest import InputError
from deepssim_jax.jobs import duplicates_outputs
from deepssim_jax.jobs.duplicates_result import Compared
from deepssim_jax.jobs.how import How
from deepssim_jax.jobs.review_reading import read_source
from deepssim_jax.jobs.review_source import VolumeForm
from deepssim_jax.jobs.volume_copy_rule import VOLUME_PAIR, VolumeCopyRule, copies_of
from deepssim_jax.scoring.volume_evidence import law_beside_copies
from deepssim_jax.testing import assert_same_outputs, assert_verified, outputs

SIDE, READ = 48, 14
SETTINGS = ds.DuplicateSettings(subject_regex="^(p[0-9]+)_", write_manifest="clean.csv")
TRUTH = {
    "same file": {"train/p01_0.nii.gz", "train/p01_1.nii.gz"},
    "mirrored and turned": {"train/p02_0.nii.gz", "train/p02_1.nii.gz"},
    "cropped": {"train/p03_0.nii.gz", "test/p03_9.nii.gz"},
    "another patient's name": {"train/p04_0.nii.gz", "test/p77_0.nii.gz"},
}


def write(path: Path, volume: np.ndarray, spacing: float = 3.0) -> None:
    path.parent.mkdir(exist_ok=True)
    image = nibabel.Nifti1Image(volume.astype(np.float32), np.diag([spacing] * 3 + [1]))
    nibabel.save(image, path)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Ten heads, copies of four of them, and a head of a patient who has another one."""
    root = tmp_path_factory.mktemp("heads")
    heads = testing.phantom_volumes(10, size=SIDE)
    for number in range(8):
        write(root / "train" / f"p{number:02d}_0.nii.gz", heads[number])
    shutil.copyfile(root / "train" / "p01_0.nii.gz", root / "train" / "p01_1.nii.gz")
    write(root / "train" / "p02_1.nii.gz", np.rot90(heads[2][::-1], axes=(0, 2)) * 2 + 7, 1.0)
    cut = slice(6, 42)
    write(root / "test" / "p03_9.nii.gz", heads[3][cut, cut, cut])
    tilted = ndimage.rotate(heads[4], 20, axes=(1, 2), reshape=False, order=1)
    write(root / "test" / "p77_0.nii.gz", tilted)
    write(root / "test" / "p08_0.nii.gz", heads[8])
    write(root / "test" / "p05_5.nii.gz", heads[9])
    (root / "train" / "broken.nii.gz").write_bytes(b"broken")
    return root


def run(root: Path, out: Path) -> ds.DuplicatesResult:
    return ds.duplicates(root / "train", against=[root / "test"], out=out, settings=SETTINGS)


@pytest.fixture(scope="module")
def found(root: Path) -> ds.DuplicatesResult:
    return run(root, root / "out")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_groups_are_those_that_were_made(found: ds.DuplicatesResult) -> None:
    members: dict[int, set[str]] = {}
    for image in found.groups:
        members.setdefault(image.group, set()).add(image.image_id)
    assert sorted(map(sorted, members.values())) == sorted(map(sorted, TRUTH.values()))
    assert found.compared is Compared.VOLUMES and not found.similar
    assert (found.counts["images"], found.counts["unreadable"]) == (READ, 1)
    assert found.duplicate_rate.count == len(TRUTH)


def test_each_pair_is_said_once_with_its_motion(found: ds.DuplicatesResult) -> None:
    pairs = {frozenset((x.first_id, x.second_id)): x for x in found.pairs}
    assert len(pairs) == len(found.pairs) == len(TRUTH)
    of = {name: pairs[frozenset(group)] for name, group in TRUTH.items()}
    assert of["same file"].how is How.SAME_FILE and of["same file"].evidence is None
    assert {x.how for name, x in of.items() if name != "same file"} == {How.COPY}
    assert of["mirrored and turned"].flip == "mirrored"
    assert of["mirrored and turned"].verified_score > 0.99
    assert of["another patient's name"].rotation_deg == pytest.approx(20, abs=1.5)
    # A part is brought onto its whole: of that it covers 0.75 ** 3.
    cropped = of["cropped"]
    assert cropped.first_id == "test/p03_9.nii.gz"
    assert cropped.covered == pytest.approx(0.42, abs=0.06)
    assert cropped.p_value < 0.01


def test_what_two_splits_share_is_said(found: ds.DuplicatesResult) -> None:
    (crossing,) = found.crossings
    assert (crossing.groups, crossing.subjects) == (2, ("p03", "p05"))
    (suspicion,) = found.suspicions
    assert (suspicion.first_subject, suspicion.second_subject) == ("p04", "p77")


def test_the_files_say_what_the_result_says(found: ds.DuplicatesResult, root: Path) -> None:
    out = root / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["counts"] == dict(found.counts)
    assert summary["settings"]["slice"] == "whole volumes" and summary["settings"]["size"] == 64
    listed = rows(out / "pairs.csv")
    assert tuple(listed[0]) == duplicates_outputs.VOLUME_PAIRS
    assert [x["how"] for x in listed] == [x.how.value for x in found.pairs]
    assert len(rows(out / "clean.csv")) == READ - len(TRUTH)
    page = (out / "report.html").read_text()
    assert "the package's default distribution, because" in page
    assert "<script" not in page and page.count(" checked>") == len(TRUTH) - 1
    assert page.count("data:image/jpeg") == 7 * (len(TRUTH) - 1)
    assert "mirrored, turned" in page
    assert list(found.to_pandas().columns) == list(duplicates_outputs.VOLUME_PAIRS)
    assert "p77" in found._repr_html_()


def test_a_killed_run_of_the_command_goes_on_and_guards_the_set(
    found: ds.DuplicatesResult, root: Path, capsys
) -> None:
    """As a run killed before the files and half of the work were written would find it."""
    assert_verified(root / "out")
    again = root / "again"
    shutil.copytree(root / "out", again)
    for name in outputs(again):
        (again / name).unlink()
    lost = [x for x in (again / "work").rglob("*") if x.is_file() and "measured" in x.name]
    assert lost
    for path in lost:
        path.unlink()
    words = ["duplicates", str(root / "train"), f"--against={root / 'test'}", f"--out={again}"]
    words += ["--subject_regex=^(p[0-9]+)_", "--write_manifest=clean.csv"]
    assert main([*words, "--max_duplicate_rate=0.1"]) == 3
    assert "p77" not in capsys.readouterr().out  # no patient on the screen
    assert_same_outputs(root / "out", again)


def test_pairs_of_volumes_can_be_reviewed(found: ds.DuplicatesResult, root: Path) -> None:
    source = read_source(root / "out")
    assert source.strata == {"copy": len(TRUTH) - 1}
    assert isinstance(source.form, VolumeForm) and source.form.grid.size == (64, 64, 64)
    assert {frozenset((x.moving, x.fixed)) for x in source.pairs} <= set(
        map(frozenset, TRUTH.values())
    )
    assert min(x.margin for x in source.pairs) >= 0


def test_equal_voxels_are_found_whatever_the_file(tmp_path: Path) -> None:
    """As an uncompressed twin has them."""
    heads = np.round(testing.phantom_volumes(3, size=SIDE) * 100)
    for number, head in enumerate(heads):
        write(tmp_path / f"p{number}.nii.gz", head)
    nibabel.save(nibabel.load(tmp_path / "p1.nii.gz"), tmp_path / "twin.nii")
    result = ds.duplicates(tmp_path)
    assert {(x.first_id, x.second_id, x.how) for x in result.pairs} == {
        ("p1.nii.gz", "twin.nii", How.SAME_PIXELS)
    }


@pytest.mark.slow
def test_many_copies_do_not_hide_each_other(tmp_path: Path) -> None:
    """Of 22 volumes 20 have a double."""
    heads = testing.phantom_volumes(12, size=SIDE)
    for number, head in enumerate(heads):
        write(tmp_path / f"p{number:02d}.nii.gz", head)
    noise = np.random.default_rng(0).normal(0, 0.01, heads[0].shape)
    for number in range(10):
        copy = (heads[number][::-1], heads[number].swapaxes(0, 2) + noise)[number % 2]
        write(tmp_path / f"q{number:02d}.nii.gz", copy * 3 + 1)
    result = ds.duplicates(tmp_path)
    found = {frozenset((x.first_id, x.second_id)) for x in result.pairs}
    assert found == {frozenset((f"p{n:02d}.nii.gz", f"q{n:02d}.nii.gz")) for n in range(10)}
    # The law is that of the volumes without their copies, and the copies lie above what it gives.
    assert result.thresholds["unrelated_count"] == 22
    assert result.thresholds["similar"] < min(x.evidence for x in result.pairs)
    assert not any("unsure" in note for note in result.notes)


def join_of(evidence: np.ndarray) -> VolumeJoin:
    """As if a folder were searched against itself that gives [n, n]."""
    enough = evidence >= LEAST_NOTED
    noted = np.zeros(enough.sum(), NOTED)
    noted["query"], noted["reference"] = np.nonzero(enough)
    noted["evidence"] = evidence[enough]
    rest = np.sort(np.where(enough, 0.0, evidence))[:, : -KEPT - 1 : -1]
    return VolumeJoin(noted, rest)


def test_what_a_volume_has_for_those_of_other_groups() -> None:
    evidence = np.random.default_rng(0).uniform(0, 6, (9, 9)).astype(np.float32)
    np.fill_diagonal(evidence, 0)
    join, group = join_of(evidence), np.array([0, 0, 0, 3, 4, 4, 6, 7, 8])
    np.testing.assert_array_equal(join.most(), -np.sort(-evidence)[:, :KEPT])
    # What is not noted counts whosever it is: it is less than a copy has.
    others = (group[:, None] != group) | (evidence < LEAST_NOTED)
    falling = -np.sort(-np.where(others, evidence, 0))
    np.testing.assert_array_equal(join.most(group), falling[:, :KEPT])


def test_what_unrelated_volumes_reach_is_learned_beside_copies() -> None:
    """As of 23 brains of which 16 have a double: with these the limit was far above every one of them."""
    rng = np.random.default_rng(0)
    evidence = rng.exponential(0.5, (23, 23)).astype(np.float32)
    doubles = np.array([(2 * n, 2 * n + 1) for n in range(8)])
    for row, column in doubles:
        evidence[row, column] = evidence[column, row] = rng.uniform(18, 31)
    np.fill_diagonal(evidence, 0)
    join = join_of(evidence)
    own = np.full(len(join.rest), 30.0)
    unknown = VolumeCopyRule.of(join, doubles[:0], own=own, rate=0.05)
    known = VolumeCopyRule.of(join, doubles, own=own, rate=0.05)
    assert known.law.count == unknown.law.count == 23
    assert known.evidence < np.log(7) and unknown.evidence < np.log(7)
    assert known.chance < 0.005


def test_the_law_of_the_best_is_found_beside_copies() -> None:
    """The best of 300 exponential numbers follows Gumbel's law with the place log 300 times their scale."""
    rng = np.random.default_rng(0)
    most = -np.sort(-rng.exponential(0.5, (400, 300)), axis=1)[:, :KEPT]
    law = law_beside_copies(most)
    assert law.scale == pytest.approx(0.5, rel=0.05)
    # By the third best of the upper tenth of volumes it lies somewhat higher.
    assert 0.5 * np.log(300) < law.location < 0.5 * np.log(300) + 0.5
    lifted = most + np.where(np.arange(KEPT) < 2, 20.0, 0.0)
    assert law_beside_copies(lifted) == law
    assert law_beside_copies(most[:10]).count == 10


def test_copies_below_what_unrelated_volumes_reach_are_copies_and_said() -> None:
    rng = np.random.default_rng(0)
    evidence = np.exp(rng.uniform(0.2, 3.5, (30, 30))).astype(np.float32)
    rule = VolumeCopyRule.of(
        join_of(evidence), np.array([[0, 1]]), own=np.full(30, 30.0), rate=0.05
    )
    pairs = np.zeros(2, VOLUME_PAIR)
    pairs["evidence"], pairs["share"] = (3.0, 2.9), (0.9, 0.3)
    pairs["structure"] = 0.99
    assert rule.evidence > 3.0
    assert copies_of(pairs).tolist() == [True, False]
    assert rule.unsure(pairs[:1]).startswith("The thresholds are unsure")
    pairs["evidence"] = rule.evidence + 1
    assert rule.unsure(pairs) is None


def test_unreadable_volumes_are_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.nii.gz", np.zeros((20, 20, 20)))
    with pytest.raises(InputError, match="FOLDER: none of its 2"):
        ds.duplicates(tmp_path)
