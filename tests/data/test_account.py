"""Every file of a source is counted wherever images are read: read, not read and why, or no image."""

from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.cli import generator_training
from deepssim_jax.data.account import Account
from deepssim_jax.data.kinds import read_kind
from deepssim_jax.data.manifest import Role
from deepssim_jax.data.records import FileCounts, Rejected
from deepssim_jax.training.generator import Trained
from tests.kept import open_images, write_png

BOTH = (Role.REAL, Role.SYNTHETIC)


def noise(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        write_png(folder / name, np.random.default_rng(number).uniform(size=(64, 64)))
    return folder


def damaged(folder: Path) -> Path:
    """Six images, of which two are cut short and one is flat, a text, and a link that leads nowhere."""
    noise(folder, [f"{i}.png" for i in range(5)])
    for name in ("1.png", "3.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:900])
    write_png(folder / "flat.png", np.zeros((64, 64)))
    (folder / "notes.txt").write_text("no image")
    (folder / "gone.png").symlink_to("nowhere")
    return folder


def test_an_account_adds_up_and_names_no_file_but_in_its_listing(tmp_path: Path) -> None:
    source = damaged(tmp_path / "in")
    accounts = [
        open_images(source, tmp_path / "w", size=(32, 32)).account,
        read_kind(source, name="k", side=64).account,
    ]
    for account in accounts:
        said = account.figures()
        assert said["files_found"] == 8 and said["images_read"] == 3
        assert said["not_read"] == 4 == sum(account.reasons.values())
        assert said["not_images"] == 1
        assert "flat.png" not in str(said) + str(account.rows("side"))
        named = {name for name, _ in account.listed()["files"]}
        assert named == {"1.png", "3.png", "flat.png", "gone.png", "notes.txt"}
    screen = dict(accounts[0].rows("real"))
    assert (screen["real, files found"], screen["real, not read"]) == (8, 4)
    assert screen["  a link that points nowhere or to itself"] == 1


def test_both_roles_of_a_folder_count_each_file_once(tmp_path: Path) -> None:
    names = [f"u{i}/{name}.png" for i in range(3) for name in ("training", "gen-0", "gen-1")]
    layout = noise(tmp_path / "layout", [*names, "stray.png"])
    (layout / "u0" / "gen-1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = open_images(layout, tmp_path / "a", size=(32, 32), roles=BOTH)
    assert found.account.figures() | {"reasons": {}} == {
        "files_found": 10, "images_read": 8, "not_read": 2, "reasons": {}, "not_images": 0,
    }  # fmt: skip
    flat = noise(tmp_path / "flat", ["a.png", "b.png"])
    found = open_images(flat, tmp_path / "b", size=(32, 32), roles=BOTH)
    assert found.image_ids == ("a.png", "b.png") and found.account.files.found == 2


def test_many_reasons_are_shortened_on_the_screen_alone() -> None:
    refused = tuple(Rejected(f"{i}.png", f"reason {i // 2}") for i in range(20))
    account = Account(FileCounts(20, 0, 20, 0), 0, refused)
    assert len(account.reasons) == 10 and account.rows()[-2] == ("  other reasons", 10)


def test_a_training_of_a_generator_says_what_it_did_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    account = Account(FileCounts(24, 24), 20, tuple(Rejected(f"p{i}", "is cut") for i in range(4)))

    def train(config: object, workdir: Path, **_: object) -> Trained:
        return Trained(workdir / "a.safetensors", 17, {}, account)

    generator_training.run(train, None, str(tmp_path), at_once=1)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    shown = {" ".join(line[:-1]): line[-1] for line in lines if line}
    assert shown["files found"] == "24" and shown["images read"] == "20"
    assert shown["not read"] == "4" == shown["is cut"]
    assert shown["images learned from"] == "17" and shown["images held out"] == "3"
