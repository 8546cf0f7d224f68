"""An index of a folder answers for single images as the search for duplicates would."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import deepssim_jax as ds
from deepssim_jax import testing
from deepssim_jax.cli.main import main
from deepssim_jax.data.manifest import InputError
from deepssim_jax.jobs.how import How
from deepssim_jax.workspace import Workspace
from tests.jobs import made

SETTINGS = ds.DuplicateSettings(subject_regex="^(p[0-9]+)_")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory) -> tuple[ds.PreparedIndex, Path]:
    root = tmp_path_factory.mktemp("index")
    for number in range(12):
        made.write(root / "in" / f"p{number}_0.png", made.texture(number))
    made.write(root / "in" / "p3_1.png", made.texture(3)[::-1])
    return ds.index(root / "in", out=root / "index", settings=SETTINGS), root


def test_a_changed_copy_leads_to_its_patient_and_all_duplicates(indexed) -> None:
    index, _ = indexed
    (answer,) = ds.lookup(np.rot90(made.texture(3))[:, 10:], index=index)
    first = answer.matches[0]
    assert {x.image_id for x in answer.matches} == {"p3_0.png", "p3_1.png"}
    assert first.how is How.COPY and first.subject_id == "p3"
    assert {first.image_id, *first.in_group} == {"p3_0.png", "p3_1.png"}


def test_one_image_at_a_time_gives_the_numbers_of_many(indexed) -> None:
    index, _ = indexed
    many = dataclasses.replace(index, local=dataclasses.replace(index.local, together=None))
    for image in (np.rot90(made.texture(3))[:, 10:], made.texture(7)[::-1, 8:] ** 1.4):
        found = ds.lookup(image, index=index)
        assert found[0].matches and found == ds.lookup(image, index=many)


def test_a_look_up_loads_nothing_that_it_does_not_need() -> None:
    """Each of these takes as long to load as an answer does."""
    slow = {"scipy.stats", "nibabel", "pydicom", "flax", "optax", "matplotlib", "jinja2"}
    code = f"import sys, deepssim_jax.jobs.lookup; print(sorted({slow} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_an_index_says_what_it_does_not_hold(tmp_path: Path, capsys) -> None:
    for number in range(3):
        made.write(tmp_path / "in" / f"{number}.png", made.texture(number))
    (tmp_path / "in" / "patient.png").write_bytes(b"no image")
    assert main(["index", f"{tmp_path}/in", f"--out={tmp_path}/index", "--size=64"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["files", "found", "4"] in lines and ["not", "read", "1"] in lines
    said = json.loads((tmp_path / "index" / "inputs.json").read_text())
    assert said["files"][0][0] == "patient.png"


def test_ids_to_be_forgotten_that_nothing_has_are_refused(tmp_path: Path, capsys) -> None:
    for number in range(3):
        made.write(tmp_path / "in" / f"{number}.png", made.texture(number))
    call = ["index", f"{tmp_path}/in", "--size=64"]
    assert main([*call, f"--out={tmp_path}/a", "--forget=TYPO", "--forget=1.png"]) == 2
    said = capsys.readouterr().err
    assert "--forget: 1 of its ids matches no image and no patient of any folder" in said
    assert "TYPO" not in said
    assert main([*call, f"--out={tmp_path}/b", "--forget=1.png"]) == 0
    said = capsys.readouterr().out
    assert "1 image was left out as asked (--forget)" in said and "1.png" not in said
    assert ["left", "out", "as", "asked", "1"] in [line.split() for line in said.splitlines()]
    assert json.loads((tmp_path / "b" / "inputs.json").read_text())["left_out"] == 1


def test_an_index_leaves_out_whom_an_earlier_run_forgot(tmp_path: Path, capsys) -> None:
    for number in range(4):
        made.write(tmp_path / "in" / f"p{number}_0.png", made.texture(number))
    made.write(tmp_path / "in" / "p9_0.png", made.texture(1)[::-1])
    call = ["index", f"{tmp_path}/in", f"--out={tmp_path}/index", "--subject_regex=^(p[0-9])_"]
    assert main(call) == 0
    assert main([*call, "--forget=p1"]) == 0
    assert "1 image that stays is a copy of what was left out" in capsys.readouterr().out
    assert main([*call, "--forget=p2"]) == 0
    said = capsys.readouterr().out
    assert "2 images were left out as asked (--forget)" in said
    assert "1 of them was left out because an earlier run in this folder was asked to" in said
    assert ds.open_index(tmp_path / "index").image_ids == ("p0_0.png", "p3_0.png", "p9_0.png")
    table = (tmp_path / "index" / "copies_that_stay.csv").read_text().splitlines()
    assert table == ["image_id,subject_id,role", "p9_0.png,p9,real"]
    kept = [path.read_bytes() for path in (tmp_path / "index").rglob("*") if path.is_file()]
    assert not [data for data in kept if b"p1_" in data or b"p2_" in data]


def test_an_index_grows_and_is_not_replaced_by_that_of_another_set(tmp_path: Path, capsys) -> None:
    for number in range(7):
        folder = tmp_path / ("other" if number > 4 else "in")
        made.write(folder / f"{number}.png", made.texture(number))
    call = ["index", f"--out={tmp_path}/index", "--size=64"]
    assert main([*call, f"{tmp_path}/in"]) == 0 and "added" not in capsys.readouterr().out
    (tmp_path / "in" / "0.png").unlink()
    for number in (7, 8):
        made.write(tmp_path / "in" / f"{number}.png", made.texture(number))
    grown = ds.index(
        tmp_path / "in", out=tmp_path / "index", settings=ds.DuplicateSettings(size=64)
    )
    assert (len(grown), grown.growth.added, grown.growth.gone) == (6, 2, 1)
    assert main([*call, f"{tmp_path}/in"]) == 0 and "added" not in capsys.readouterr().out
    assert main([*call, f"{tmp_path}/other"]) == 2
    said = capsys.readouterr().err
    assert "--out='index' is of 6 other images" in said and "give another folder" in said
    assert ds.open_index(tmp_path / "index", check=True).image_ids == grown.image_ids


def test_equal_pixels_need_no_search(indexed, tmp_path: Path) -> None:
    index, root = indexed
    shutil.copyfile(root / "in" / "p5_0.png", tmp_path / "x.png")
    (answer,) = ds.lookup(tmp_path / "x.png", index=index)
    (match,) = answer.matches
    assert (match.image_id, match.how) == ("p5_0.png", How.SAME_PIXELS)


def test_an_unrelated_image_matches_nothing(indexed) -> None:
    (answer,) = ds.lookup(made.texture(99), index=indexed[0])
    assert answer.matches == () and answer.refused is None


def test_an_image_without_structure_is_refused(indexed) -> None:
    blank = np.zeros((160, 160))
    blank[70:90, 70:90] = 1
    (answer,) = ds.lookup(blank, index=indexed[0])
    assert "too little structure" in str(answer.refused)


def test_the_index_holds_no_image_in_full(indexed) -> None:
    index, root = indexed
    sizes = [np.load(path, mmap_mode="r").shape for path in (root / "index").glob("*.npy")]
    images = [shape for shape in sizes if len(shape) == 3 and shape[1] == shape[2]]
    assert images == [(13, 128, 128)]
    assert not list((root / "index").rglob("*canvas*"))


def test_the_command_prints_a_table(indexed, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # kept programs have a test of their own
    _, root = indexed
    made.write(tmp_path / "scan.png", made.texture(7)[:, ::-1])
    assert main(["lookup", str(tmp_path / "scan.png"), f"--index={root / 'index'}", "--check"]) == 0
    header, row = capsys.readouterr().out.splitlines()[:2]
    found = dict(zip(header.split(","), row.split(","), strict=True))
    assert (found["how"], found["image_id"], found["flip"]) == ("copy", "p7_0.png", "horizontal")
    (tmp_path / "scan.png").write_bytes((tmp_path / "scan.png").read_bytes()[:200])
    assert main(["lookup", str(tmp_path / "scan.png"), f"--index={root / 'index'}"]) == 4
    assert "damaged or truncated" in capsys.readouterr().out


def test_an_index_that_was_not_finished_is_none(tmp_path: Path, monkeypatch) -> None:
    """Arrays of one run under the names of another would name wrong images."""
    source, out = tmp_path / "images", tmp_path / "index"
    testing.write_images(source, testing.phantom_images(6))
    settings = ds.DuplicateSettings(size=64)
    ds.index(source, out=out, settings=settings)
    (source / "p0000.png").unlink()
    whole = Workspace.write

    def stopped(self, name, *args, **kwargs):
        if name == "pixels.npy":
            raise KeyboardInterrupt
        return whole(self, name, *args, **kwargs)

    monkeypatch.setattr(Workspace, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        ds.index(source, out=out, settings=settings)
    with pytest.raises(InputError, match="not finished"):
        ds.open_index(out)
    monkeypatch.undo()
    assert ds.index(source, out=out, settings=settings).image_ids[0] == "p0001.png"


def test_a_changed_index_is_refused(indexed, tmp_path: Path, capsys) -> None:
    _, root = indexed
    copy = tmp_path / "index"
    shutil.copytree(root / "index", copy)
    array = np.load(copy / "pixels.npy")
    array[0, 0, 0] += 1
    np.save(copy / "pixels.npy", array)
    with pytest.raises(InputError, match=r"array pixels is missing, damaged or was changed"):
        ds.open_index(copy, check=True)
    assert main(["lookup", str(root / "in" / "p1_0.png"), f"--index={copy}", "--check"]) == 2
    assert "'index': the file of its array pixels is missing" in capsys.readouterr().err
    (copy / "pixels.npy").write_bytes((copy / "pixels.npy").read_bytes()[:500])
    with pytest.raises(InputError, match=r"array pixels is missing, damaged or was changed"):
        ds.open_index(copy)
    (tmp_path / "empty").mkdir()
    assert main(["lookup", str(tmp_path / "empty"), f"--index={root / 'index'}"]) == 2
    assert "deepssim lookup: IMAGE: the folder holds no image" in capsys.readouterr().err


def test_a_changed_listing_is_refused_in_one_line(indexed, tmp_path: Path) -> None:
    """By its hash where one is kept, and without one by what it holds."""
    copy = tmp_path / "index"
    shutil.copytree(indexed[1] / "index", copy)
    whole = (copy / "index.json").read_text()
    listing = json.loads(whole)
    (copy / "index.json").write_text(json.dumps(listing | {"images": listing["images"][::-1]}))
    with pytest.raises(InputError, match="'index': its index.json is damaged or was changed; run"):
        ds.open_index(copy)
    shutil.rmtree(copy / "work")
    (copy / "index.json").write_text(json.dumps(listing | {"version": 0}))
    with pytest.raises(InputError, match="has the form 0"):
        ds.open_index(copy)
    for text in (
        whole[:-100],
        "[]",
        json.dumps({name: x for name, x in listing.items() if name != "subjects"}),
        json.dumps(listing | {"images": 3}),
        json.dumps(listing | {"images": listing["images"][1:]}),
        json.dumps(listing | {"rule": listing["rule"] | {"evidence": "x"}}),
        json.dumps(listing | {"files": listing["files"] | {"../../x.npy": "0" * 64}}),
        json.dumps(listing | {"settings": listing["settings"] | {"size": "large"}}),
    ):
        (copy / "index.json").write_text(text)
        with pytest.raises(InputError, match="index.json is damaged or was changed"):
            ds.open_index(copy)
    (copy / "index.json").write_text(whole)
    assert len(ds.open_index(copy)) == len(indexed[0])
    shutil.copyfile(copy / "few_axes.npy", copy / "pixels.npy")
    with pytest.raises(InputError, match="its array pixels is missing, damaged or was changed"):
        ds.open_index(copy)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.ones((64, 64, 3)), "one grey image"),
        (np.ones((0, 5)), "one grey image"),
        (np.full((64, 64), np.nan), "NaN"),
        (np.array([["a", "b"]]), "must be real"),
    ],
)
def test_an_array_that_is_no_image_is_refused(indexed, image: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ds.lookup(image, index=indexed[0])


def test_a_constant_array_is_refused_as_a_file_is(indexed) -> None:
    (answer,) = ds.lookup(np.ones((64, 64)), index=indexed[0])
    assert "constant" in str(answer.refused)
