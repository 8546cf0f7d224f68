"""The script for accelerators runs dry on a CPU: every section, its records, its table, its limits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.device_cases import agreement, card, profiles, section, table

ROOT = Path(__file__).resolve().parent.parent
# They compile for long, and what else is run of their networks and kernels is tested elsewhere.
SLOW = {"audit", "autoencoder_step", "registration"}


def run(out: Path, *given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.device", "--tiny", f"--out={out}", *given]
    return subprocess.run(
        command,
        cwd=ROOT,
        # Programs are run a few times and compiled once: the compiler takes most of the time.
        env=os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def sections() -> list[str]:
    """Their names, read from the flag's list: importing the script would define its flags."""
    text = (ROOT / "benchmarks" / "device.py").read_text()
    inside = text.split("SECTIONS = {", 1)[1].split("\n}", 1)[0]
    return [line.split('"')[1] for line in inside.splitlines() if line.strip()]


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "device_cpu.jsonl").read_text().splitlines()]


def check(out: Path, done: subprocess.CompletedProcess[str], asked: set[str]) -> None:
    assert done.returncode == 0, done.stdout[-4000:]
    found = records(out)
    assert {record["section"] for record in found} == asked
    for record in found:
        assert {"jax", "numpy"} <= record["versions"].keys() and record["device"] == "cpu"
        assert record["work"] in done.stdout or "agrees" in record
        if "items_per_s" in record:
            assert record["seconds"] > 0 and record["sizes"] and record["runs"] >= 1
        if "share_of_ceiling" in record:
            assert record["bound"] in record["at_most_per_s"] and record["ceilings"] == "measured"
    assert len(list(out.iterdir())) <= 8
    assert not (out / "device_unfinished.jsonl").exists()


def test_dry_run(tmp_path: Path) -> None:
    asked = [name for name in sections() if name not in SLOW]
    assert len(asked) >= 13
    done = run(tmp_path, "--seconds=600", *(f"--section={name}" for name in asked))
    check(tmp_path, done, set(asked))
    agreed = [record for record in records(tmp_path) if "agrees" in record]
    assert len(agreed) >= 4 and all(record["agrees"] for record in agreed)


@pytest.mark.slow
def test_dry_run_of_what_takes_long(tmp_path: Path) -> None:
    done = run(tmp_path, "--seconds=600", *(f"--section={name}" for name in sorted(SLOW)))
    check(tmp_path, done, SLOW)
    audited = next(record for record in records(tmp_path) if record["work"] == "audit")
    assert sum(audited["sizes"]["phases_s"].values()) <= audited["seconds"]


def test_time_that_is_over_leaves_what_was_measured(tmp_path: Path) -> None:
    done = run(tmp_path, "--seconds=0.5", "--section=ceilings", "--section=ssim")
    assert done.returncode == 1
    failed = {record["section"]: record["failed"] for record in map(
        json.loads, next(tmp_path.glob("device_*.jsonl")).read_text().splitlines()
    )}  # fmt: skip
    assert failed == {"ceilings": "the run's time was over", "ssim": "no time was left"}
    assert "FAILED ssim: no time was left" in done.stdout


def test_bounds_are_those_of_the_nearer_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    known = card.NOMINAL["H100"]
    monkeypatch.setattr(card, "ceilings", lambda: known)
    work = section.Work(
        "w", "pairs", 1000.0, lambda: None, {}, bytes=3.35e9, products={card.Kind.BF16: 989e6}
    )
    found = section.bounds(work, rate=5e5)  # a millisecond by bytes, a microsecond by products
    assert found["bound"] == "bytes" and found["at_most_per_s"] == {"bytes": 1e6, "products": 1e9}
    assert found["share_of_ceiling"] == 0.5


def test_a_peer_that_cannot_run_is_said_to() -> None:
    def broken() -> None:
        raise RuntimeError("out of memory")

    found = section.peer_figures(section.Peer(broken, 1), 1.0, seconds=0.01)
    assert found == {"failed": "RuntimeError: out of memory"}


def test_differences() -> None:
    a = np.array([1.0, 2.0], np.float32)
    assert agreement.difference(a, a + np.float32(0.5)) == 0.5
    assert agreement.difference(np.array(["x", "y"]), np.array(["x", "z"])) == 1
    assert agreement.difference(a, a[:1]) == float("inf")


def test_the_table_says_what_is_wrong() -> None:
    text = table.table(
        [
            {
                "section": "s",
                "work": "agreement_x",
                "worst": 0.2,
                "tolerance": 0.1,
                "agrees": False,
            },
            {"section": "t", "failed": "it hung for 9 s"},
        ]
    )
    assert "0 of 1" in text and "agreement_x: 0.2 where 0.1" in text and "FAILED t: it hung" in text


def test_operations_are_summed_by_name() -> None:
    class Made:
        def __init__(self, **fields: object):
            self.__dict__.update(fields)

    def event(name: str, nanoseconds: float) -> Made:
        return Made(name=name, duration_ns=nanoseconds)

    stream = Made(name="Stream #1", events=[event("gemm", 3e6), event("sort", 1e6)])
    more = Made(name="Stream #2", events=[event("gemm", 4e6)])
    modules = Made(name="XLA Modules", events=[event("jit_run", 9e6)])
    host = Made(name="/host:CPU", lines=[Made(name="python", events=[event("run", 9e9)])])
    trace = Made(planes=[Made(name="/device:GPU:0", lines=[stream, more, modules]), host])
    assert profiles.by_operation(trace) == [
        {"name": "gemm", "share": 0.875, "ms": 7.0, "calls": 2},
        {"name": "sort", "share": 0.125, "ms": 1.0, "calls": 1},
    ]
