"""The process that measures: one section after the other, each record written as it comes."""

import contextlib
import gc
import importlib
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax

from benchmarks.device_cases.card import machine
from benchmarks.device_cases.schedule import Schedule
from benchmarks.device_cases.section import CutOff, Work, measure
from benchmarks.device_cases.torch_device import release

Say = Callable[[dict[str, object]], None]


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises CutOff in this thread after so many seconds, once it is back in Python."""

    def stop(*_: object) -> None:
        raise CutOff(f"cut off: its {seconds:.0f} s were over")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run_sections(names: Sequence[str], schedule: Schedule, report: Path, *, tiny: bool) -> None:
    """Adds a line to the report for each start, record and end.

    Lines of one section and `part` are one record that grows: the last of them has most.
    """
    about = machine()
    with report.open("a") as file:

        def say(line: dict[str, object]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

        for name in names:
            start, flags = time.monotonic(), schedule.sections[name].xla_flags
            base = {"section": name} | ({"xla_flags": flags} if flags else {})
            say({"section": name, "event": "start"})
            try:
                with _at_most(max(schedule.limit(name, start), 0)):
                    _section(name, schedule, lambda line, base=base: say(base | line | about), tiny)
            except CutOff as over:
                say(base | {"failed": str(over)} | about)
            except Exception as error:  # one section must not cost the others
                say(base | {"failed": _reason(error)} | about)
            say({"section": name, "event": "end"})
            print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
            _released()


def compile_programs(name: str, schedule: Schedule, *, tiny: bool) -> None:
    """Runs a section's work once, so that its programs lie in the compilation cache.

    Of what is run but once, at growing sizes, the smallest is enough.
    """
    module, function = schedule.sections[name].where.split(":")
    for item in getattr(importlib.import_module(module), function)(tiny):
        if isinstance(item, Work):
            jax.block_until_ready(item.run())
            if item.once:
                return


def _section(name: str, schedule: Schedule, say: Say, tiny: bool) -> None:
    """One measurement that fails does not cost the section's others."""
    module, function = schedule.sections[name].where.split(":")
    made = getattr(importlib.import_module(module), function)(tiny)
    for part, item in enumerate(made):
        if not isinstance(item, Work):
            say({"part": part} | item)
            continue
        try:
            for record in measure(item, seconds=0.05 if tiny else 1.5):
                say({"part": part} | record)
        except Exception as error:
            say({"failed": f"{item.name}: {_reason(error)}"})


def _reason(error: Exception) -> str:
    traceback.print_exception(error)
    return f"{type(error).__name__}: {str(error)[:400]}"


def _released() -> None:
    """Gives memory of both frameworks back: the next section starts with an empty card."""
    jax.clear_caches()
    gc.collect()
    release()
