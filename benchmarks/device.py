"""Everything that one accelerator is asked, in one run that ends in time.

    python -m benchmarks.device --out=benchmarks/results
    python -m benchmarks.device --section=search_study --section=ssim --seconds=120
    python -m benchmarks.device --tiny            # a dry run, on a CPU too

Sections run one after the other in a child process, each in its own time; records are written as they
come, so that a cut leaves what was measured. A section that crashes or hangs ends its process, and the
others go on in a new one. `device.sh` is this for a bare machine.
"""

import dataclasses
import importlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from benchmarks.device_cases.table import profiles, table


@dataclasses.dataclass(frozen=True)
class Section:
    """Where its function is, the seconds that it may take, and XLA's flags for its process."""

    where: str
    seconds: float
    xla_flags: str = ""


# RAFT's select_k, also where ties must go to the smaller index, as `lax.top_k` promises. The name
# changed with jax 0.11, and XLA ends a process whose flag it does not know.
_JAX = tuple(int(part) for part in importlib.metadata.version("jax").split(".")[:2])
_RAFT = (
    "--xla_gpu_experimental_enable_raft_for_stable_topk=true"
    if _JAX >= (0, 11)
    else "--xla_gpu_experimental_use_raft_select_k=true"
)
# In the order of what would be missed most.
SECTIONS = {
    "ceilings": Section("ceilings:measured", 25),
    "search_study": Section("search:study", 45),
    "ssim": Section("images:all_ssim", 45),
    "aligned": Section("images:aligned", 40),
    "encoder_step": Section("networks:encoder_step", 50),
    "agreement": Section("agreement:compared", 110),
    "local_features": Section("images:local_features", 30),
    "embedding": Section("networks:embedding", 40),
    "denoiser_step": Section("networks:denoiser_step", 60),
    "search_square": Section("search:square", 45),
    "search_study_raft": Section("search:study", 30, _RAFT),
    "selection": Section("search:selection", 20),
    "selection_raft": Section("search:selection", 20, _RAFT),
    "registration": Section("images:registration", 50),
    "audit": Section("whole:audit", 120),
    "sampling": Section("networks:sampling", 50),
    "autoencoder_step": Section("networks:autoencoder_step", 50),
}
_GRACE = 15.0  # seconds after a section's own limit at which its process is ended

_OUT = flags.DEFINE_string("out", None, "folder of the records; nothing is kept without")
_SECTION = flags.DEFINE_multi_enum("section", None, sorted(SECTIONS), "sections; all if not given")
_SECONDS = flags.DEFINE_float("seconds", 380.0, "the whole run ends in so many seconds")
_TINY = flags.DEFINE_bool("tiny", False, "smallest sizes: a dry run")
_CHILD = flags.DEFINE_string("child", None, "internal: the file that a child process reports to")


def _limit(seconds: float) -> None:
    """Raises TimeoutError in this thread after so many seconds; 0 takes that back."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"its {seconds:.0f} s were over")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_of(name: str) -> float:
    """Seconds of a section; a dry run compiles on whatever CPU there is."""
    return SECTIONS[name].seconds * (4 if _TINY.value else 1)


def run_sections(names: Sequence[str], report: Path) -> None:
    """In a child: runs sections and adds a line to the report for each start, record and end."""
    from benchmarks.device_cases.card import machine
    from benchmarks.device_cases.section import Work, measure

    about = machine()
    with report.open("a") as file:

        def say(line: dict[str, object]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

        for name in names:
            section, start = SECTIONS[name], time.monotonic()
            say({"section": name, "event": "start"})
            base = {"section": name} | (
                {"xla_flags": section.xla_flags} if section.xla_flags else {}
            )
            module, function = section.where.split(":")
            try:
                _limit(_limit_of(name))
                made = importlib.import_module(f"benchmarks.device_cases.{module}")
                for item in getattr(made, function)(_TINY.value):
                    if isinstance(item, Work):
                        item = measure(item, seconds=0.05 if _TINY.value else 2.0)
                    say(base | item | about)
            except Exception as error:  # one section must not cost the others
                traceback.print_exc()
                reason = f"{type(error).__name__}: {str(error)[:400]}"
                say(base | {"failed": reason} | about)
            finally:
                _limit(0)
            say({"section": name, "event": "end"})
            print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
            _released()


def _released() -> None:
    """Gives memory of both frameworks back: the next section starts with an empty card."""
    import gc

    import jax

    from benchmarks.device_cases.torch_device import has_torch, release

    jax.clear_caches()
    gc.collect()
    if has_torch():
        release()


class Run:
    """A run's lines so far, and what is left to do."""

    def __init__(self, names: Sequence[str], report: Path, *, deadline: float):
        self.todo, self.report, self.deadline = list(names), report, deadline
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("")
        self.failed: list[dict[str, object]] = []

    def lines(self) -> list[dict]:
        """What children have said; a line that a kill cut off is left out."""
        whole = self.report.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def records(self) -> list[dict]:
        """All but starts and ends."""
        return [line for line in self.lines() if "event" not in line] + self.failed

    def begun(self) -> list[str]:
        """Sections that were started, in order."""
        return [line["section"] for line in self.lines() if line.get("event") == "start"]

    def next_group(self) -> list[str]:
        """The first section that is left, and all others whose process has the same flags."""
        first = SECTIONS[self.todo[0]].xla_flags
        return [name for name in self.todo if SECTIONS[name].xla_flags == first]

    def child(self, names: Sequence[str]) -> None:
        """Runs sections in a process of their own until they are done, stuck, or time is up."""
        given = [f"--section={name}" for name in names] + [f"--child={self.report}"]
        given += ["--tiny"] if _TINY.value else []
        known = os.environ.get("XLA_FLAGS", "")
        more = {"XLA_FLAGS": f"{known} {SECTIONS[names[0]].xla_flags}".strip()}
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.device", *given], env=os.environ | more
        )
        seen, since = len(self.begun()), time.monotonic()
        reason = ""
        while process.poll() is None and not reason:
            time.sleep(0.2)
            begun = self.begun()
            if len(begun) > seen:
                seen, since = len(begun), time.monotonic()
            limit = _limit_of(begun[-1] if begun else names[0]) + _GRACE
            if time.monotonic() > self.deadline:
                reason = "the run's time was over"
            elif time.monotonic() - since > limit:
                reason = f"it hung for {limit:.0f} s"
        if reason:
            process.kill()
        code = process.wait()
        ended = [line["section"] for line in self.lines() if line.get("event") == "end"]
        unfinished = [name for name in names if name not in ended]
        if code and unfinished:
            # Of those that were not ended only the first one was begun, if any was.
            reason = reason or f"its process ended with status {code}"
            self.failed.append({"section": unfinished[0], "failed": reason})
            ended.append(unfinished[0])
        self.todo = [name for name in self.todo if name not in ended]

    def all(self) -> None:
        """Every section, as long as there is time; what is left is said to be."""
        while self.todo and time.monotonic() < self.deadline:
            self.child(self.next_group())
        self.failed += [{"section": name, "failed": "no time was left"} for name in self.todo]


def _cpu_reference(file: Path) -> subprocess.Popen:
    """Starts what `agreement` compares with: the same kernels on the CPU, beside the card's work."""
    given = [str(file), *(["--tiny"] if _TINY.value else [])]
    command = ["nice", sys.executable, "-m", "benchmarks.device_cases.agreement", *given]
    return subprocess.Popen(command, env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""})


def _keep(records: Sequence[dict], folder: Path) -> Path:
    """Adds the records to a file with the card's name, and the profiles to one beside it."""
    card = next((record["device"] for record in records if "device" in record), "none")
    name = "device_" + re.sub(r"\W+", "_", str(card)).strip("_").lower()
    day = time.strftime("%Y-%m-%d", time.gmtime())
    with (folder / f"{name}.jsonl").open("a") as file:
        file.writelines(json.dumps(record | {"day": day}) + "\n" for record in records)
    if text := profiles(records):
        (folder / f"{name}_profiles.txt").write_text(text + "\n")
    return folder / f"{name}.jsonl"


def main(_: list[str]) -> None:
    names = _SECTION.value or list(SECTIONS)
    if _CHILD.value:
        run_sections(names, Path(_CHILD.value))
        return
    deadline = time.monotonic() + _SECONDS.value
    with tempfile.TemporaryDirectory() as temporary:
        # Where there is a folder for records, a cut leaves them there.
        report = Path(_OUT.value or temporary) / "device_unfinished.jsonl"
        os.environ["DEVICE_REFERENCE"] = str(Path(temporary) / "reference.npz")
        asked = "agreement" in names
        reference = _cpu_reference(Path(os.environ["DEVICE_REFERENCE"])) if asked else None
        if reference and _TINY.value:
            reference.wait()  # on a CPU both would compile the same programs at once
        run = Run(names, report, deadline=deadline)
        try:
            run.all()
        finally:
            if reference:
                reference.kill()
                reference.wait()
        records = run.records()
        print("\n" + table(records), flush=True)
        if _OUT.value:
            print(f"records: {_keep(records, Path(_OUT.value))}")
            report.unlink()
    if any("failed" in record or record.get("agrees") is False for record in records):
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
