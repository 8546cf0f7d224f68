"""Duplicates from folders to files: every group that was made is found, and nothing else."""

import csv
import dataclasses
import json
import types
from pathlib import Path

import numpy as np
import pytest

import deepssim_jax as ds
from deepssim_jax.audit.sentences import several
from deepssim_jax.cli.main import main
from deepssim_jax.data.dicom import alias
from deepssim_jax.data.forgetting import Forget
from deepssim_jax.data.manifest import InputError, Role, read_manifest
from deepssim_jax.data.records import ArrayLayout, Links
from deepssim_jax.jobs.collection import read_collection
from deepssim_jax.jobs.copy_rule import CopyRule
from deepssim_jax.jobs.duplicate_search import Found
from deepssim_jax.jobs.duplicates_outputs import clean_csv, headline
from deepssim_jax.jobs.duplicates_result import Compared
from deepssim_jax.jobs.findings import kept_of
from deepssim_jax.jobs.how import How
from deepssim_jax.scoring.evidence import GumbelLaw
from tests.data.made import dicom_bytes
from tests.jobs import made
from tests.kept import deepssim

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


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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


def test_the_clean_table_reads_back_whatever_ids_and_names_are(tmp_path: Path) -> None:
    """What a spreadsheet would take for a formula is guarded, and still the same file and patient."""
    names = ["=x.png", "'=x.png", "-1+2.png", "sub/@y.png", "o'k.png", "''+z.png"]
    for number, name in enumerate(names):
        made.write(tmp_path / name, made.texture(number, side=16))
    table = "path,subject_id\n" + "".join(f"./{x},''{x}\n" for x in names)
    (tmp_path / "own.csv").write_text(table)
    before = read_manifest(tmp_path / "own.csv", role=Role.REAL).records
    clean = types.SimpleNamespace(clean=[record.image_id for record in before])
    root, text = clean_csv(clean, before)
    assert b"\n=" not in text and b",=" not in text and b",-" not in text
    (Path(root) / "clean.csv").write_bytes(text)
    after = read_manifest(Path(root) / "clean.csv", role=Role.REAL).records

    def what(records) -> set[tuple]:
        return {(x.path.resolve(), x.image_id, x.subject_id) for x in records}

    assert what(after) == what(before) and len(after) == len(names)
    # Not from a table, the ids are the names themselves.
    folder = read_manifest(tmp_path, role=Role.REAL).records
    root, text = clean_csv(types.SimpleNamespace(clean=[x.image_id for x in folder]), folder)
    (tmp_path / "clean.csv").write_bytes(text)
    assert what(read_manifest(tmp_path / "clean.csv", role=Role.REAL).records) == what(folder)


def test_of_images_that_a_collage_ties_together_both_are_kept() -> None:
    """And of copies of the whole image one, though the search does not list each pair of them."""
    links = [(0, 2, 0.8), (1, 2, 0.8), (3, 4, 0.99), (4, 5, 0.95), (7, 8, 0.8), (8, 9, 0.99)]
    pairs = np.array(
        [(a, b, 2.0, 99.0, score) for a, b, score in links],
        [("query", int), ("reference", int), ("evidence", float), ("points", float), ("verified", float)],
    )  # fmt: skip
    equal = np.arange(10)
    equal[6] = 5
    rule = CopyRule(GumbelLaw.of(np.linspace(0, 1, 50)), 1.3, 25.0)
    found = Found(pairs, pairs[:0], equal, rule)
    members = {1: [0, 1, 2], 2: [3, 4, 5, 6], 3: [7, 8, 9]}
    assert np.flatnonzero(kept_of(found, members)).tolist() == [0, 1, 3, 7]


def test_a_suspected_patient_stands_beside_his_own_image(tmp_path: Path) -> None:
    for name, image in (("a", 0), ("b", 0), ("c", 1)):
        made.write(tmp_path / f"{name}.png", made.texture(image))
    (tmp_path / "list.csv").write_text("path,subject_id\na.png,z\nb.png,y\nc.png,x\n")
    (found,) = ds.duplicates(tmp_path / "list.csv").suspicions
    assert (found.first_subject, found.first_id) == ("y", "b.png")
    assert (found.second_subject, found.second_id) == ("z", "a.png")


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


def test_a_manifest_of_an_earlier_run_does_not_stay_beside_other_results(tmp_path: Path) -> None:
    for number in range(3):
        made.write(tmp_path / "in" / f"{number}.png", made.texture(number % 2))
    out = tmp_path / "out"
    settings = ds.DuplicateSettings(size=64)
    first = dataclasses.replace(settings, write_manifest="clean.csv")
    ds.duplicates(tmp_path / "in", out=out, settings=first)
    (out / "mine.csv").write_text("not of the program")
    assert (out / "clean.csv").is_file()
    (tmp_path / "in" / "1.png").unlink()
    ds.duplicates(tmp_path / "in", out=out, settings=settings)
    assert not (out / "clean.csv").exists() and (out / "mine.csv").is_file()


def test_two_dicom_patients_of_one_image_are_suspected_and_never_named(
    tmp_path: Path, capsys
) -> None:
    for number, patient in enumerate(("CANARY-1", "CANARY-1", "CANARY-2")):
        pixels = np.round(made.texture((0, 1, 0)[number]) * 4095).astype(np.uint16)
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.dcm").write_bytes(
            dicom_bytes(pixels, PatientID=patient, PatientName="CANARY^X", StudyID=str(number))
        )
    assert main(["duplicates", str(tmp_path / "in"), f"--out={tmp_path / 'out'}"]) == 0
    (pair,) = rows(tmp_path / "out" / "pairs.csv")
    people = {alias("CANARY-1"), alias("CANARY-2")}
    assert {pair["first_subject"], pair["second_subject"]} == people
    said = capsys.readouterr()
    assert "patient ids that share an image" in said.out
    assert "CANARY" not in said.out + said.err
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written and not [path for path in written if b"CANARY" in path.read_bytes()]


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


def test_ids_are_forgotten_as_the_outputs_show_them(tmp_path: Path) -> None:
    """Of one split, of all of them by the file's own id, and never silently of none."""

    def left(*forget: str) -> set[str]:
        collection = read_collection(
            [tmp_path / "train", tmp_path / "test"],
            subject_regex=None,
            links=Links.INSIDE,
            arrays=ArrayLayout.IMAGES,
            forget=Forget.of(forget),
        )
        return {record.image_id for record in collection.manifest.records}

    for name in ("train/0.png", "train/1.png", "test/0.png", "test/2.png"):
        made.write(tmp_path / name, made.texture(0))
    assert left("test/0.png") == {"train/0.png", "train/1.png", "test/2.png"}
    assert left("0.png") == {"train/1.png", "test/2.png"}
    with pytest.raises(InputError, match="--forget: 2 of its ids match no image"):
        left("test/0.png", "test/1.png", "nobody")


def test_what_is_left_out_is_no_stray_file(tmp_path: Path) -> None:
    for number in range(3):
        made.write(tmp_path / f"{number}.png", made.texture(number))
    (tmp_path / "readme.txt").write_text("a stray file")
    out = tmp_path.parent / f"{tmp_path.name}_out"
    assert main(["duplicates", str(tmp_path), f"--out={out}", "--forget=1.png"]) == 0
    counts = json.loads((out / "summary.json").read_text())["counts"]
    assert counts["images"] == 2
    assert counts["left_out"] == counts["not_images"] == 1


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
    for name, rows in (("a", "01"), ("b", "10"), ("c", "12")):
        (tmp_path / f"{name}.csv").write_text("path\n" + "".join(f"{x}.png\n" for x in rows))
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


def test_what_was_not_read_or_compared_is_named(tmp_path: Path) -> None:
    for number in range(3):
        blank = np.zeros((160, 160))
        blank[70 + number : 90, 70:90] = 1
        made.write(tmp_path / "in" / f"blank{number}.png", blank)
        made.write(tmp_path / "in" / f"{number}.png", made.texture(number))
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    (tmp_path / "in" / "notes.txt").write_bytes(b"x")
    result = ds.duplicates(tmp_path / "in", out=tmp_path / "out")
    said = json.loads((tmp_path / "out" / "inputs.json").read_text())
    assert {name for name, _ in said["files"]} == {"bad.png", "notes.txt"}
    assert said["not_comparable"] == ["blank0.png", "blank1.png", "blank2.png"]
    assert (said["files_found"], said["images_read"], said["not_read"]) == (8, 6, 1)
    assert headline(result) == (
        "No duplicates were found among 6 images. 3 hold too little structure: of these only equal files "
        "and pixels are found. 1 could not be read."
    )
    assert "inputs.json names each of them" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    "name",
    ["clean.txt", "../clean.csv", "a/b.csv", "pairs.csv", "Groups.csv", "review_summary.csv"],
)
def test_the_manifest_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="write_manifest"):
        ds.DuplicateSettings(write_manifest=name)


def forgotten(root: Path, *forget: str, against: bool = True) -> str:
    """What `duplicates` prints of `train` and `test` of a folder."""
    words = ["duplicates", root / "train", f"--out={root / 'out'}", "--size=64"]
    words += [f"--against={root / 'test'}"] if against else []
    done = deepssim(*words, "--subject_regex=^(p[0-9]+)_", *(f"--forget={x}" for x in forget))
    assert done.returncode == 0, done.stderr
    return done.stdout


def traces(root: Path, *names: str) -> list[Path]:
    """The files of a run that hold one of these names."""
    files = [path for path in (root / "out").rglob("*") if path.is_file()]
    return [path for path in files if any(name.encode() in path.read_bytes() for name in names)]


def test_who_was_forgotten_stays_so_whatever_is_given_later(tmp_path: Path) -> None:
    names = ("train/p1_a", "train/p2_a", "train/p3_a", "test/p1_a", "test/p4_a", "test/p5_a")
    for number, name in enumerate(names):
        made.write(tmp_path / f"{name}.png", made.texture(number))
    said = forgotten(tmp_path, "train/p1_a.png", "p2")
    assert "train: 2 images were left out as asked (--forget)." in said and "earlier" not in said
    said = forgotten(tmp_path, "p4")
    assert "test: 1 image was left out as asked" in said
    assert "2 of them were left out because an earlier run in this folder was asked to" in said
    assert not traces(tmp_path, "train/p1_a.png", "p2_a", "p4_a")
    # An id with a split's name holds without other splits, too, where ids have no such name.
    said = forgotten(tmp_path, against=False)
    assert "2 images were left out as asked" in said and not traces(
        tmp_path, "p1_a", "p2_a", "p4_a"
    )


def test_copies_of_the_forgotten_that_stay_are_listed(tmp_path: Path) -> None:
    for number, name in enumerate(("train/p1_a", "train/p2_a", "train/p3_a")):
        made.write(tmp_path / f"{name}.png", made.texture(number))
    made.write(tmp_path / "test" / "p4_a.png", made.texture(0))
    made.write(tmp_path / "test" / "p5_a.png", made.texture(0)[::-1])
    assert "copies_that_stay" not in forgotten(tmp_path)
    note = "2 images that stay are copies of what was left out (--forget): see copies_that_stay.csv"
    assert note in forgotten(tmp_path, "p1")
    table = tmp_path / "out" / "copies_that_stay.csv"
    assert [(r["image_id"], r["subject_id"]) for r in rows(table)] == [
        ("test/p4_a.png", "p4"), ("test/p5_a.png", "p5")
    ]  # fmt: skip
    assert table.stat().st_mode & 0o777 == 0o600
    assert "1 image that stays is a copy" in forgotten(tmp_path, "p4")
    assert [r["image_id"] for r in rows(table)] == ["test/p5_a.png"]
    assert not traces(tmp_path, "p1_a", "p4_a")
