"""An audit of folders that grow and shrink: only what is new is looked at, and nothing that left stays."""

import csv
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from deepssim_jax.audit.audit import AuditSettings, audit
from deepssim_jax.audit.recheck import recheck
from deepssim_jax.audit.result import AuditResult
from deepssim_jax.data.records import Record
from deepssim_jax.data.store import InputSettings, load_one
from deepssim_jax.scoring import match
from deepssim_jax.scoring.retrieval import Retrieval
from deepssim_jax.testing import assert_same_outputs
from deepssim_jax.workspace import Workspace
from tests.kept import share_secret

SETTINGS = AuditSettings(size=64, plant=0)
SIDE = 64


def picture(seed: int) -> np.ndarray:
    """Texture of every size, uint8."""
    noise = np.random.default_rng(seed).normal(size=(SIDE, SIDE))
    parts = [s * ndimage.gaussian_filter(noise, s) for s in (1, 2, 4, 8)]
    image = np.sum(parts, 0)
    return ((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)


def write(folder: Path, names: dict[str, int]) -> None:
    folder.mkdir(exist_ok=True)
    for name, seed in names.items():
        Image.fromarray(picture(seed)).save(folder / name)


@pytest.fixture
def looked_at(monkeypatch) -> list[int]:
    """Queries of each call of the search."""
    counts: list[int] = []
    verified = match.verified

    def counted(part, *args, **how):
        counts.append(len(part))
        return verified(part, *args, **how)

    monkeypatch.setattr(match, "verified", counted)
    return counts


def test_a_run_after_changes_looks_at_what_is_new(tmp_path: Path, looked_at: list[int]) -> None:
    real, synthetic, out, fresh = (tmp_path / n for n in ("real", "synthetic", "out", "fresh"))
    write(real, {f"r{i:02d}.png": i for i in range(12)})
    write(synthetic, {f"s{i}.png": 100 + i for i in range(6)} | {"copy.png": 3})
    for folder in (out, fresh):
        share_secret(folder, command="audit")
    audit(real, synthetic, out=out, settings=SETTINGS)
    whole = sum(looked_at)
    looked_at.clear()

    write(synthetic, {"a.png": 201, "z.png": 202, "s2.png": 203})  # two new ones, one changed
    (synthetic / "s4.png").unlink()
    audit(real, synthetic, out=out, settings=SETTINGS)
    assert sum(looked_at) == 3 < whole
    looked_at.clear()
    audit(real, synthetic, out=fresh, settings=SETTINGS)
    assert_same_outputs(out, fresh)
    looked_at.clear()


@pytest.mark.slow
def test_a_run_with_another_real_image_is_a_run_from_nothing(tmp_path: Path) -> None:
    real, synthetic, out, fresh = (tmp_path / n for n in ("real", "synthetic", "out", "fresh"))
    write(real, {f"r{i:02d}.png": i for i in range(12)})
    write(synthetic, {f"s{i}.png": 100 + i for i in range(6)} | {"copy.png": 3})
    for folder in (out, fresh):
        share_secret(folder, command="audit")
    audit(real, synthetic, out=out, settings=SETTINGS)
    write(real, {"r90.png": 90})
    for folder in (out, fresh):
        audit(real, synthetic, out=folder, settings=SETTINGS)
    assert_same_outputs(out, fresh)


def everything(folder: Path) -> bytes:
    """Names and bytes of all files, one after the other."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return b"\0".join(str(p.relative_to(folder)).encode() + b"\0" + p.read_bytes() for p in paths)


def test_of_a_patient_who_is_forgotten_nothing_stays(tmp_path: Path) -> None:
    real, synthetic, out = (tmp_path / n for n in ("real", "synthetic", "out"))
    names = {f"P{i:02d}q_{k}.png": 10 * i + k for i in range(6) for k in range(2)}
    write(real, names)
    (real / "readme.txt").write_text("a stray file")
    write(synthetic, {f"s{i}.png": 300 + i for i in range(4)})
    Image.fromarray(picture(51)[:, ::-1] // 2).save(synthetic / "copy.png")  # of P05q_1
    settings = dataclasses.replace(
        SETTINGS, subject_regex=r"^(P\d+q)_", retrieval=Retrieval.ENCODER
    )
    audit(real, synthetic, out=out, settings=settings)
    paths = [real / f"P05q_{k}.png" for k in (0, 1)]
    pixels = [load_one(Record(path.name, path), InputSettings(size=(64, 64))) for path in paths]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest().encode() for path in paths]
    traces = [b"P05q", *digests, *(image[32].tobytes() for image in pixels)]
    with Workspace.open(out, command="audit") as workspace:
        workspace.write("review.html", b"a page with P05q")  # as `deepssim review` does
    before = everything(out)
    assert all(trace in before for trace in traces)

    found = audit(
        real, synthetic, out=out, settings=dataclasses.replace(settings, forget=("P05q",))
    )
    after = everything(out)
    assert not [trace for trace in traces if trace in after]
    assert len(found.nearest) == 5
    assert recheck(out).problems == ()
    counts = json.loads((out / "summary.json").read_text())["counts"]
    parts = ("real", "unreadable_real", "not_images_real", "left_out_real")
    assert [counts[part] for part in parts] == [10, 0, 1, 2]
    assert counts["files_found_real"] == 13
    with (out / "inputs.csv").open(newline="") as file:
        status = [row["status"] for row in csv.DictReader(file) if row["role"] == "real"]
    assert status.count("no image") == status.count("left out") == 1


def stayed(out: Path) -> list[tuple[str, str]]:
    """Image and side of the copies that stay."""
    with (out / "copies_that_stay.csv").open(newline="") as file:
        return [(row["image_id"], row["role"]) for row in csv.DictReader(file)]


def audited(root: Path, out: Path, *forget: str) -> AuditResult:
    settings = dataclasses.replace(SETTINGS, subject_regex=r"^(P\d+q)_", forget=forget)
    return audit(root / "real", root / "synthetic", out=out, settings=settings)


def write_page(out: Path) -> None:
    """As `deepssim review` does."""
    with Workspace.open(out, command="audit") as workspace:
        workspace.write("review.html", b"a page")


def test_who_was_forgotten_stays_so_and_copies_are_listed(tmp_path: Path) -> None:
    """P05q has a double under P00q and a synthetic copy."""
    names = {f"P{i:02d}q_{k}.png": 10 * i + k for i in range(6) for k in range(2)}
    write(tmp_path / "real", names | {"P00q_9.png": 51})
    write(tmp_path / "synthetic", {f"s{i}.png": 300 + i for i in range(4)} | {"copy.png": 51})
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    for folder in (out, fresh):
        share_secret(folder, command="audit")
    audited(tmp_path, out)
    write_page(out)
    found = audited(tmp_path, out, "P05q")
    assert stayed(out) == [("P00q_9.png", "real"), ("copy.png", "synthetic")]
    notes = [note for note in found.notes if "copies_that_stay.csv" in note]
    assert [note.partition(":")[0] for note in notes] == [
        "Of the real side",
        "Of the synthetic side",
    ]
    assert "copies_that_stay" not in (out / "report_share.html").read_text()
    assert not (out / "review.html").exists()

    write_page(out)
    audited(tmp_path, out)
    assert stayed(out) == [("P00q_9.png", "real"), ("copy.png", "synthetic")]
    assert (out / "review.html").exists()

    found = audited(tmp_path, out, "P00q", "copy.png")
    assert "2 of them were left out because an earlier run" in found.notes[-1]
    assert not {"review.html", "copies_that_stay.csv"} & {path.name for path in out.iterdir()}
    assert not [name for name in (b"P05q", b"P00q", b"copy.png") if name in everything(out)]
    assert recheck(out).problems == ()
    audited(tmp_path, fresh, "P00q", "P05q", "copy.png")
    assert_same_outputs(out, fresh)
