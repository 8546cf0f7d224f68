"""Duplicates from folders to groups: every one that was made is found, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest

import deepssim_jax as ds
from deepssim_jax.audit.sentences import several
from deepssim_jax.cli.main import main
from deepssim_jax.data.manifest import InputError, Role, read_manifest
from deepssim_jax.jobs.duplicates_outputs import headline
from deepssim_jax.jobs.duplicates_result import Compared
from deepssim_jax.jobs.how import How
from tests.jobs import made
from tests.kept import rows

SETTINGS = ds.DuplicateSettings(subject_regex="^(p[0-9]+)_", write_manifest="clean.csv")


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> tuple[Path, dict[str, set[str]]]:
    root = tmp_path_factory.mktemp("splits")
    return root, made.write_splits(root)


def run(root: Path, out: Path) -> ds.DuplicatesResult:
    return ds.duplicates(root / "train", against=[root / "test"], out=out, settings=SETTINGS)


@pytest.fixture(scope="module")
def found(splits) -> tuple[ds.DuplicatesResult, Path, dict[str, set[str]]]:
    root, truth = splits
    return run(root, root / "out"), root, truth


def groups(result: ds.DuplicatesResult) -> list[set[str]]:
    members: dict[int, set[str]] = {}
    for image in result.groups:
        members.setdefault(image.group, set()).add(image.image_id)
    return list(members.values())


def test_the_groups_are_those_that_were_made(found) -> None:
    result, _, truth = found
    assert sorted(map(sorted, groups(result))) == sorted(map(sorted, truth.values()))
    assert result.counts["not_comparable"] == 1
    assert not result.similar


def test_equal_files_and_pixels_are_told_from_copies(found) -> None:
    result, _, truth = found
    hows = {frozenset((x.first_id, x.second_id)): x.how for x in result.pairs}
    assert hows[frozenset(truth["same file"])] is How.SAME_FILE
    assert hows[frozenset(truth["same pixels"])] is How.SAME_PIXELS
    assert hows[frozenset(truth["across"])] is How.COPY
    (mirrored,) = (x for x in result.pairs if {x.first_id, x.second_id} == truth["across"])
    assert mirrored.flip == "horizontal" and mirrored.verified_score > 0.9
    (turned,) = (x for x in result.pairs if {x.first_id, x.second_id} == truth["two patients"])
    assert abs(turned.rotation_deg) == pytest.approx(20, abs=1)
    assert len(hows) == len(result.pairs)  # each pair once


def test_a_pair_with_too_little_in_common_has_no_score(tmp_path: Path) -> None:
    """A collage holds an image on less than a quarter of its square: found by points, not verified."""
    images = [made.texture(number) for number in range(12)]
    for number, image in enumerate(images):
        made.write(tmp_path / f"{number:02d}.png", image)
    made.write(tmp_path / "collage.png", np.hstack([images[0], images[1], images[2]]))
    result = ds.duplicates(tmp_path, out=tmp_path.with_name("out"))
    pairs = [
        x for x in (*result.pairs, *result.similar) if "collage.png" in (x.first_id, x.second_id)
    ]
    assert pairs and all(x.verified_score is None and x.points > 0 for x in pairs)
    assert {x["verified_score"] for x in rows(tmp_path.with_name("out") / "pairs.csv")} == {""}
    assert "not verified" in (tmp_path.with_name("out") / "report.html").read_text()


def test_one_image_of_a_group_is_kept(found) -> None:
    result, root, truth = found
    kept = [x for x in result.groups if x.kept]
    assert len(kept) == len(truth) == result.counts["groups"]
    surplus = sum(len(x) - 1 for x in truth.values())
    assert result.duplicate_rate.count == surplus == result.counts["surplus"]
    manifest = root / "out" / "clean.csv"
    assert len(rows(manifest)) == result.counts["images"] - surplus
    # Laid where its paths start, it is a manifest of the clean set.
    place = Path(json.loads((root / "out" / "summary.json").read_text())["clean_root"])
    copy = place / "clean.csv"
    copy.write_bytes(manifest.read_bytes())
    again = read_manifest(copy, role=Role.REAL)
    copy.unlink()
    assert {record.image_id for record in again.records} == set(result.clean)
    # Each with the split that the other tables give it.
    assert {record.image_id: record.split for record in again.records} == {
        name: name.split("/")[0] for name in result.clean
    }
    assert not again.rejected


def test_splits_that_differ_by_case_are_noted(tmp_path: Path) -> None:
    for name in "abc":
        made.write(tmp_path / f"{name}.png", made.texture(ord(name)))
    (tmp_path / "list.csv").write_text("path,split\na.png,Train\nb.png,train\nc.png,test\n")
    result = ds.duplicates(tmp_path / "list.csv")
    assert any("Train and train are different splits" in note for note in result.notes)
    assert headline(result) == "No duplicates were found among 3 images."
    assert several(1, "pair") == "1 pair" and several(1200, "pair") == "1,200 pairs"


def test_what_two_splits_share_is_said(found) -> None:
    result, root, truth = found
    (crossing,) = result.crossings
    assert (crossing.first, crossing.second) == ("train", "test")
    assert crossing.groups == 2
    assert set(crossing.image_ids) == truth["across"] | truth["two patients"]
    assert crossing.subjects == ("p04", "p06")
    (suspicion,) = result.suspicions
    assert (suspicion.first_subject, suspicion.second_subject) == ("p05", "p77")


def test_the_files_say_what_the_result_says(found) -> None:
    result, root, _ = found
    out = root / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["counts"] == dict(result.counts)
    assert set(summary["files"]) == {
        "clean.csv", "groups.csv", "inputs.json", "pairs.csv", "report.html",
    }  # fmt: skip
    listed = rows(out / "groups.csv")
    assert [x["file"] for x in listed] == [x.image_id for x in result.groups]
    assert {x["split"] for x in listed} == {"train", "test"}
    assert len(rows(out / "pairs.csv")) == len(result.pairs)
    page = (out / "report.html").read_text()
    assert "<script" not in page and "p05" in page and "data:image/png" in page


def test_a_second_run_gives_the_same_bytes(found) -> None:
    _, root, _ = found
    names = ("groups.csv", "pairs.csv", "report.html", "summary.json", "clean.csv")
    before = {name: (root / "out" / name).read_bytes() for name in names}
    run(root, root / "out")
    assert {name: (root / "out" / name).read_bytes() for name in names} == before


def test_the_command_guards_a_data_set(found, capsys) -> None:
    _, root, _ = found
    words = [
        "duplicates",
        str(root / "train"),
        f"--against={root / 'test'}",
        f"--out={root / 'out'}",
    ]
    words += ["--subject_regex=^(p[0-9]+)_", "--write_manifest=clean.csv"]
    assert main([*words, "--max_duplicate_rate=0.9"]) == 0
    assert "p05" not in capsys.readouterr().out  # no patient on the screen
    assert main([*words, "--max_duplicate_rate=0.1"]) == 3


def test_a_column_of_a_manifest_is_the_split(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c")):
        made.write(tmp_path / f"{name}.png", made.texture(number % 2))
    table = "path,subject_id,split\na.png,1,train\nb.png,2,train\nc.png,3,test\n"
    (tmp_path / "list.csv").write_text(table)
    result = ds.duplicates(tmp_path / "list.csv")
    assert result.splits == ("train", "test")
    (crossing,) = result.crossings
    assert crossing.image_ids == ("a.png", "c.png") and not crossing.subjects


def test_frames_of_one_file_are_no_copies_of_each_other(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", np.stack([made.texture(0), made.texture(1), made.texture(0)]))
    result = ds.duplicates(tmp_path)
    (pair,) = result.pairs
    assert {pair.first_id, pair.second_id} == {"stack.npy#1", "stack.npy#3"}
    assert pair.how is How.SAME_PIXELS


def test_volumes_among_images_are_refused_with_a_remedy(tmp_path: Path) -> None:
    import nibabel

    rng = np.random.default_rng(0)
    volume = rng.normal(size=(40, 44, 48)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "b.nii.gz")
    made.write(tmp_path / "a.png", made.texture(0))
    result = ds.duplicates(tmp_path)
    assert result.compared is Compared.IMAGES
    (refused,) = result.exclusions
    assert "volume of" in refused.reason and "--slice=axial:0.5" in refused.reason
    sliced = ds.duplicates(tmp_path, settings=ds.DuplicateSettings(slice_spec="axial:0.5"))
    assert sliced.counts["images"] == 2 and not sliced.exclusions


def test_an_expression_names_the_folder_in_which_it_finds_nobody(tmp_path: Path) -> None:
    for name in (
        "train/P0_a.png",
        "train/P1_a.png",
        "test/P2_a.png",
        "test/P3_a.png",
        "other/x.png",
    ):
        made.write(tmp_path / name, made.texture(0))
    settings = ds.DuplicateSettings(subject_regex="^(P[0-9])_")
    train, test, other = (tmp_path / name for name in ("train", "test", "other"))
    with pytest.raises(InputError, match="^--against='other': --subject_regex=.* is found in none"):
        ds.duplicates(train, against=[test, other], settings=settings)
    with pytest.raises(InputError, match="^--against: --subject_regex=.* is found in none"):
        ds.duplicates(train, against=[other], settings=settings)
    with pytest.raises(InputError, match="^FOLDER: --subject_regex=.* is found in none"):
        ds.duplicates(other, settings=settings)


def test_a_folder_given_twice_is_refused(splits) -> None:
    root, _ = splits
    with pytest.raises(InputError, match="--against: names a folder or the same files twice"):
        ds.duplicates(root / "train", against=[root / "train"])


def test_two_tables_of_the_same_files_are_refused(splits, tmp_path: Path) -> None:
    """Of some of the same files they are not: that is what a leak between splits is."""
    for name, images in (("a", "01"), ("b", "10"), ("c", "12")):
        (tmp_path / f"{name}.csv").write_text("path\n" + "".join(f"{x}.png\n" for x in images))
    for number in range(3):
        made.write(tmp_path / f"{number}.png", made.texture(number))
    first, second, third = (tmp_path / f"{name}.csv" for name in "abc")
    with pytest.raises(InputError, match="the same files twice"):
        ds.duplicates(splits[0] / "train", against=[first, second])
    assert ds.duplicates(first, against=[third]).counts["same_file"] == 1


def test_folders_of_one_name_are_each_looked_at(tmp_path: Path) -> None:
    for name in ("a", "b/test", "c/test"):
        made.write(tmp_path / name / "0.png", made.texture(len(name)))
    with pytest.raises(ValueError, match=r"--against=test \(number 2\)"):
        ds.duplicates(
            tmp_path / "a",
            against=[tmp_path / "b" / "test", tmp_path / "c" / "test"],
            out=tmp_path / "c" / "test" / "out",
        )
