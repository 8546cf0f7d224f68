"""Folders that are gone when a block ends: for one volume on its way through other programs."""

import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from deepssim_jax.workspace import files
from deepssim_jax.workspace.names import on_windows


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder for this user alone, under the system's temporary folder."""
    # Windows deletes no file that is open or mapped, as it is where an error still holds arrays.
    folder = tempfile.TemporaryDirectory(prefix="deepssim-", ignore_cleanup_errors=on_windows())
    try:
        yield Path(folder.name)
    finally:
        folder.cleanup()
        if Path(folder.name).exists():
            warnings.warn(
                f"the temporary folder {folder.name} could not be removed, because a file in it is "
                "still in use; it can hold images of patients: delete it",
                stacklevel=3,
            )


@contextlib.contextmanager
def scratch_copy(source: IO[bytes], name: str) -> Iterator[Path]:
    """A stream as a file of this name in a folder of its own."""
    with scratch_folder() as folder:
        path = folder / name
        with files.replacing(path, access=files.Access.PRIVATE) as target:
            shutil.copyfileobj(source, target)
        yield path
