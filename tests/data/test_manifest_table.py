"""Manifests as people save them: read, or refused by name; never fatal for one row."""

from pathlib import Path

import numpy as np
import pytest

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
