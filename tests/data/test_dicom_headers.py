"""DICOM made here: what headers say of files, and whose they are."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from deepssim_jax.data import dicom, dicom_workers
from deepssim_jax.data.forgetting import Forget
from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.quiet import quiet
from tests.data.made import (
    dicom_bytes,
    dicom_dataset,
    picture,
    volume,
    write_series,
)


def test_a_header_read_the_short_way_is_that_of_a_data_set(tmp_path: Path) -> None:
    """Those of pydicom's own files, too; what is unusual is read by a data set alone."""
    write_series(tmp_path, volume(), EchoTime=4.5, ImageType=["ORIGINAL", "PRIMARY"])
    made = sorted(tmp_path.iterdir())
    (tmp_path / "several.dcm").write_bytes(dicom_bytes(np.stack([picture()] * 3)))
    (tmp_path / "text.dcm").write_bytes(b"no DICOM")
    samples = Path(pydicom.__file__).parent / "data" / "test_files"
    short = {}
    with quiet():
        for path in [*tmp_path.iterdir(), *sorted(samples.glob("*.dcm"))]:
            if (found := dicom.plain_header(path)) is not None:
                short[path] = found
                assert str(found) == str(dicom._header(path)), path.name
    assert set(made) == {path for path in short if path.parent == tmp_path}
    names = {path.name for path in short}
    assert {"CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm"} <= names
    assert not names & {"MR_small_bigendian.dcm", "liver_1frame.dcm", "image_dfl.dcm", "rtplan.dcm"}
    assert short[made[0]]["ImagePositionPatient"] == ["0.0", "0.0", "0.0"]


def test_no_name_from_the_header_becomes_an_id(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(picture()))
    assert "CANARY" not in repr(read_manifest(tmp_path, role=Role.REAL))


def test_the_patient_of_a_header_is_a_hash_and_comes_last(tmp_path: Path) -> None:
    for number, (name, issuer) in enumerate(
        [("1", ""), ("1", ""), ("2", ""), ("2", "H"), ("", "")]
    ):
        tags = {"PatientID": name, "IssuerOfPatientID": issuer}
        (tmp_path / f"p{number % 2}_{number}.dcm").write_bytes(
            dicom_bytes(picture() + number, **tags)
        )
    found = read_manifest(tmp_path, role=Role.REAL)
    people = {r.image_id[3:4]: r.subject_id for r in found.records}
    digest = hashlib.sha256(b"H\x002").hexdigest()[:12]
    assert people["0"] == people["1"] and people["4"] is None and people["3"] == f"dicom-{digest}"
    assert len(set(people.values())) == 4
    assert any(note.startswith("3 patients are those of DICOM headers") for note in found.notes)
    for forget, count in (("1", 2), ("2", 2), (people["2"], 1), (people["3"], 1)):
        left = read_manifest(tmp_path, role=Role.REAL, forget=Forget.of([forget]))
        # An id under every issuer.
        assert (left.images_left_out, len(left.records)) == (count, 5 - count)
    named = read_manifest(tmp_path, role=Role.REAL, subject_regex="^(p[01])_")
    assert {r.subject_id for r in named.records} == {"p0", "p1"}
    (tmp_path / "list.csv").write_text("path,subject_id\np0_0.dcm,A\np0_2.dcm,\n")
    listed = read_manifest(tmp_path / "list.csv", role=Role.REAL)
    assert [r.subject_id for r in listed.records] == ["A", people["2"]]


def test_one_patient_in_all_headers_is_a_placeholder(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02d}.dcm").write_bytes(dicom_bytes(picture() + number))
    found = read_manifest(tmp_path, role=Role.REAL)
    assert {r.subject_id for r in found.records} == {None}
    assert any("placeholder" in note for note in found.notes)


def test_a_file_without_pixels_is_no_image(tmp_path: Path) -> None:
    data = dicom_dataset(picture())
    for name in ("Rows", "Columns", "PixelData"):
        delattr(data, name)
    data.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(picture()))
    found = read_manifest(tmp_path, role=Role.REAL)
    assert [r.image_id for r in found.records] == ["a.dcm"]
    assert [(u.name, u.reason) for u in found.unused] == [
        ("report.dcm", "a DICOM file without pixels")
    ]


@pytest.mark.parametrize("interpreter", [sys.executable, "/nowhere/python", "/bin/true"])
def test_headers_by_workers_are_those_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interpreter: str
) -> None:
    """Where a worker cannot be started or says nothing, its share is read here."""
    write_series(tmp_path / "grün \n series", volume(), EchoTime=3.5, PatientID="Zoë")
    (tmp_path / "frames.dcm").write_bytes(dicom_bytes(volume()))
    (tmp_path / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 20)
    long = dicom_dataset(volume()[0])
    long.private_block(0x0029, "SCANNER", create=True).add_new(1, "OB", b"\0" * 40_000)
    long.save_as(tmp_path / "long.dcm", enforce_file_format=True)
    paths = sorted(tmp_path.rglob("*.dcm"))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(3), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    monkeypatch.setattr(dicom_workers, "_LEAST", 2)
    monkeypatch.setattr("sys.executable", interpreter)
    here = {path: dicom.plain_header(path) for path in paths}
    assert dicom_workers.plain_headers(paths) == here
    assert sum(header is not None for header in here.values()) == len(volume()) + 1


@pytest.mark.parametrize(
    "kind",
    ["66.4", "66.7", "481.2"],
    ids=["segmentation", "label map", "dose"],
)
def test_arrays_about_images_are_no_images(tmp_path: Path, kind: str) -> None:
    data = dicom_bytes(picture(), SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{kind}")
    (tmp_path / "a.dcm").write_bytes(data)
    (tmp_path / "b.dcm").write_bytes(dicom_bytes(picture()))
    found = read_manifest(tmp_path, role=Role.REAL)
    assert [r.image_id for r in found.records] == ["b.dcm"]
    assert [(u.name, u.reason) for u in found.unused] == [
        ("a.dcm", "a DICOM segmentation or dose grid, no image")
    ]
