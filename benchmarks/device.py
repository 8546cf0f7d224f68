"""Everything that one accelerator is asked, in one run that ends in time.

    python -m benchmarks.device --out=benchmarks/results
    python -m benchmarks.device --section=search_study --section=ssim --seconds=120
    python -m benchmarks.device --tiny            # a dry run, on a CPU too: compiling takes minutes

Sections run one after the other in a child process, each in its own time; records are written as they
come, so that a cut leaves what was measured. A section that crashes or hangs ends its process, and the
others go on in a new one. `device.sh` is this for a bare machine.
"""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags

from benchmarks.device_cases.schedule import COMPILING, RUN_SECONDS, SECTIONS, Schedule
from benchmarks.device_cases.supervise import NO_ACCELERATOR, Run, end
from benchmarks.device_cases.table import profiles, table

_DRY_SECONDS = 1800.0  # compiling takes long on a CPU
_OUT = flags.DEFINE_string("out", None, "folder of the records; nothing is kept without")
_SECTION = flags.DEFINE_multi_enum("section", None, sorted(SECTIONS), "sections; all if not given")
_SECONDS = flags.DEFINE_float("seconds", None, "the whole run ends in so many seconds")
_TINY = flags.DEFINE_bool("tiny", False, "smallest sizes: a dry run")
_CHILD = flags.DEFINE_string("child", None, "internal: what a child process is to do, as JSON")


def _start_child(
    names: Sequence[str],
    *,
    schedule: Schedule,
    report: Path,
    tiny: bool,
    compile_only: bool = False,
) -> subprocess.Popen:
    """A process of its own session, so that it can be ended with all that it starts."""
    order = {
        "names": list(names),
        "compile_only": compile_only,
        "report": str(report),
        "run": {
            "names": schedule.names,
            "started": schedule.started,
            "seconds": schedule.seconds,
        },
    }
    command = [sys.executable, "-m", "benchmarks.device", f"--child={json.dumps(order)}"]
    known = os.environ.get("XLA_FLAGS", "")
    more = {"XLA_FLAGS": f"{known} {SECTIONS[names[0]].xla_flags}".strip()}
    if compile_only:  # several share the card
        more["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return subprocess.Popen(
        [*command, *(["--tiny"] if tiny else [])], env=os.environ | more, start_new_session=True
    )


def _do(order: dict, *, tiny: bool) -> None:
    """What a child does."""
    import jax

    from benchmarks.device_cases.child import compile_programs, run_sections

    if jax.default_backend() == "cpu" and not tiny:
        sys.exit(NO_ACCELERATOR)
    schedule = Schedule(**order["run"] | {"names": tuple(order["run"]["names"])})
    if order["compile_only"]:
        for name in order["names"]:
            compile_programs(name, schedule, tiny=tiny)
        return
    run_sections(order["names"], schedule, Path(order["report"]), tiny=tiny)


def _compile_all(schedule: Schedule, start: Callable[[Sequence[str]], subprocess.Popen]) -> None:
    """Compiles every section's programs at once, each in a process, for the cache that all share.

    One after the other takes longer than a run has: an encoder's step alone is a minute.
    """
    limit = time.monotonic() + min(COMPILING, schedule.seconds / 3)
    waiting = [start([name]) for name in schedule.names if not SECTIONS[name].xla_flags]
    try:
        while time.monotonic() < limit and any(process.poll() is None for process in waiting):
            time.sleep(0.2)
    finally:
        late = [process for process in waiting if process.poll() is None]
        for process in late:
            end(process)
    print(f"compiled beside each other, {len(late)} of {len(waiting)} not to the end", flush=True)


def _cpu_reference(folder: Path, *, tiny: bool) -> subprocess.Popen:
    """Starts what `agreement` compares with: the same kernels on the CPU, beside the card's work."""
    given = [str(folder), *(["--tiny"] if tiny else [])]
    command = ["nice", sys.executable, "-m", "benchmarks.device_cases.agreement", *given]
    # Not even a run that JAX_PLATFORMS keeps to the card may do without the CPU here.
    alone = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, env=os.environ | alone, start_new_session=True)


def _keep(records: Sequence[dict], folder: Path) -> Path:
    """Adds the records to a file with the card's name, and the profiles to one beside it."""
    card = next((record["device"] for record in records if "device" in record), "none")
    name = "device_" + re.sub(r"\W+", "_", str(card)).strip("_").lower()
    day = time.strftime("%Y-%m-%d", time.gmtime())
    with (folder / f"{name}.jsonl").open("a") as file:
        file.writelines(json.dumps(record | {"day": day}) + "\n" for record in records)
    if text := profiles(records):
        with (folder / f"{name}_profiles.txt").open("a") as file:
            file.write(text + "\n")
    return folder / f"{name}.jsonl"


def main(_: list[str]) -> None:
    started, tiny = time.monotonic(), _TINY.value
    if _CHILD.value:
        _do(json.loads(_CHILD.value), tiny=tiny)
        return
    # A child leads a session of its own: what ends this process has to end it too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = tuple(name for name in SECTIONS if name in (_SECTION.value or SECTIONS))
    seconds = _SECONDS.value or (_DRY_SECONDS if tiny else RUN_SECONDS)
    schedule = Schedule(names, started, seconds)
    with tempfile.TemporaryDirectory() as temporary:
        # Where there is a folder for records, a cut leaves them there.
        report = Path(_OUT.value or temporary) / "device_unfinished.jsonl"
        os.environ["DEVICE_REFERENCE"] = temporary
        run = Run(
            schedule,
            report,
            start=lambda some: _start_child(some, schedule=schedule, report=report, tiny=tiny),
        )
        wanted = "agreement" in names
        reference = _cpu_reference(Path(temporary), tiny=tiny) if wanted else None
        try:
            if not tiny:
                given = {"schedule": schedule, "report": report, "tiny": tiny, "compile_only": True}
                _compile_all(schedule, functools.partial(_start_child, **given))
            run.all()
        finally:
            if reference:
                end(reference)
        records = run.records()
        print("\n" + table(records), flush=True)
        late = ("cut off", "no time")
        left = [r["section"] for r in records if str(r.get("failed", "")).startswith(late)]
        if left:
            again = " ".join(f"--section={name}" for name in left)
            print(f"\nfor what was cut off or not begun: benchmarks/device.sh {again}")
        if _OUT.value:
            print(f"records: {_keep(records, Path(_OUT.value))}")
            report.unlink()
    if any("failed" in record or record.get("agrees") is False for record in records):
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
