"""Progress on a terminal and elsewhere."""

import io
import threading
import time

import pytest

from deepssim_jax.cli import progress as progress_room
from deepssim_jax.cli.progress import progress


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_line_every_few_seconds_and_one_at_the_end():
    out, clock = io.StringIO(), Clock()
    with progress(stream=out, every_s=5, clock=clock) as report:
        for done in range(101):
            report(done, 100, "reading")
            clock.now += 0.125
    lines = out.getvalue().splitlines()
    assert lines[0] == "reading: 40/100 images, 8 images/s, 0:08 left"
    assert lines[1] == "reading: 80/100 images, 8 images/s, 0:03 left"
    assert lines[2] == "reading: 100/100 images in 0:13, 8 images/s"
    assert len(lines) == 3


def test_what_was_done_before_is_no_part_of_the_rate():
    out, clock = io.StringIO(), Clock()
    with progress(stream=out, every_s=5, clock=clock) as report:
        report(900, 1000, "searching")
        clock.now += 10
        report(950, 1000, "searching")
    assert out.getvalue() == "searching: 950/1,000 images, 5 images/s, 0:10 left\n"


def test_a_stage_with_nothing_left_says_so_once():
    out = io.StringIO()
    with progress(stream=out) as report:
        report(7, 7, "reading")
        report(7, 7, "reading")
    assert out.getvalue() == "reading: 7/7 images in 0:00\n"


def test_an_empty_stage():
    out = io.StringIO()
    with progress(0, "reading", unit="files", stream=out):
        pass
    assert out.getvalue() == "reading: 0/0 files in 0:00\n"


def test_stages_follow_each_other_and_counts_never_fall():
    out, clock = io.StringIO(), Clock()
    with progress(stream=out, every_s=0, clock=clock, unit="pairs") as report:
        report(0, 2, "first")
        clock.now += 1
        report(2, 2, "first")
        report(1, 2, "first")
        report(0, 4000, "second")
        clock.now += 3600
        report(1000, 4000, "second")
    assert out.getvalue().splitlines() == [
        "first: 2/2 pairs in 0:01, 2 pairs/s",
        "second: 1,000/4,000 pairs, 0.28 pairs/s, 3:00:00 left",
    ]


def test_the_next_folder_is_counted_by_itself():
    """Two stages of one name, as the sides of a job are read one after the other."""
    out = io.StringIO()
    with progress(stream=out) as on_progress:
        for total in (24, 8, 16):
            on_progress(total, total, "reading images")
        on_progress(20, 16, "reading images")
    counts = [line.split(" images in")[0] for line in out.getvalue().splitlines()]
    assert counts == [f"reading images: {n}/{n}" for n in (24, 8, 16)]


def test_threads_may_report():
    out = io.StringIO()
    with progress(stream=out) as report:
        counts = iter(range(1, 401))
        lock = threading.Lock()

        def work():
            for _ in range(100):
                with lock:
                    done = next(counts)
                report(done, 400, "decoding")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert out.getvalue().count("400/400") == 1


def test_a_terminal_gets_a_bar():
    out = Terminal()
    with progress(10, "reading [1]", stream=out) as report:
        report(5, 10, "reading [1]")
        report(10, 10, "reading [1]")
    assert "reading [1]" in out.getvalue()
    assert "10/10 images" in out.getvalue()


def test_an_exception_passes_and_leaves_the_terminal_usable():
    out = Terminal()
    with pytest.raises(ValueError, match="bad"), progress(10, "reading", stream=out):
        raise ValueError("bad")
    assert out.getvalue().endswith("\x1b[?25h")  # the cursor is shown again


def test_silence_is_broken(monkeypatch):
    """While a program compiles, minutes pass without a step: a line says that work goes on."""
    monkeypatch.setattr(progress_room, "_SILENCE_S", 0.2)
    out = io.StringIO()
    with progress(stream=out) as report:
        time.sleep(0.5)
        report(0, 4, "training")
        time.sleep(0.5)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("starting: still at work")
    assert lines[-1].startswith("training: still at work, no step done for 0:0")
    assert not out.getvalue().count("done for 0:0") > 6


@pytest.mark.parametrize(
    ("notebook", "widgets", "bars"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_bars_in_a_notebook_that_can_draw_them(monkeypatch, notebook, widgets, bars):
    """rich draws below a cell with ipywidgets; without them lines are said."""
    monkeypatch.setattr(progress_room.console, "_is_jupyter", lambda: notebook)
    spec = object() if widgets else None
    monkeypatch.setattr(progress_room.importlib.util, "find_spec", lambda name: spec)
    made = []

    class Bars(progress_room._Lines):
        def __init__(self, stream, unit):
            made.append(stream)
            super().__init__(stream, unit, 5.0)

    monkeypatch.setattr(progress_room, "_Bars", Bars)
    out = io.StringIO()
    monkeypatch.setattr(progress_room.sys, "stderr", out)
    with progress() as report:
        report(3, 3, "reading images")
    assert bool(made) == bars
    assert out.getvalue() == "reading images: 3/3 images in 0:00\n"
    with progress(stream=io.StringIO()) as report:  # a stream that the caller named gets lines
        report(3, 3, "reading images")
    assert len(made) == bars
