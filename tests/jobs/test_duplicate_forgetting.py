"""Duplicates without those who are to be forgotten."""

import json
from pathlib import Path

import pytest

from deepssim_jax.cli.main import main
from deepssim_jax.data.forgetting import Forget
from deepssim_jax.data.manifest import InputError
from deepssim_jax.data.records import ArrayLayout, Links
from deepssim_jax.jobs.collection import read_collection
from tests.jobs import made
from tests.kept import deepssim, rows


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
