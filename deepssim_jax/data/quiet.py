"""Silence while files of others are read.

Readers of images warn of odd metadata, by `warnings` and by `logging`, and name the file. A name can
be a patient's, so nothing of it may reach the screen; what matters is raised or listed instead.
"""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

_LOGGERS = ("nibabel", "nibabel.global", "pydicom", "tifffile", "imagecodecs", "PIL")
_lock = threading.Lock()
_readers = 0
_caught = warnings.catch_warnings()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Warnings are ignored until the last thread inside has left.

    `warnings.catch_warnings` alone is not safe in threads: one that leaves late would restore the
    filters of another.
    """
    global _readers, _caught
    with _lock:
        _readers += 1
        if _readers == 1:
            _caught = warnings.catch_warnings()
            _caught.__enter__()
            warnings.simplefilter("ignore")
            for name in _LOGGERS:
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _caught.__exit__(None, None, None)
