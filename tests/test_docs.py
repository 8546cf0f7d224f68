"""The documentation is complete and in step with the code; its examples run."""

import doctest
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deepssim_jax as ds
from deepssim_jax.audit import doubles, tables
from deepssim_jax.cli import commands
from deepssim_jax.jobs import duplicates_outputs, lookup
from tests.test_api import PUBLIC

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# Public names that have no example yet. The list only shrinks.
WITHOUT_EXAMPLE: set[str] = set()
# Whole jobs and gradients, whose programs take a minute to compile; what their examples call is tested in
# tests/audit, tests/jobs, tests/nn and tests/training.
SLOW = {
    "AuditResult", "DuplicatesResult", "PairExplanation", "audit", "duplicates", "encode",
    "explain_pair", "replicas", "ReplicaResult",
    "review", "ReviewResult", "rate_agreement", "AgreementResult", "testing.assert_copies_found",
    "train_encoder", "TrainedEncoder", "index", "open_index", "PreparedIndex", "lookup",
}  # fmt: skip
RUNNING = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name in sorted(PUBLIC.keys() - WITHOUT_EXAMPLE)
]


def module(name: str):
    """A file of docs/_ext."""
    path = DOCS / "_ext" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"docs_{name}", path)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


result_tables = module("tables")
detection, speed = result_tables.detection, result_tables.speed
reference = module("reference")


def examples(name: str) -> list[doctest.DocTest]:
    """The examples in a public name's own docstring."""
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=True)
    return [test for test in finder.find(PUBLIC[name], name) if test.examples]


def test_every_public_name_has_a_place_on_an_api_page():
    pages = "\n".join(p.read_text() for p in sorted((DOCS / "reference" / "api").glob("*.md")))
    shown = re.findall(
        r"auto(?:function|class|exception):: deepssim_jax\.([\w.]+)$", pages, re.MULTILINE
    )
    assert sorted(shown) == sorted(PUBLIC)


def test_every_public_name_has_an_example():
    missing = {name for name in PUBLIC if not examples(name)}
    assert missing == WITHOUT_EXAMPLE


@pytest.mark.parametrize("name", RUNNING)
def test_examples_run(name):
    report: list[str] = []
    for test in examples(name):
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
        failed = runner.run(test, out=report.append, clear_globs=True).failed
        assert not failed, "".join(report)


def test_the_readme_has_the_numbers_of_the_records():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert result_tables.with_results(text) == text, "run python docs/_ext/tables.py"


def test_a_row_of_the_readme_is_the_sum_of_its_record():
    """By hand: copies found under all edits are those of the four kinds together."""
    rows = [r for r in detection._held_out() if r["group"] and r["kind"] != "all kinds"]
    found, total = (sum(int(r[name]) for r in rows) for name in ("found", "of"))
    interval = ds.clopper_pearson(found, total)
    words = result_tables.share(found, total, interval.low, interval.high)
    assert f"| {words} |" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_sentences_are_the_sums_of_their_records():
    """By hand: both generators' copies, parts of an eighth, and who is called a copy."""
    *_, newest = (r for r in result_tables.records("generated_copies") if "audit" in r["methods"])
    found = [newest["methods"]["audit"][side] for side in ("autoencoder", "diffusion")]
    words = f"{found[0][0] + found[1][0]} of {found[0][1] + found[1][1]} were found"
    assert words in detection.blurred_limit()
    parts = [r for r in detection._held_out() if r["edit"].startswith("part 12 %")]
    parts = [r for r in parts if r["kind"] != "all kinds"]
    share = f"{sum(int(r['found']) for r in parts)} of {sum(int(r['of']) for r in parts)} that show 12 %"
    assert share in detection.parts_limit()
    false = [r for r in detection._held_out() if r["edit"] == "false alarms"]
    total = sum(int(r["found"]) for r in false if r["kind"] != "all kinds")
    assert f"Of the {total} images called copies" in detection.readme_called()


def test_results_pages_fill_every_place_and_use_every_table():
    named = [
        name
        for page in DOCS.rglob("*.md")
        for name in re.findall(r"^<!-- generated: ([a-z-]+) -->$", page.read_text(), re.MULTILINE)
    ]
    assert sorted(named) == sorted({**result_tables.TABLES, **reference.PAGES})
    for make in result_tables.TABLES.values():
        assert make().strip()


def test_records_of_an_accelerator_become_a_table(tmp_path, monkeypatch):
    work = {
        "section": "ssim", "work": "ssim_resident", "unit": "pairs", "items_per_s": 2.5e6,
        "share_of_ceiling": 0.089, "bound": "bytes", "peers": {"torch": {"ours_is_times": 2.74}},
        "device": "A card", "day": "2026-11-27", "python": "3.12.3", "versions": {"jax": "0.11.2"},
    }  # fmt: skip
    cut = {"section": "audit", "failed": "cut off: it hung for 54 s"}
    lines = "\n".join(map(json.dumps, (work, cut, {"work": "x", "agrees": True})))
    (tmp_path / "device_a_card.jsonl").write_text(lines)
    monkeypatch.setattr(speed.cells, "RESULTS", tmp_path)
    page = speed.devices()
    assert "## A card" in page
    assert "| `ssim_resident` | 2.5e+06 pairs/s | 8.9 % of bytes | 2.74 x torch |" in page
    assert "1 of 1" in page
    assert "| `audit` | cut off: compiling had not ended after 54 s |" in page


def test_commands_page_has_every_flag_with_its_help():
    for name in commands.COMMANDS:
        section = reference.command_section(name)
        flags = reference.usage.key_flags(commands.load(name))
        assert set(re.findall(r"^`--(?:\[no\])?([a-z_]+)", section, re.MULTILINE)) == {
            flag.name for flag in flags
        }


def test_every_column_is_on_the_page_of_files():
    page = (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
    columns = {*tables.COLUMNS, *doubles.COLUMNS, *lookup.ANSWERS}
    columns |= {
        *duplicates_outputs.GROUPS,
        *duplicates_outputs.PAIRS,
        *duplicates_outputs.VOLUME_PAIRS,
    }
    assert {column for column in columns if f"`{column}`" not in page} == set()


def test_the_detector_of_its_page_works():
    page = (DOCS / "develop" / "adding_a_detector.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 2
    exec("".join(blocks), {"__name__": "a_detector"})


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_gallery_runs_and_prints_what_its_page_shows(path):
    (page,) = (
        p for p in (DOCS / "gallery").glob("*.md") if f"examples/{path.name}" in p.read_text()
    )
    shown = re.findall(r"```text\n(.*?)```", page.read_text(), flags=re.DOTALL)[-1]
    command = [sys.executable, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown


@pytest.mark.slow
def test_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="the docs extra is not installed")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        outside = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text()
        )
        assert outside == [], page.name
