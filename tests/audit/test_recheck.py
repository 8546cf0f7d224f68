"""Nothing of a finished audit can be altered without `verify` saying so."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepssim_jax.audit.audit import AuditSettings, audit
from deepssim_jax.audit.recheck import recheck
from deepssim_jax.cli.main import main
from deepssim_jax.data.manifest import InputError
from deepssim_jax.nn.encoder import save_encoder
from deepssim_jax.scoring.retrieval import Retrieval
from tests.kept import small_encoder, write_phantoms

# What is checked here does not depend on what is found.
SETTINGS = AuditSettings(size=64, plant=0, retrieval=Retrieval.ENCODER)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """12 real images; 6 synthetic ones, of which two are mirrored real ones and one is a mere gradient; one
    broken file a side.
    """
    root = tmp_path_factory.mktemp("finished")
    write_phantoms(root / "all", 15, size=(64, 64), seed=7)
    for number, path in enumerate(sorted((root / "all").glob("*.png"))):
        side = "real" if number < 12 else "synthetic"
        (root / side).mkdir(exist_ok=True)
        shutil.copy(path, root / side / path.name)
    for path in sorted((root / "real").glob("*.png"))[:2]:
        Image.fromarray(np.asarray(Image.open(path))[:, ::-1]).save(
            root / "synthetic" / f"c{path.name}"
        )
    gradient = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Image.fromarray(gradient).save(root / "synthetic" / "gradient.png")
    for side in ("real", "synthetic"):
        (root / side / "broken.png").write_bytes(b"broken")
    audit(root / "real", root / "synthetic", out=root / "out", settings=SETTINGS)
    return root


def summary(out: Path, change: Callable[[dict], object]) -> None:
    """Changes the summary, but not the hash of it in the kept work."""
    said = json.loads((out / "summary.json").read_text())
    change(said)
    text = json.dumps(said, indent=2, sort_keys=True) + "\n"
    (out / "summary.json").write_text(text)


def test_an_untouched_audit_has_no_problem(finished: Path) -> None:
    found = recheck(finished / "out")
    assert found.problems == () and found.files == 7 and found.inputs == 18 and found.pairs >= 2


def test_what_was_not_compared_is_in_no_class(finished: Path) -> None:
    said = json.loads((finished / "out" / "summary.json").read_text())
    assert said["counts"]["not_comparable_synthetic"] == 1
    assert sum(said["classes"].values()) == said["copy_rate"]["total"] == 5
    with (finished / "out" / "nearest.csv").open(newline="") as file:
        rows = {row["synthetic_id"]: row for row in csv.DictReader(file)}
    row = rows["gradient.png"]
    assert (row["label"], row["relation"]) == ("unrelated", "not_comparable")
    assert sum(r["relation"] == "not_comparable" for r in rows.values()) == 1


def test_what_the_encoder_saw_is_shown_where_it_is_asked_for(
    finished: Path, tmp_path: Path
) -> None:
    encoder = tmp_path / "encoder.safetensors"
    save_encoder(encoder, small_encoder(), card={})
    settings = dataclasses.replace(SETTINGS, encoder=str(encoder), explain=True)
    audit(finished / "real", finished / "synthetic", out=tmp_path / "out", settings=settings)
    report = (tmp_path / "out" / "report.html").read_text()
    shown = report.count('alt="real image"')
    assert report.count("what stage 4 of the encoder saw") == shown >= 2
    assert "of the encoder saw" not in (finished / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.update(verdict="none_found_within_limits"), "the verdict"),
        (lambda s: s.update(reasons=[]), "reasons"),
        (lambda s: s["counts"].update(synthetic=7), "synthetic images: 7 said, 6 found"),
        (
            lambda s: s["counts"].update(not_comparable_synthetic=0),
            "synthetic images that are not comparable: 0 said, 1 found",
        ),
        (
            lambda s: s["counts"].update(unreadable_real=0),
            "unreadable real images: 0 said, 1 found",
        ),
        (lambda s: s["classes"].update(unrelated=5), "images of each class"),
        (lambda s: s["copy_rate"].update(count=0, value=0.0), "the rate of copies"),
        (lambda s: s["subjects"].update(exposed=0), "patients exposed: 0 said, 2 found"),
        (lambda s: s["subjects"].update(total=13), "patients: 13 said, 12 found"),
        (lambda s: s["thresholds"].update(null_max=0.1), "was changed"),
        (lambda s: s.update(files={}), "file nearest.csv: summary.json says no hash of it"),
    ],
)
def test_an_altered_summary_is_a_problem(
    finished: Path, change: Callable[[dict], object], words: str, tmp_path: Path, capsys
) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    summary(tmp_path / "out", change)
    assert main(["verify", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().err
    assert words in shown
    if words != "was changed" and "hash" not in words:
        assert "summary.json: was changed" in shown


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"files": []}', '{"files": {}, "counts": 3}'])
def test_a_damaged_summary_is_named_in_one_line(
    finished: Path, text: str, tmp_path: Path, capsys
) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    (tmp_path / "out" / "summary.json").write_text(text)
    status = main(["verify", str(tmp_path / "out")])
    shown = capsys.readouterr().err
    assert "summary.json" in shown and "KeyError" not in shown and status in (1, 2)
    if "counts" not in text:
        assert status == 2 and shown.count("\n") == 1 and "summary.json is damaged" in shown


def test_what_was_added_or_taken_since_is_a_problem(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "all")
    out, extra = tmp_path / "all" / "out", finished / "synthetic" / "new.png"
    shutil.copy(finished / "all" / "p0000_t1.png", extra)
    try:
        assert "1 synthetic images were added since" in recheck(out).problems
    finally:
        extra.unlink()
    (out / "real_duplicates.csv").unlink()
    assert recheck(out).problems == ("file real_duplicates.csv: missing",)
    shutil.rmtree(out / "work")
    with pytest.raises(InputError, match="no summary"):
        recheck(tmp_path)
