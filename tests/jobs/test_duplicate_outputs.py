"""What a search for duplicates writes: what is kept, whom it suspects, what it could not read."""

import dataclasses
import json
import types
from pathlib import Path

import numpy as np
import pytest

import deepssim_jax as ds
from deepssim_jax.cli.main import main
from deepssim_jax.data.dicom import alias
from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.jobs.copy_rule import CopyRule
from deepssim_jax.jobs.duplicate_search import Found
from deepssim_jax.jobs.duplicates_outputs import clean_csv, headline
from deepssim_jax.jobs.findings import kept_of
from deepssim_jax.scoring.evidence import GumbelLaw
from tests.data.made import dicom_bytes
from tests.jobs import made
from tests.kept import rows


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
