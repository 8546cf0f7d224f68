"""Progress of long work: bars with rate and time left on a terminal and in a notebook, lines elsewhere.

The packages below report through a plain callable `on_progress(done, total, what)` and know nothing
of this module. `what` names the stage; a new name starts a new bar or line.
"""

import contextlib
import dataclasses
import importlib.util
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich import console
from rich import progress as rich_progress

from deepssim_jax.cli import processes

OnProgress = Callable[[int, int, str], None]

_SILENCE_S = 15.0


@dataclasses.dataclass
class _Stage:
    """What is known of one stage; counts may come from any thread."""

    total: int
    started: float
    first: int  # what was done before this process began: no part of the rate
    done: int
    printed: float


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rate(stage: _Stage, now: float) -> float:
    return (stage.done - stage.first) / max(now - stage.started, 1e-9)


def _pace(stage: _Stage, now: float, unit: str) -> str:
    rate = _rate(stage, now)
    if stage.done <= stage.first:
        return ""
    shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
    if stage.done >= stage.total:
        return f", {shown} {unit}/s"
    return f", {shown} {unit}/s, {_seconds((stage.total - stage.done) / rate)} left"


def _counted(what: str, unit: str) -> str:
    """Training counts steps, and "reading images" before it counts images."""
    return "images" if what.endswith("images") else unit


class _Lines:
    """One plain line a stage every `every_s` seconds, and one when it is done.

    Where nothing was said for `_SILENCE_S`, a compiler is at work: a line says for how long.
    """

    def __init__(self, stream: TextIO, unit: str, every_s: float):
        self._stream, self._unit, self._every_s = stream, unit, every_s
        self._latest, self._since, self._done = "starting", time.monotonic(), threading.Event()
        threading.Thread(target=self._speak, daemon=True).start()

    def _speak(self) -> None:
        spoken = self._since
        while not self._done.wait(_SILENCE_S / 4):
            now = time.monotonic()
            if now - max(self._since, spoken) >= _SILENCE_S:
                spoken = now
                print(
                    f"{self._latest}: still at work, no step done for {_seconds(now - self._since)}",
                    file=self._stream,
                    flush=True,
                )

    def begin(self, what: str) -> None:
        """Takes note of the stage; its first line comes when there is something to say."""
        self._latest, self._since = what, time.monotonic()

    def update(self, what: str, stage: _Stage, now: float) -> None:
        self._latest, self._since = what, time.monotonic()
        finished = stage.done >= stage.total
        if not finished and now - stage.printed < self._every_s:
            return
        stage.printed = now
        after = f" in {_seconds(now - stage.started)}" if finished else ""
        unit = _counted(what, self._unit)
        pace = _pace(stage, now, unit)
        count = f"{stage.done:,}/{stage.total:,} {unit}"
        print(f"{what}: {count}{after}{pace}", file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves nothing behind: every line is already written."""
        self._done.set()


class _Bars:
    """A rich bar a stage."""

    def __init__(self, stream: TextIO, unit: str):
        self._unit = unit
        self._bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(),
            rich_progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[pace]}"),
            console=console.Console(file=stream),
        )
        self._tasks: dict[str, rich_progress.TaskID] = {}
        self._bars.start()

    def begin(self, what: str) -> None:
        """A bar shows by itself that it waits."""

    def update(self, what: str, stage: _Stage, now: float) -> None:
        unit = _counted(what, self._unit)
        pace = unit + _pace(stage, now, unit)
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=stage.total, pace=pace)
        task = self._tasks[what]
        self._bars.update(task, completed=stage.done, total=stage.total, pace=pace)

    def close(self) -> None:
        self._bars.stop()


def _in_notebook(stream: TextIO) -> bool:
    """Whether rich can draw bars below a notebook's cell: it needs ipywidgets to."""
    notebook = stream is sys.stderr and console.Console(file=stream).is_jupyter
    return notebook and importlib.util.find_spec("ipywidgets") is not None


@contextlib.contextmanager
def progress(
    total: int | None = None,
    what: str = "",
    *,
    unit: str = "images",
    stream: TextIO | None = None,
    every_s: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[OnProgress]:
    """Shows how far long work is.

    Args:
        total: How much there is to do in the first stage; None when its callback will say.
        what: The first stage's name, shown at once when `total` is given.
        unit: What is counted, in the plural, but for stages whose names end in "images".
        stream: Where to write; stderr when None. Bars when it is a terminal, or None in a notebook
            with ipywidgets; lines otherwise.
        every_s: The least seconds between two lines of one stage.
        clock: Seconds that only grow.

    Yields:
        `on_progress(done, total, what)`: call it from any thread, as often as you like; counts
        of a stage are absolute, and one that is lower than an earlier one is ignored.

    Raises:
        ValueError: `total` or `every_s` is negative or no number.

    Examples:
      >>> import io
      >>> import deepssim_jax as ds
      >>> with ds.progress(stream=(seen := io.StringIO())) as on_progress:
      ...     on_progress(3, 3, "reading images")
      >>> print(seen.getvalue().strip())
      reading images: 3/3 images in 0:00
    """
    # Not by `ops.arguments`, which would load JAX before --help is answered.
    if total is not None and (not isinstance(total, int) or total < 0):
        raise ValueError(f"total {total!r} must be a whole number at least 0, or None")
    if not isinstance(every_s, int | float) or not every_s >= 0:
        raise ValueError(f"every_s {every_s!r} must be a number of seconds, for example 5")
    out = stream or (sys.stderr if processes.is_first() else io.StringIO())
    bars = out.isatty() or _in_notebook(out)
    show = _Bars(out, unit) if bars else _Lines(out, unit, every_s)
    stages: dict[str, _Stage] = {}
    lock = threading.Lock()

    def on_progress(done: int, total: int, what: str) -> None:
        with lock:
            now = clock()
            stage = stages.get(what)
            # A finished stage with another total is another one, such as the next folder's.
            if stage is None or (stage.done >= stage.total != total):
                stage = stages[what] = _Stage(total, now, min(done, total), done, now)
                show.begin(what)
                if done >= total or isinstance(show, _Bars):
                    show.update(what, stage, now)
                return
            if min(done, total) <= stage.done and total == stage.total:
                return
            stage.done, stage.total = min(max(done, stage.done), total), total
            show.update(what, stage, now)

    if total is not None:
        on_progress(0, total, what)
    try:
        yield on_progress
    finally:
        show.close()
