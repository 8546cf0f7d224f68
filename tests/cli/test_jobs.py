"""The commands as a user runs them, on folders with bad files in them; the audit in a process of its own."""

import csv
import functools
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from deepssim_jax import testing
from deepssim_jax.audit import calibration
from deepssim_jax.audit.audit_settings import AuditSettings
from deepssim_jax.audit.demo import CohortSize, demo
from deepssim_jax.data import anatomy as anatomies
from deepssim_jax.workspace import MARKER
from tests.audit import planted
from tests.data.test_readers import bomb, png_header
from tests.kept import deepssim, write_phantoms

PATIENT = "Mustermann"
NAMES = ("quote'\"s.png", "new\nline.png", "<script>alert(1)</script>", "a..\\..\\up.png")


def in_a_process(*arguments: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command as a terminal does and returns what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "deepssim_jax", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **how,
    )


def add_bad_files(real: Path, synthetic: Path) -> dict[str, str]:
    """Adds what people's folders hold: {name on the synthetic side: words of its reason}."""
    whole = sorted(synthetic.glob("other_*"))[0]
    contents = {
        "truncated.png": (whole.read_bytes()[:-9000], "truncated"),
        "text.png": (b"this is no picture\n", "no PNG"),
        "empty.png": (b"", "0 bytes"),
        "huge.png": (png_header(60_000, 60_000), "100,000,000"),
    }
    reasons = {}
    for name, (data, words) in contents.items():
        (synthetic / name).write_bytes(data)
        reasons[name] = words
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(synthetic / "black.png")
    np.save(synthetic / "nan.npy", np.full((32, 32), np.nan))
    bomb(synthetic, declared=100, zeros=60_000_000)
    reasons |= {
        "black.png": "constant",
        "nan.npy": "not finite",
        "bomb.nii.gz": "inflates to more",
    }
    # Hostile names on readable images.
    (synthetic / "<script>alert(1)<").mkdir()
    for name in (*NAMES[:2], f"{NAMES[2].replace('/', '_')}.png", NAMES[3]):
        shutil.copy(whole, synthetic / name)
    (synthetic / "loop").symlink_to(synthetic, target_is_directory=True)
    reasons["loop"] = "link"
    (real / f"00000000_{PATIENT}.png").write_bytes(gzip.compress(b"no picture"))
    return reasons


@pytest.fixture(scope="module")
def folders(tmp_path_factory, data_dir: Path) -> tuple[Path, dict[str, str], dict[str, str]]:
    root = tmp_path_factory.mktemp("jobs")
    truth = planted.write_films(data_dir / "cxr", root, real=40, copies=8, others=12, seed=9)
    for name in (MARKER, "1.png", "2.png"):  # as `generate` leaves it
        (root / "synthetic" / "run1").mkdir(exist_ok=True)
        (root / "synthetic" / "run1" / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    return root, truth, add_bad_files(root / "real", root / "synthetic")


@pytest.fixture(scope="module")
def audited(folders) -> tuple[Path, subprocess.CompletedProcess]:
    root, _, _ = folders
    run = in_a_process(
        "audit",
        f"--real={root / 'real'}",
        f"--synthetic={root / 'synthetic'}",
        "--subject_regex=^([0-9]+)_",
        f"--out={root / 'out'}",
        "--plant=8",
        # The programs that audits in this process have compiled.
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(jax.device_count())},
    )
    return root / "out", run


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_audit_goes_on_past_every_bad_file(folders, audited) -> None:
    _, truth, reasons = folders
    out, run = audited
    assert run.returncode == 0, run.stderr
    rows = {r["image_id"]: r for r in table(out / "inputs.csv") if r["status"] == "excluded"}
    for name, words in reasons.items():
        assert words in rows[name]["reason"], name
    assert len(rows) == len(reasons) + 1
    summary = json.loads((out / "summary.json").read_text())
    assert summary["counts"]["unreadable_real"] == 1
    assert summary["counts"]["unreadable_synthetic"] == len(reasons)
    assert "cannot be detected" in (out / "report.html").read_text()
    read = {r["synthetic_id"]: r for r in table(out / "nearest.csv")}
    assert {name for name in read if name in truth} == truth.keys()
    assert {n for n, r in read.items() if r["label"] != "unrelated"} == truth.keys()


def test_what_was_passed_over_is_said_on_the_terminal_and_counted_inside_alone(audited) -> None:
    out, run = audited
    said = (
        "Of the synthetic side: 3 files were passed over: output of an earlier run (3); 2 of them are of an "
        "image format in output of an earlier run: to include such a folder, give it itself."
    )
    assert said in " ".join(run.stdout.split())
    shared = (out / "report_share.html").read_text()
    assert said in (out / "report.html").read_text() and said not in shared
    assert "Some files of the synthetic side were passed over." in shared
    assert "output of an earlier run" not in shared
    reasons = [row["reason"] for row in table(out / "inputs.csv") if row["image_id"] == "run1/"]
    assert len(reasons) == 1 and "give this folder itself" in reasons[0]


def test_hostile_names_come_through_whole_and_harmless(audited) -> None:
    out, _ = audited
    ids = {r["synthetic_id"] for r in table(out / "nearest.csv")}
    assert {NAMES[0], NAMES[1], NAMES[3]} <= ids
    for name in ("report.html", "report_share.html"):
        assert "<script" not in (out / name).read_text()
    assert not (out.parent.parent / "up.png").exists()


def test_nothing_printed_and_nothing_shared_names_a_patient(audited) -> None:
    out, run = audited
    shared = (out / "report_share.html").read_text()
    for text in (run.stdout, run.stderr, shared):
        assert PATIENT not in text and "copy_00" not in text and "other_" not in text


def test_verify_finds_the_audit_whole_and_then_not(folders, audited, tmp_path: Path) -> None:
    root, truth, _ = folders
    out, _ = audited
    good = deepssim("verify", out)
    assert good.returncode == 0, good.stderr
    victim = root / "real" / sorted(truth.values())[0]
    before = victim.read_bytes()
    try:
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(victim)
        changed = deepssim("verify", out)
    finally:
        victim.write_bytes(before)
    assert changed.returncode == 1
    assert "was changed" in changed.stderr and victim.name not in changed.stderr


def test_a_policy_and_a_missing_verdict_have_their_status(folders, audited, tmp_path: Path) -> None:
    root, _, _ = folders
    out, _ = audited
    common = [f"--real={root / 'real'}", "--subject_regex=^([0-9]+)_"]
    policy = deepssim(
        "audit",
        *common,
        f"--synthetic={root / 'synthetic'}",
        f"--out={out}",
        "--plant=8",
        "--max_copy_rate=0.01",
    )
    assert policy.returncode == 3, policy.stderr
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    films = sorted((root / "real").glob("[0-9]*_0*"))
    shutil.copy(films[0], tmp_path / "one")
    shutil.copy(films[-1], tmp_path / "two")
    few = deepssim(
        "audit",
        f"--real={tmp_path / 'one'}",
        f"--synthetic={tmp_path / 'two'}",
        f"--out={tmp_path / 'few'}",
        "--plant=0",
    )
    assert few.returncode == 4, few.stderr
    assert "inconclusive" in few.stdout.lower()


def test_folders_that_cannot_work_stop_with_two(folders, tmp_path: Path) -> None:
    root, _, _ = folders
    (tmp_path / "empty").mkdir()
    real = root / "real"
    for synthetic, words, *more in (
        (tmp_path / "empty", "holds no image"),
        (tmp_path / "missing", "no such folder"),
        (real, "--allow_same"),
        (root / "synthetic", "--model: 'real' holds no denoiser", f"--model={real}"),
    ):
        run = deepssim(
            "audit",
            f"--real={real}",
            f"--synthetic={synthetic}",
            f"--out={tmp_path / 'out'}",
            *more,
        )
        assert run.returncode == 2
        assert words in run.stderr and "Traceback" not in run.stderr


def test_a_store_grows_and_is_not_replaced_by_that_of_another_set(tmp_path: Path) -> None:
    images = testing.phantom_images(7)
    testing.write_images(tmp_path / "in", images[:3])
    testing.write_images(tmp_path / "other", images[4:])

    def embed(source: str, *more: str, out: str = "store"):
        return deepssim("embed", f"--images={tmp_path}/{source}", f"--out={tmp_path}/{out}", *more)

    assert "added" not in embed("in", "--size=64").stdout
    testing.write_images(tmp_path / "in", {"more": images[3]})
    (tmp_path / "in" / "p0000.png").unlink()
    said = embed("in", "--size=64").stdout
    assert re.search(r"images added +1\n", said) and re.search(r"images gone .* +1\n", said)
    refused = embed("other", "--size=64")
    assert refused.returncode == 2 and "--out='store' is of 3 other images" in refused.stderr
    assert embed("other", "--size=96", out="large").returncode == 0
    run = deepssim(
        *("score", f"--real={tmp_path}/store", f"--synthetic={tmp_path}/large"),
        f"--out={tmp_path}/scores",
    )
    assert run.returncode == 2
    assert "64 pixels a side and --synthetic of 96" in run.stderr and "--size" in run.stderr


def test_embed_and_score_give_the_candidates_of_the_audit(folders, audited, tmp_path: Path) -> None:
    root, truth, reasons = folders
    out, _ = audited
    for role in ("real", "synthetic"):
        run = deepssim(
            "embed", f"--images={root / role}", f"--role={role}", f"--out={tmp_path / role}"
        )
        assert run.returncode == 0, run.stderr
        assert "other_" not in run.stdout + run.stderr
    # Of the last, the synthetic side: why images are not read is said beside how many.
    assert re.search(r"\n  declares more pixels than the limit of 100,000,000 +1\n", run.stdout)
    assert "other reasons" in run.stdout
    listed = {r["image_id"] for r in table(tmp_path / "synthetic" / "not_read.csv")}
    assert listed == reasons.keys() | {"run1/"}
    run = deepssim(
        "score",
        f"--real={tmp_path / 'real'}",
        f"--synthetic={tmp_path / 'synthetic'}",
        f"--out={tmp_path / 'scores'}",
    )
    assert run.returncode == 0, run.stderr
    assert re.search(rf"synthetic, not read by embed +{len(reasons)}\n", run.stdout)
    best: dict[str, dict[str, str]] = {}
    for row in table(tmp_path / "scores" / "candidates.csv"):
        best.setdefault(row["synthetic_id"], row)
    # The audit has local features beside the search of `score`, which place some copies better.
    nearest = {r["synthetic_id"]: r for r in table(out / "nearest.csv")}
    assert best.keys() == nearest.keys()
    searched = {name: row for name, row in nearest.items() if row["found_by"] == "search"}
    assert len(searched) > len(nearest) / 2
    # `score` has no local features and searches a grid of transformations instead: of images without an
    # original it mostly looks at another pair first. A pair that both looked at has one score.
    same = {name for name, row in searched.items() if best[name]["real_id"] == row["real_id"]}
    assert truth.keys() & searched.keys() <= same
    scores = {
        (row["synthetic_id"], row["real_id"]): row["verified"]
        for row in table(tmp_path / "scores" / "candidates.csv")
    }
    seen = {name: scores.get((name, row["real_id"])) for name, row in searched.items()}
    both = {name: score for name, score in seen.items() if score is not None}
    assert len(both) > len(searched) / 3
    assert both == {name: searched[name]["verified_score"] for name in both}


def test_a_small_demo_without_the_atlas(tmp_path: Path, monkeypatch) -> None:
    """Whose audit finds what was planted and nothing else."""
    monkeypatch.setattr(anatomies, "load_anatomy", anatomies.procedural)
    few = functools.partial(AuditSettings, size=64, plant=8)
    monkeypatch.setattr(sys.modules[demo.__module__], "AuditSettings", few)
    size = CohortSize(real=30, holdout=10, copies=6, unrelated=8)
    found = demo(tmp_path, size=size)
    assert (found.planted, found.found, found.false, found.anatomy) == (6, 6, 0, "procedural")
    assert (tmp_path / "audit" / "report.html").is_file()
    assert demo(tmp_path, size=size).found == 6  # the cohort is not made again


@pytest.mark.slow
def test_the_demo_without_the_atlas(tmp_path: Path) -> None:
    """The procedural head serves where the phantom extra is missing; every copy is found."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "f = u.find_spec\n"
        "u.find_spec = lambda n, p=None: None if n == 'nilearn' else f(n, p)\n"
    )
    path = os.pathsep.join([str(blocked), os.environ["PYTHONPATH"]])
    run = in_a_process("demo", f"--out={tmp_path / 'demo'}", env=os.environ | {"PYTHONPATH": path})
    assert run.returncode == 0, run.stdout + run.stderr
    assert "procedural" in run.stdout and "30 of 30" in run.stdout and "0 of 90" in run.stdout


FILES = ("files found", "images read", "not read", "files that are no image")


def test_a_filtered_folder_is_certified_and_checked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(calibration, "PLANTED", 24)
    write_phantoms(tmp_path / "training", 6, size=(64, 64), seed=5)
    shutil.copytree(tmp_path / "training", tmp_path / "made")
    (tmp_path / "made" / "notes.txt").write_text("no image")
    (tmp_path / "made" / "gone.png").symlink_to("nowhere")
    broken = tmp_path / "made" / "p0003_t1.png"
    broken.write_bytes(broken.read_bytes()[:200])
    share, options = tmp_path / "share", ("--size=64", "--subject_regex=^(p[0-9]+)_")
    filtered = deepssim(
        "filter",
        f"--real={tmp_path / 'training'}",
        f"--synthetic={tmp_path / 'made'}",
        f"--out={share}",
        *options,
    )
    assert filtered.returncode == 0, filtered.stderr
    lines = [line.rsplit(maxsplit=1) for line in filtered.stdout.splitlines() if line]
    said = {line[0].strip(): line[1] for line in lines if len(line) == 2}
    assert [said[f"synthetic, {what}"] for what in FILES] == ["8", "5", "2", "1"]
    assert "images accepted" in filtered.stdout and not list(share.glob("*.png"))
    assert not (share / "work").exists() and (tmp_path / "share.work").is_dir()
    shutil.copy(tmp_path / "made" / "p0000_t1.png", share / "p0000_t1.png")
    slipped = deepssim("verify", share, f"--real={tmp_path / 'training'}", options[1])
    assert slipped.returncode == 1 and "no one has judged" in slipped.stderr
