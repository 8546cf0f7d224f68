"""The script for accelerators ends in time, whatever hangs, and leaves nothing running."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.device_cases import supervise
from benchmarks.device_cases.schedule import RUN_SECONDS, SECTIONS, STARTUP, Schedule, Section
from benchmarks.device_cases.supervise import Run
from benchmarks.device_cases.table import table

ROOT = Path(__file__).resolve().parent.parent
SECTION = '''
import pathlib, signal, subprocess, time

def first(tiny):
    yield {"work": "one"}
    raise ValueError("broken")

def deaf(tiny):
    """Hangs as a compiler does: no signal reaches Python, and a process of its own hangs with it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    yield {"work": "before"}
    child = subprocess.Popen(["sleep", "600"])
    pathlib.Path(__file__).with_name("child").write_text(str(child.pid))
    time.sleep(600)

def slow(tiny):
    yield {"work": "begun"}
    time.sleep(600)

def last(tiny):
    yield {"work": "two"}
'''
CHILD = """
import json, sys
from pathlib import Path
from benchmarks.device_cases.child import run_sections
from benchmarks.device_cases.schedule import Schedule, Section

order = json.loads(sys.argv[1])
sections = {name: Section(*given) for name, given in order["sections"].items()}
run = Schedule(tuple(sections), order["started"], order["seconds"], sections, startup=0)
run_sections(order["names"], run, Path(order["report"]), tiny=True)
"""


def hanging(folder: Path, *, seconds: float) -> Run:
    """A run of four sections of the module above; all but the last may take a second."""
    (folder / "hanging.py").write_text(SECTION)
    own = {"first": 1.0, "deaf": 1.0, "slow": 1.0, "last": 90.0}
    sections = {name: Section(f"hanging:{name}", limit) for name, limit in own.items()}
    schedule = Schedule(tuple(sections), time.monotonic(), seconds, sections, startup=0)
    report = folder / "report.jsonl"

    def start(names: Sequence[str]) -> subprocess.Popen:
        order = {
            "names": list(names),
            "sections": {name: [s.where, s.seconds] for name, s in sections.items()},
            "started": schedule.started,
            "seconds": seconds,
            "report": str(report),
        }
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(order)],
            env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    return Run(schedule, report, start=start)


def test_what_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_GRACE", 1.0)
    started = time.monotonic()
    run = hanging(tmp_path, seconds=60.0)
    run.all()
    assert time.monotonic() - started < 60
    records = run.records()
    assert [r["work"] for r in records if "work" in r] == ["one", "before", "begun", "two"]
    failed = {r["section"]: r["failed"] for r in records if "failed" in r}
    assert failed.keys() == {"first", "deaf", "slow"}
    assert failed["first"] == "ValueError: broken"
    assert failed["deaf"].startswith("cut off: it hung for")
    assert failed["slow"].startswith("cut off: its")
    child = int((tmp_path / "child").read_text())
    assert not Path(f"/proc/{child}").exists() or "Z" in state(child)
    assert "FAILED deaf: cut off: it hung for" in table(records)


def state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_run_ends_at_its_deadline(tmp_path: Path) -> None:
    run = hanging(tmp_path, seconds=6.0)
    run.all()
    assert time.monotonic() - run.schedule.started < 6.0 + 6.0
    failed = {r["section"]: r["failed"] for r in run.records() if "failed" in r}
    assert failed["last"] in ("cut off: the run's time was over", "no time was left")


def test_limits_are_what_a_run_has() -> None:
    names = tuple(SECTIONS)
    schedule = Schedule(names, 1000.0, RUN_SECONDS)
    first = names[: names.index("agreement") + 1]
    # The order; all of it fits, whatever of it takes all its time.
    assert first == (
        "ceilings", "search_study", "local_features", "ssim", "aligned", "registration",
        "encoder_step", "denoiser_step", "sampling", "audit", "agreement",
    )  # fmt: skip
    assert STARTUP + sum(SECTIONS[name].seconds for name in first) <= RUN_SECONDS
    now = 1000.0 + STARTUP
    assert schedule.limit("ceilings", now) == SECTIONS["ceilings"].seconds
    # What one leaves, the next may use; what one took too much costs no other its own.
    left = SECTIONS["ceilings"].seconds - 2
    assert schedule.limit("search_study", now + 2) == SECTIONS["search_study"].seconds + left
    assert schedule.limit("search_study", now + 99) == SECTIONS["search_study"].seconds
    assert schedule.limit("search_study", schedule.deadline - 3) == 3
    alone = Schedule(("audit",), 0.0, 300.0)
    assert alone.limit("audit", STARTUP) == pytest.approx(300.0 - STARTUP)
    assert RUN_SECONDS + 30 < 7 * 60


def test_sections_of_other_flags_come_last() -> None:
    flags = [section.xla_flags for section in SECTIONS.values()]
    assert flags == sorted(flags)


def test_the_script_runs_on_a_machine_without_wheels(tmp_path: Path) -> None:
    # Any other card's records and profiles stay, and so do this one's of a run before.
    (tmp_path / "device_cpu_profiles.txt").write_text("before\n")
    done = subprocess.run(
        [ROOT / "benchmarks" / "device.sh", "--tiny", "--section=selection"],
        env=os.environ
        | {"PYTHON": sys.executable, "OUT": str(tmp_path), "WHEELS": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no wheels in" in done.stderr and "selection_of_16" in done.stdout
    assert (tmp_path / "device_cpu_profiles.txt").read_text().startswith("before\nselection_of_16")
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"device_cpu.jsonl", "device_cpu_profiles.txt", "device_log.txt"}
