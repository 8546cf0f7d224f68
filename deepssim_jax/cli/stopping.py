"""How a command ends before it is done: by a signal, or because its job cannot go on.

A signal is Python's to handle only between two steps of Python code, and one call of the compiler can
take minutes. A thread waits for that long a while and then ends the process: whatever counts is
on disk at every moment.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

from deepssim_jax.cli import console, processes
from deepssim_jax.cli.exit_codes import ExitCode

# How long compiled code may keep a signal waiting. Alone, a step that ends in time is saved; schedulers
# kill after 30 s. In a job no process can save without the others, so there is nothing to wait for.
_ALONE_S, _JOB_S = 20.0, 3.0
# The first process carries the others' connections: without it they abort with a stack of C++.
_LAST_S = 3.0


def say(name: str) -> None:
    """Says that the command was stopped, unless another process of the job has said why it ends."""
    if processes.speaks(ExitCode.STOPPED):
        console.error(f"{name}: stopped; run the same command again to resume")


@contextlib.contextmanager
def by_signals(name: str) -> Iterator[None]:
    """Makes SIGTERM arrive as Ctrl-C does; the second signal ends the process at once.

    Compiled code that calls Python back turns the interrupt into an error of its own: it leaves here
    as the interrupt that it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked, ended = threading.Event(), threading.Event()

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        asked.set()
        raise KeyboardInterrupt

    def lost(found: "sys.UnraisableHookArgs") -> None:
        if not isinstance(found.exc_value, KeyboardInterrupt) or not asked.is_set():
            hook(found)
            return
        # It came while the garbage collector called, which drops exceptions. A moment later it does not.
        signal.signal(signal.SIGTERM, stop)
        threading.Timer(0.01, _repeat).start()

    hook, sys.unraisablehook = sys.unraisablehook, lost
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    heard, wake = os.pipe()
    if hasattr(os, "set_blocking"):  # Windows asks for none, and has it from Python 3.12 on
        os.set_blocking(wake, False)
    previous = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(heard, asked, ended, name), daemon=True).start()
    try:
        yield
    except Exception as error:
        if asked.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        ended.set()
        sys.unraisablehook = hook
        signal.set_wakeup_fd(previous)
        os.close(wake)
        for number, handler in before.items():
            signal.signal(number, handler)


def _repeat() -> None:
    """Sends SIGTERM to this process again; on Windows `os.kill` would end it there and then."""
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def _watch(heard: int, asked: threading.Event, ended: threading.Event, name: str) -> None:
    """Ends the process if its main thread does not get to hear of a signal, or in a job does not end."""
    with open(heard, "rb", buffering=0) as pipe:
        if not pipe.read(1):
            return  # the command came to its end
        # Until a second signal, or the end; `select` knows no pipes on Windows.
        job = processes.in_job()
        more = threading.Thread(target=pipe.read, args=(1,), daemon=True)
        more.start()
        more.join(_JOB_S if job else _ALONE_S)
        if not (ended if job else asked).is_set():
            say(name)
            leave_job(ExitCode.STOPPED)
        more.join()


def leave_job(status: int) -> NoReturn:
    """Ends this process at once: at a usual end it would wait for processes that may never come."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    if processes.in_job() and processes.is_first():
        time.sleep(_LAST_S)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)
