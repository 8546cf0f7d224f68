"""Folders that are gone when a block ends: for one volume on its way through other programs."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from deepssim_jax.workspace import files


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder for this user alone, under the system's temporary folder."""
    with tempfile.TemporaryDirectory(prefix="deepssim-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def scratch_copy(source: IO[bytes], name: str) -> Iterator[Path]:
    """A stream as a file of this name in a folder of its own."""
    with scratch_folder() as folder:
        path = folder / name
        with files.replacing(path, access=files.Access.PRIVATE) as target:
            shutil.copyfileobj(source, target)
        yield path
