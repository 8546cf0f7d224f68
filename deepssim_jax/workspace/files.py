"""Files that are whole or absent, and what identifies them.

A file is written under a temporary name in its own folder, flushed to the disk, renamed, and the
folder is flushed too: a run that is killed at any moment leaves the old file, the new one, or none. The
temporary name follows from the file's, so that who knows what was being written knows what is left of it.
"""

import contextlib
import csv
import enum
import errno
import hashlib
import io
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import safetensors.numpy

_READ = 1 << 20
# Windows would write "\r\n" for "\n" without it.
_BINARY = getattr(os, "O_BINARY", 0)


class Access(enum.Enum):
    """Who may read a file: its owner alone, or whoever the user's umask lets.

    Windows knows no such modes: there a file has the rights of the folder that it is in.
    """

    PRIVATE = 0o600
    SHARED = 0o666

    @property
    def folder(self) -> int:
        """The mode of a folder of such files."""
        return 0o700 if self is Access.PRIVATE else 0o777


class NoSpace(OSError):
    """The disk is full."""


@contextlib.contextmanager
def replacing(
    path: Path, *, access: Access = Access.SHARED, process: int = 0
) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when the block ends without an error.

    Args:
      path: the file.
      access: who may read it.
      process: the number of this one, where several may write the same file with the same content.

    Raises:
      NoSpace: the disk is full; what was there is as it was.
    """
    make_folder(path.parent, access=access)
    temporary = temporary_of(path, process)
    # The mode is cut by the user's umask; nobody else can read it in between.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, access.value)
    try:
        with no_space(path), os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def no_space(path: Path) -> Iterator[None]:
    """Says in words that the disk is full, or that a quota or a size limit is reached."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise NoSpace(
            f"there is no space left to write {path.name!r}; free some and run the same command "
            "again: it goes on from what is finished"
        ) from error


def with_content(folder: Path) -> Iterator[str]:
    """The names in a folder, without folders in which there is no file at any depth."""
    for entry in os.scandir(folder):
        if not entry.is_dir(follow_symlinks=False) or any(found for _, _, found in os.walk(entry)):
            yield entry.name


def make_folder(path: Path, *, access: Access = Access.SHARED) -> None:
    """Makes a folder and those above it that are missing; they are flushed to the disk."""
    if path.is_dir():
        return
    if path.parent != path:  # a drive of Windows that is not there has nothing above it
        make_folder(path.parent, access=access)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, access.folder)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flushes the names in a folder; does nothing where folders cannot be opened (Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems flush no folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def temporary_of(path: Path, process: int = 0) -> Path:
    """What a file is called while a process writes it."""
    digest = hashlib.sha256(b"%d/" % process + os.fsencode(path.name)).hexdigest()
    return path.parent / f".deepssim-{digest[:16]}.tmp"


def write_bytes(
    path: Path, content: bytes, *, access: Access = Access.SHARED, process: int = 0
) -> None:
    """Writes a whole file at once; see `replacing`."""
    with replacing(path, access=access, process=process) as file:
        file.write(content)


def write_new(path: Path, content: bytes) -> None:
    """Writes one file that the user named; a file that is there already is kept.

    The same bytes are no error, so that the same command can be given again.

    Raises:
      ValueError: there is a file of other content, or no folder to put it in.
    """
    if path.exists() or path.is_symlink():
        if path.is_file() and path.read_bytes() == content:
            return
        raise ValueError(f"{path.name!r} exists already and is something else; give another name")
    make_folder(path.parent)
    temporary = path.parent / f".deepssim-{secrets.token_hex(8)}.tmp"
    write_bytes(temporary, content)
    try:
        os.link(temporary, path)  # unlike a rename it never replaces
    except FileExistsError as error:
        raise ValueError(f"{path.name!r} was made by someone else meanwhile") from error
    except OSError:  # a file system without links
        os.rename(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    sync_folder(path.parent)


def make_empty(path: Path) -> None:
    """Makes a file for its owner alone, to which lines will be added; one that is there stays as it is."""
    make_folder(path.parent, access=Access.PRIVATE)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, Access.PRIVATE.value))
        sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Adds a line to a file that is there, and to nothing that a link leads to.

    What a killed run has left half written becomes a line of its own. A file with another name, as a snapshot
    of hard links gives it, becomes one of its own: what that name holds stays as it is.
    """
    status = path.lstat()
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        write_bytes(path, path.read_bytes(), access=Access.PRIVATE)
    flags = os.O_RDWR | os.O_APPEND | _BINARY | getattr(os, "O_NOFOLLOW", 0)
    with no_space(path), os.fdopen(os.open(path, flags), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        torn = file.read(1) not in (b"", b"\n")
        file.write((b"\n" if torn else b"") + f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    """Rows as CSV in UTF-8: quoted by RFC 4180, every line ended by a newline.

    Bytes of a file's name that are no UTF-8 are escaped.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="backslashreplace")


def array_bytes(array: np.ndarray) -> bytes:
    """The content of a `.npy` file; the same array gives the same bytes."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def sha256(*paths: Path) -> str:
    """SHA-256 of a file, or of several one after the other, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_READ):
                digest.update(block)
    return digest.hexdigest()


def holds(path: Path, digest: str) -> bool:
    """Whether there is a file, and no link, of this SHA-256."""
    return path.is_file() and not path.is_symlink() and sha256(path) == digest


def write_array(
    path: Path, array: np.ndarray, *, access: Access = Access.SHARED, process: int = 0
) -> str:
    """Writes one `.npy` file, and gives its SHA-256; the same array gives the same bytes."""
    content = array_bytes(array)
    write_bytes(path, content, access=access, process=process)
    return hashlib.sha256(content).hexdigest()


def tensor_bytes(tensors: Mapping[str, np.ndarray], *, metadata: Mapping[str, str]) -> bytes:
    """The content of a `.safetensors` file; the same tensors and metadata give the same bytes.

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
    return len(header).to_bytes(8, "little") + header + content[start:]
