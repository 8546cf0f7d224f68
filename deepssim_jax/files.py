"""Files that are whole or absent.

Every file this package writes goes through here: to a temporary name in the same directory, then
fsync, then rename, so a run killed at any moment leaves the old file, the new one, or none.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file at once."""
    with replacing(path) as file:
        file.write(content)


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes one `.npy` file; the same array gives the same bytes."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())
