"""Files that are whole or absent, and what identifies them.

Every file this package writes goes through here: to a temporary name in the same directory, then
fsync, then rename, so a run killed at any moment leaves the old file, the new one, or none.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import safetensors.numpy


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


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    """Rows as CSV in UTF-8: quoted by RFC 4180, every line ended by a newline."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def sha256(*paths: Path) -> str:
    """SHA-256 of a file, or of several one after the other, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes one `.npy` file; the same array gives the same bytes."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def write_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], *, metadata: Mapping[str, str]
) -> None:
    """Writes a `.safetensors` file; the same tensors and metadata give the same bytes.

    The library's own order of the metadata differs from process to process, and with it the hash of
    a network that is the same to the last bit. The header is therefore written again with its names
    in order: its length in 8 bytes, JSON padded to a multiple of 8 bytes, then the tensors, whose
    offsets count from there (https://github.com/huggingface/safetensors, "Format").
    """
    content = safetensors.numpy.save(dict(tensors), metadata=dict(metadata))
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(
        json.loads(content[8:start]), sort_keys=True, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    with replacing(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(memoryview(content)[start:])
