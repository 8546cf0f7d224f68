"""Manifests as people save them: read, or refused by name; never fatal for one row."""

from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.data.forgetting import Forget
from deepssim_jax.data.manifest import InputError, Role, read_manifest
from deepssim_jax.data.records import FileCounts
from tests.data.made import files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0.png").write_bytes(files()["a.png"])
    np.save(tmp_path / "stack.npy", np.arange(192.0).reshape(3, 8, 8))
    return tmp_path


@pytest.mark.parametrize(
    ("content", "subject"),
    [
        ("path,subject_id\n0.png,Müller\n".encode("latin-1"), "Müller"),
        ("path,subject_id\n0.png,Müller\n".encode("utf-16"), "Müller"),
        ("path,subject_id\n0.png,Müller\n".encode("utf-8-sig"), "Müller"),
        (b"path;subject_id\r\n0.png;1\r\n", "1"),
        (b"sep=;\r\npath;subject_id\r\n0.png;1,5\r\n", "1,5"),
        ("sep=\t\npath\tsubject_id\n0.png\t1\n".encode("utf-16"), "1"),
        (b"path,subject_id,,\n0.png,1,,\n", "1"),
        (b"path,subject_id\n0.png,1,, \n", "1"),
        (b"Path,Subject_ID\n0.png,1\n", "1"),
        (b"path, subject_id\n 0.png, 1\n", "1"),
        (b"path\n.\\0.png\n", None),
        (b"path,note\n0.png," + b"x" * 140_000 + b"\n", None),
    ],
)
def test_tables_of_all_makes(folder: Path, content: bytes, subject: str | None) -> None:
    (folder / "m.csv").write_bytes(content)
    found = read_manifest(folder / "m.csv", role=Role.REAL)
    assert [(r.path.name, r.subject_id) for r in found.records] == [("0.png", subject)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"path,subject_id\n0.png,a\n\nstack.npy,Doe, Jane\n",
            "m.csv, line 4: it has 3 cells, and the first row names 2 columns; .* in double quotes",
        ),
        (b"sep=,\npath,subject_id\n0.png,Doe, Jane\n", "line 3: it has 3 cells"),
        (b"path,site,subject_id,Path \n0.png,1,2,x\n", "its columns 1 and 4 have one name"),
        ("path,subject_id\n0.png,a\n".encode("utf-16-le"), "as UTF-16 without its mark"),
        ("path,subject_id\n0.png,M\u00fcller\n".encode("utf-16-be"), "as UTF-16 without its mark"),
    ],
)
def test_what_would_be_read_wrong_is_refused(folder: Path, content: bytes, reason: str) -> None:
    """A comma in a name would make one patient of all of this family name."""
    (folder / "m.csv").write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_manifest(folder / "m.csv", role=Role.REAL)
    assert "Doe" not in str(caught.value) and "Jane" not in str(caught.value)


def test_an_encoding_that_was_guessed_is_said(folder: Path) -> None:
    (folder / "m.csv").write_bytes(b"path,site\n0.png,M\xfcnchen\n")
    found = read_manifest(folder / "m.csv", role=Role.REAL)
    assert found.records[0].site == "München"
    assert "Windows-1252" in found.notes[0]


def test_images_of_one_file_can_be_named(folder: Path) -> None:
    rows = ["path,subject_id", "stack.npy#3,c", "stack.npy#1,a", "stack.npy#4,d", "0.png,e"]
    (folder / "m.csv").write_text("\n".join(rows))
    found = read_manifest(folder / "m.csv", role=Role.REAL)
    assert [(r.image_id, r.items, r.subject_id) for r in found.records] == [
        ("0.png", (), "e"), ("stack.npy#1", (0,), "a"), ("stack.npy#3", (2,), "c")
    ]  # fmt: skip
    assert [r.reason for r in found.rejected] == ["holds 3 images, and number 4 was asked for"]
    assert found.counts == FileCounts(found=4, used=3, refused=1, not_images=0)


def test_what_a_row_cannot_mean_is_listed(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "a.txt").write_text("x")
    rows = ["path", "0.png", "sub", "a.txt", "~/x.png", "a\0b.png", "x" * 5000]
    (folder / "m.csv").write_text("\n".join(rows))
    found = read_manifest(folder / "m.csv", role=Role.REAL)
    assert len(found.records) == 1 and len(found.rejected) == 5
    assert found.counts == FileCounts(found=6, used=1, refused=5, not_images=0)


def test_no_id_with_a_zero_byte_is_taken(folder: Path) -> None:
    (folder / "m.csv").write_bytes(b"path,subject_id,note\n0.png,SMI\0TH,\nstack.npy,a,b\0\n")
    found = read_manifest(folder / "m.csv", role=Role.REAL)
    # What we do not read may hold one.
    assert [record.subject_id for record in found.records] == ["a"] * 3
    (refused,) = found.rejected
    assert "zero byte" in refused.reason and "SMI" not in refused.reason


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n".encode("utf-16"), "columns"),
        (b"\xff\xfep\0a\0\0", "damaged utf-16"),
        (b"", "columns"),
    ],
)
def test_what_is_no_table_is_named(folder: Path, content: bytes, words: str) -> None:
    (folder / "m.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"m.csv.*{words}"):
        read_manifest(folder / "m.csv", role=Role.REAL)


def test_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert read_manifest(f"~/{folder.name}", role=Role.REAL).source == folder


@pytest.mark.parametrize(
    "comment",
    [
        '"unclear margin',  # never closed
        '"unclear" margin',
        '"unclear\nmargin"',
        '"unclear\rmargin"',
    ],
)
@pytest.mark.parametrize("last", ["clear", '"clear"', 'clear"', '"clear'])
def test_rows_are_not_lost_in_a_quote(folder: Path, comment: str, last: str) -> None:
    rows = ["path,subject_id,comment", *(f"0.png,mueller-{k},clear" for k in (1, 2))]
    rows += [f"0.png,mueller-3,{comment}", "0.png,mueller-4,", f"0.png,mueller-5,{last}"]
    (folder / "m.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match="m.csv, line 4: its quotes .* close each quote") as error:
        read_manifest(folder / "m.csv", role=Role.REAL)
    assert "mueller" not in str(error.value) and "margin" not in str(error.value)


def test_quotes_that_pair_are_read(folder: Path) -> None:
    for name, content in (
        ("m.csv", '"path","subject_id","comment"\r\n\r\n"0.png","a,b","of 5"" and more"\r\n'),
        ("s.csv", '"path";"subject_id"\n"0.png";"a,b"\n'),
        ("t.tsv", 'path\tsubject_id\tcomment\n0.png\ta,b\tof 5" and more'),
    ):
        (folder / name).write_bytes(content.encode())
        found = read_manifest(folder / name, role=Role.REAL)
        assert [r.subject_id for r in found.records] == ["a,b"]
        assert found.counts == FileCounts(found=1, used=1)


def test_a_row_whose_image_was_named_before_is_refused(folder: Path) -> None:
    (folder / "1.png").write_bytes(files()["a.png"])
    rows = ["0.png", "1.png", "0.png", "stack.npy#2", "stack.npy#2", "stack.npy#3", "stack.npy"]
    (folder / "m.csv").write_text("\n".join(["path", *rows]))
    found = read_manifest(folder / "m.csv", role=Role.REAL)
    # The last row gives the stack's first image, which no other names.
    assert [r.image_id for r in found.records] == [
        "0.png", "1.png", "stack.npy#1", "stack.npy#2", "stack.npy#3"
    ]  # fmt: skip
    assert [r.image_id for r in found.rejected] == [
        "0.png", "stack.npy#2", "stack.npy#2", "stack.npy#3"
    ]  # fmt: skip
    assert found.counts == FileCounts(found=7, used=5, refused=2)
    left = read_manifest(
        folder / "m.csv", role=Role.REAL, forget=Forget.of(["stack.npy#2", "1.png"])
    )
    assert left.counts == FileCounts(found=7, used=3, refused=1, left_out=3)


def test_a_patient_may_be_called_na(folder: Path) -> None:
    subjects = ["NA", "nan", "n/a", "", " "]
    for name in ("m.csv", "m.tsv"):
        comma = "," if name.endswith("csv") else "\t"
        rows = [comma.join((f"{k}", "0.png", x)) for k, x in enumerate(subjects)]
        head = comma.join(("image_id", "path", "subject_id"))
        (folder / name).write_text("\n".join([head, *rows]))
    found = read_manifest(folder / "m.csv", role=Role.REAL)
    assert [r.subject_id for r in found.records] == ["NA", "nan", "n/a", None, None]
    assert found.notes == (
        "the manifest has NA or n/a or nan in the column subject_id (rows: 3), taken as it is written; "
        "leave the cell empty if nothing is known",
    )
    bids = read_manifest(folder / "m.tsv", role=Role.REAL)
    assert [r.subject_id for r in bids.records] == ["NA", "nan", None, None, None]
    assert "NA or nan in the column subject_id (rows: 2)" in bids.notes[0]
