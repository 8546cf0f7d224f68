"""`deepssim stress` on lists of changes: several kinds, named methods, wrong flags."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from deepssim_jax.cli.main import main


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    rng = np.random.default_rng(3)
    folders = tuple(tmp_path_factory.mktemp("kinds") / name for name in ("films", "knees"))
    for folder in folders:
        folder.mkdir()
        for patient in range(8):
            noise = ndimage.gaussian_filter(rng.standard_normal((64, 80)), 3)
            grey = (noise - noise.min()) / np.ptp(noise) * 255
            Image.fromarray(grey.astype(np.uint8)).save(folder / f"{patient}_0.png")
    return folders


def command(kinds: tuple[Path, ...], out: Path, *more: str) -> list[str]:
    given = [f"--real={folder}" for folder in kinds]
    return ["stress", *given, f"--out={out}", "--size=64", "--subject_regex=^([0-9]+)_", *more]


def test_the_table_has_a_row_an_edit_and_a_column_a_kind(kinds, tmp_path: Path, capsys) -> None:
    more = ("--setting=edits", "--methods=ncc,phash", "--groups=identity,jpeg", "--copies=3")
    assert main(command(kinds, tmp_path, *more)) == 0
    shown = capsys.readouterr().out
    assert "| edit | films | knees | all kinds |" in shown and "| JPEG 5 |" in shown
    assert "edits, all kinds, ncc, all edits" in shown
    table = (tmp_path / "edits.md").read_text()
    assert table.count("## ") == 2 and "| identity | 3/3 = 100.0" in table


def test_published_settings_are_known_by_name(kinds, tmp_path: Path, capsys) -> None:
    more = ("--setting=mi_oni", "--setting=lcmem", "--methods=ncc", "--groups=noise", "--copies=2")
    assert main(command(kinds[:1], tmp_path, *more)) == 0
    assert "accuracy" in (tmp_path / "lcmem.md").read_text()
    assert "| noise 0.02 | 1.000 (" in (tmp_path / "mi_oni.md").read_text()
    assert (tmp_path / "mi_oni_queries.csv").exists()


def test_pairs_of_each_kind_have_a_folder_of_their_own(kinds, tmp_path: Path, capsys) -> None:
    more = ("--setting=registered", "--methods=ncc", "--rounds=1")
    assert main(command(kinds, tmp_path, *more)) == 0
    for name in ("films", "knees"):
        assert "| registered | ncc |" in (tmp_path / name / "results.md").read_text()
    shown = capsys.readouterr().out
    assert "films, registered, ncc" in shown and "knees, registered, ncc" in shown


def test_kinds_of_one_name_and_results_of_another_run_are_told_apart(
    kinds, tmp_path: Path, capsys
) -> None:
    """Both paths are the same words; and the table of a former run is of none of these images."""
    alike = (tmp_path / "b_c" / "k", tmp_path / "b" / "c" / "k")
    for folder, kind in zip(alike, kinds, strict=True):
        shutil.copytree(kind, folder)
    out = tmp_path / "out"
    lists = ("--setting=edits", "--methods=phash", "--groups=identity", "--copies=1")
    assert main(command(kinds[:1], out, *lists)) == 0
    assert json.loads((out / "edits_inputs.json").read_text())["films"]["files_found"] > 0
    (out / "mine.md").write_text("not of the program")
    assert main(command(alike, out, "--setting=registered", "--methods=ncc", "--rounds=1")) == 0
    assert len(list(out.glob("*/results.md"))) == 2
    assert not list(out.glob("edits*")) and (out / "mine.md").is_file()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--setting=edits", "--methods=cascade"), "--methods='cascade' must be detector or"),
        (("--setting=edits", "--setting=harsh", "--methods=cascade"), "none for --setting=edits"),
        (("--setting=edits", "--groups=turns"), "--groups='turns' must be identity or"),
        (("--setting=mi_oni", "--groups=part", "--methods=ncc"), "--setting=mi_oni has none"),
    ],
)
def test_wrong_flags_say_what_may_stand_there(kinds, tmp_path: Path, capsys, more, words) -> None:
    assert main(command(kinds[:1], tmp_path, *more)) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--efficientnet=x"], ["--sscd", "x", "--efficientnet=x"]])
def test_a_retired_flag_warns_and_changes_nothing(kinds, tmp_path: Path, capsys, given) -> None:
    more = ("--setting=edits", "--methods=phash", "--groups=identity", "--copies=1")
    assert main(command(kinds, tmp_path, *given, *more)) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "is retired" in line]
    assert [line.split()[2] for line in warned] == [
        arg.split("=")[0] for arg in given if arg[0] == "-"
    ]
    assert "benchmarks/generic_embeddings.py" in warned[0]


def test_another_commands_flag_is_not_taken(kinds, tmp_path: Path, capsys) -> None:
    assert main(["audit", "--real=x", "--synthetic=y", f"--out={tmp_path}", "--sscd=z"]) == 2
    assert "sscd" in capsys.readouterr().err


def test_a_kind_is_given_once(kinds, tmp_path: Path, capsys) -> None:
    assert main(command((kinds[0], kinds[0]), tmp_path / "out", "--setting=edits")) == 2
    assert "--real names 1 of its folders twice" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
