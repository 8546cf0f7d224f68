"""The process that waits: it ends what hangs, with all that this started, and keeps what was measured."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.device_cases.schedule import Schedule

NO_ACCELERATOR = 75  # status of a process that found only a CPU
_BEGIN = 60.0  # seconds in which a process has to begin: libraries may come from a slow disk
_GRACE = 4.0  # seconds after a section's own limit at which its process is ended


def end(process: subprocess.Popen) -> None:
    """Ends a process that leads a session, and all that it started there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold it for a while
        process.wait(5)


class Run:
    """A run's lines so far, and what is left to do.

    `start` starts a process, the leader of a session, that does the sections it is given.
    """

    def __init__(
        self,
        schedule: Schedule,
        report: Path,
        *,
        start: Callable[[Sequence[str]], subprocess.Popen],
    ):
        self.schedule, self.report, self.start = schedule, report, start
        self.todo = list(schedule.names)
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("")
        self.failed: list[dict[str, object]] = []

    def lines(self) -> list[dict]:
        """What children have said; a line that a kill cut off is left out."""
        whole = self.report.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def records(self) -> list[dict]:
        """All but starts and ends, the last and fullest line of each record."""
        found: dict[object, dict] = {}
        for number, line in enumerate(self.lines()):
            if "event" not in line:
                part = line.pop("part", None)
                found[number if part is None else (line["section"], part)] = line
        return [*found.values(), *self.failed]

    def begun(self) -> list[str]:
        """Sections that were started, in order."""
        return [line["section"] for line in self.lines() if line.get("event") == "start"]

    def next_group(self) -> list[str]:
        """The first section that is left, and all others whose process has the same flags."""
        sections = self.schedule.sections
        first = sections[self.todo[0]].xla_flags
        return [name for name in self.todo if sections[name].xla_flags == first]

    def child(self, names: Sequence[str]) -> None:
        """Runs sections in a process of their own until they are done, stuck, or time is up."""
        process = self.start(names)
        try:
            reason = self._watch(process)
        finally:
            end(process)
        if process.returncode == NO_ACCELERATOR:
            sys.exit("JAX sees no accelerator; --tiny is a dry run on a CPU")
        ended = [line["section"] for line in self.lines() if line.get("event") == "end"]
        unfinished = [name for name in names if name not in ended]
        if (reason or process.returncode) and unfinished:
            # Of those that were not ended only the first one was begun, if any was.
            reason = reason or f"its process ended with status {process.returncode}"
            self.failed.append({"section": unfinished[0], "failed": reason})
            ended.append(unfinished[0])
        self.todo = [name for name in self.todo if name not in ended]

    def _watch(self, process: subprocess.Popen) -> str:
        """Waits for the process; why it has to be ended, or '' where it ended by itself."""
        seen, since = len(self.begun()), time.monotonic()
        limit = _BEGIN
        while process.poll() is None:
            time.sleep(0.2)
            begun, now = self.begun(), time.monotonic()
            if len(begun) > seen:
                seen, since = len(begun), now
                limit = self.schedule.limit(begun[-1], now)
            if now > self.schedule.deadline:
                return "cut off: the run's time was over"
            if now - since > limit + _GRACE:
                return f"cut off: it hung for {now - since:.0f} s"
        return ""

    def all(self) -> None:
        """Every section, as long as there is time; what is left is said to be."""
        while self.todo and time.monotonic() < self.schedule.deadline:
            self.child(self.next_group())
        self.failed += [{"section": name, "failed": "no time was left"} for name in self.todo]
