"""Folders, tables, BIDS, the reference layout; what is refused, and why."""

from pathlib import Path

import pytest

from deepssim_jax.data.forgetting import Forget
from deepssim_jax.data.manifest import InputError, Role, read_manifest
from deepssim_jax.data.records import FileCounts


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def ids(manifest) -> list[str]:
    return [record.image_id for record in manifest.records]


def test_a_folder_is_walked_and_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.PNG", "a/1.nii.gz", "a/.hidden.png", "a/notes.txt", "c.dat")
    assert ids(read_manifest(tmp_path, role=Role.REAL)) == ["a/1.nii.gz", "b/2.PNG"]


def test_patients_from_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "00012_001.png", "00012_002.png", "other.png")
    found = read_manifest(tmp_path, role=Role.REAL, subject_regex=r"^(\d+)_")
    assert [r.subject_id for r in found.records] == ["00012", "00012", None]


@pytest.mark.parametrize(("regex", "words"), [("(", "regular expression"), (r"\d+", "no group")])
def test_a_wrong_expression_is_explained(tmp_path: Path, regex: str, words: str) -> None:
    touch(tmp_path, "1.png")
    with pytest.raises(InputError, match=words):
        read_manifest(tmp_path, role=Role.REAL, subject_regex=regex)


def test_an_expression_is_shown_as_it_was_typed_and_says_how_many_patients_it_finds(
    tmp_path: Path,
) -> None:
    touch(tmp_path, *(f"p{number % 3}_{number:02d}.png" for number in range(20)))
    with pytest.raises(InputError) as error:
        read_manifest(tmp_path, role=Role.REAL, subject_regex=r"^x(\d+)\.png")
    assert str(error.value).startswith(r"--subject_regex='^x(\d+)\.png' is found in none")
    found = read_manifest(tmp_path, role=Role.REAL, subject_regex=r"^p(\d)_")
    assert found.reading("reading real") == "reading real (3 patients)"
    assert read_manifest(tmp_path, role=Role.REAL).reading("reading real") == "reading real"


def test_an_expression_that_tells_no_patients_apart_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"p{number:02d}_1.png" for number in range(20)))
    with pytest.raises(
        InputError, match=r"--subject_regex='\^\(zz\)' is found in none of 20 file n"
    ):
        read_manifest(tmp_path, role=Role.REAL, subject_regex="^(zz)")
    with pytest.raises(InputError, match="makes one patient of all 20 files of --holdout"):
        read_manifest(tmp_path, role=Role.HOLDOUT, subject_regex="^(p)")
    read_manifest(tmp_path, role=Role.SYNTHETIC, subject_regex="^(zz)")
    (tmp_path / "p00_1.png").unlink()  # so few may be of one patient
    assert len(read_manifest(tmp_path, role=Role.REAL, subject_regex="^(p)").records) == 19


def test_a_table(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.png", "x/2.png", "../outside.png")
    (tmp_path / "m.tsv").write_text(
        "path\tsubject_id\timage_id\tage\n"
        "x/1.png\t007\tfirst\t50\n"
        "x/2.png\tn/a\tfirst\t51\n"
        "../outside.png\t1\tn/a\t1\n"
        "x/absent.png\t2\tn/a\t1\n"
    )
    found = read_manifest(tmp_path / "m.tsv", role=Role.REAL)
    assert [(r.image_id, r.subject_id) for r in found.records] == [("first", "007")]
    reasons = {r.image_id: r.reason for r in found.rejected}
    assert reasons["first"] == "a second file of this id; that of line 2 was taken"
    assert "leaves the manifest's folder" in reasons["../outside.png"]
    assert "no such file" in reasons["x/absent.png"]


def test_a_table_without_paths_is_refused_without_its_cells(tmp_path: Path) -> None:
    for head in ("file,who", "1.png,mueller-anna-0"):
        (tmp_path / "m.csv").write_text(f"{head}\n2.png,mueller-anna-1\n")
        with pytest.raises(InputError, match="m.csv has 2 columns.*none of them `path`") as error:
            read_manifest(tmp_path / "m.csv", role=Role.REAL)
        assert not [word for word in ("who", "1.png", "mueller") if word in str(error.value)]


def test_bids(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "dataset_description.json",
        "sub-0003/ses-1/anat/sub-0003_ses-1_run-1_T1w.nii.gz",
        "sub-0003/ses-1/anat/sub-0003_ses-1_run-1_T1w.json",
        "sub-0004/anat/sub-0004_FLAIR.nii.gz",
        "sub-0004/anat/sub-0004_UNIT1.nii.gz",
        "sub-0004/anat/sub-0004_desc-brain_mask.nii.gz",
        "sub-0004/figures/slice.png",
        "phantom.png",
    )
    found = read_manifest(tmp_path, role=Role.REAL)
    assert found.kind == "bids"
    assert {r.image_id: (r.subject_id, r.session_id) for r in found.records} == {
        "sub-0003/ses-1/anat/sub-0003_ses-1_run-1_T1w.nii.gz": ("0003", "1"),
        "sub-0004/anat/sub-0004_FLAIR.nii.gz": ("0004", None),
        "sub-0004/anat/sub-0004_UNIT1.nii.gz": ("0004", None),
        "sub-0004/figures/slice.png": ("0004", None),
        "phantom.png": (None, None),
    }
    assert found.counts == FileCounts(found=8, used=5, refused=0, not_images=3)
    assert {u.name.rpartition("_")[2] for u in found.unused} == {
        "mask.nii.gz", "description.json", "T1w.json"
    }  # fmt: skip


def test_the_reference_layout_by_role(tmp_path: Path) -> None:
    touch(tmp_path, "u1/training.png", "u1/gen-0.png", "u2/training.png", "u2/gen-12.png")
    assert ids(read_manifest(tmp_path, role=Role.REAL)) == ["u1___training", "u2___training"]
    found = read_manifest(tmp_path, role=Role.SYNTHETIC)
    assert ids(found) == ["u1___gen-0", "u2___gen-12"]
    touch(tmp_path / "nifti", "u1/training.nii.gz", "u1/gen-0.nii.gz", "u2/gen-1.nii")
    assert ids(read_manifest(tmp_path / "nifti", role=Role.REAL)) == ["u1___training"]
    found = read_manifest(tmp_path / "nifti", role=Role.SYNTHETIC)
    assert ids(found) == ["u1___gen-0", "u2___gen-1"]
    assert [r.subject_id for r in found.records] == ["u1", "u2"]


def test_hostile_names_are_carried_verbatim(tmp_path: Path) -> None:
    names = ["<script>alert(1)<", "quo\"te's.png", "new\nline.png", "=cmd().png"]
    touch(tmp_path, *(n if n.endswith(".png") else f"{n}.png" for n in names))
    found = ids(read_manifest(tmp_path, role=Role.REAL))
    assert sorted(found) == sorted(n if n.endswith(".png") else f"{n}.png" for n in names)


def test_links_that_loop_or_leave_are_listed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(root, "1.png")
    touch(tmp_path, "secret/2.png")
    (root / "loop").symlink_to(root)
    (root / "away").symlink_to(tmp_path / "secret")
    (root / "self.png").symlink_to(root / "self.png")
    (root / "gone.png").symlink_to(root / "nothing.png")
    found = read_manifest(root, role=Role.REAL)
    assert ids(found) == ["1.png"]
    assert {r.image_id for r in found.rejected} == {"loop", "away", "self.png", "gone.png"}


def test_missing_and_empty_sources_stop(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_manifest(tmp_path / "none", role=Role.REAL)
    with pytest.raises(InputError, match="holds no image"):
        read_manifest(tmp_path, role=Role.SYNTHETIC)


def test_what_is_forgotten_is_counted_and_not_named(tmp_path: Path) -> None:
    for name in ("P1_a.png", "P1_b.png", "P2_a.png", "P3_a.png"):
        (tmp_path / name).write_bytes(b"any")
    how = {"role": Role.REAL, "subject_regex": r"^(P\d)_"}
    found = read_manifest(tmp_path, **how, forget=Forget.of(("P1", "P3_a.png")))
    assert [r.image_id for r in found.records] == ["P2_a.png"] and found.images_left_out == 3
    assert found.counts == FileCounts(found=4, used=1, left_out=3)
    assert found.notes == ("3 images were left out as asked (--forget)",)
    assert not any("P1" in unused.name or "P3" in unused.name for unused in found.unused)
    assert found.unmatched == frozenset()
    assert read_manifest(tmp_path, **how, forget=Forget.of(("P9", "P1"))).unmatched == {"P9"}
    assert read_manifest(tmp_path, **how, forget=Forget.of(["\udcff"])).unmatched  # no UTF-8
    # In a folder that holds none of them there is nothing to say.
    assert read_manifest(tmp_path, **how, forget=Forget.of(("P9",))).notes == ()
