"""What is checked before a file is opened or inflated, so that no file can ask for the machine's
memory or make it wait.

Contract: functions return, or raise `Unreadable` with the reason.
"""

import dataclasses
import functools
import gzip
import io
import stat
import zlib
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import IO, Protocol

from deepssim_jax.data.volume import Unavailable, Unreadable

# A gzip member cannot shrink its content more than this (zlib's maximum).
MAX_RATIO = 1032
GZIP = b"\x1f\x8b"
_POINTERS = (b"version https://git-lfs", b"/annex/objects", b"../.git/annex", b".git/annex")
_PIECE = 1 << 20
# What a compressed stream may hold beside the values that are declared: header, extensions, padding.
SLACK = 1_000_000
_DAMAGED = "its compressed data are damaged or truncated"


class _Inflater(Protocol):
    """What `zlib` and `bz2` inflate with."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class Limits:
    """The largest file, and the most pixels or voxels, that are read."""

    pixels: int = 100_000_000
    voxels: int = 500_000_000
    file_bytes: int = 2_000_000_000


def check_file(path: Path, limits: Limits) -> None:
    """Raises `Unreadable` for what is no file of a size that can be read."""
    try:
        status = path.stat()
        # A pipe would make its reader wait for ever.
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("is no regular file")
        head = read_head(path, 200)
    except OSError as error:
        raise Unavailable(f"cannot be opened: {error.strerror}") from error
    size = status.st_size
    if size == 0:
        raise Unreadable("is empty (0 bytes)")
    if size > limits.file_bytes:
        raise Unreadable(f"has {size:,} bytes, more than the limit of {limits.file_bytes:,}")
    if any(mark in head for mark in _POINTERS) and size < 2000:
        raise Unreadable("is a pointer of git-lfs or git-annex; fetch the image itself first")


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Raises `Unreadable` for a picture of more pixels than the limit."""
    if width * height > limits.pixels:
        raise Unreadable(
            f"declares {width:,} x {height:,} pixels, more than the limit of {limits.pixels:,}"
        )


def check_voxels(shape: tuple[int, ...], limits: Limits) -> int:
    """The voxels of a shape; raises `Unreadable` for none or more than the limit."""
    voxels = 1
    for length in shape:
        voxels *= int(length)
    if voxels > limits.voxels or min(shape, default=0) <= 0:
        raise Unreadable(f"declares {voxels:,} voxels, more than the limit of {limits.voxels:,}")
    return voxels


def check_ratio(declared: int, path: Path) -> None:
    """Raises `Unreadable` for a compressed file that is too small for the bytes it declares."""
    size = path.stat().st_size
    if declared > MAX_RATIO * size:
        raise Unreadable(
            f"declares {declared:,} bytes, which {size:,} compressed bytes cannot hold: truncated, "
            "or made to exhaust memory"
        )


def the_item(item: int | None, images: int) -> int:
    """Which of the images of a file is meant; None is the only one.

    Raises:
      Unreadable: it holds more than one, or not so many.
    """
    if item is None and images > 1:
        raise Unreadable(f"holds {images:,} images, and which of them is meant is not said")
    if (item or 0) >= images:
        raise Unreadable(f"holds {images:,} images, and number {(item or 0) + 1} is wanted")
    return item or 0


def read_head(path: Path, count: int) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(count)


def inflated_head(head: bytes, count: int) -> bytes:
    """What the start of a gzip file holds: at most `count` bytes, fewer if it is damaged."""
    try:
        return zlib.decompressobj(31).decompress(head, count)
    except zlib.error:
        return b""


def check_gzip(path: Path, most: int) -> None:
    """Inflates in small pieces, keeps none, and refuses damage and more than was declared."""
    for _ in _inflated(path, most):
        pass


def once_a_file(check: Callable[..., None], path: Path, *more: Hashable) -> None:
    """`check(path, *more)`, which looks through a whole file, once for all images in it.

    Raises:
      Unreadable: as `check` did, as long as the file is the same.
    """
    status = path.stat()
    reason = _refusal(check, path, (status.st_size, status.st_mtime_ns), more)
    if reason is not None:
        raise Unreadable(reason)


@functools.lru_cache(maxsize=256)
def _refusal(
    check: Callable[..., None], path: Path, state: tuple[int, int], more: tuple[Hashable, ...]
) -> str | None:
    del state  # a part of the key
    try:
        check(path, *more)
    except Unavailable:
        raise
    except Unreadable as error:
        return str(error)
    return None


def inflated(path: Path, most: int) -> io.BytesIO:
    """The content of a gzip file of at most `most` bytes."""
    out = io.BytesIO()
    for piece in _inflated(path, most):
        out.write(piece)
    out.seek(0)
    return out


def _inflated(path: Path, most: int) -> Iterator[bytes]:
    total = 0
    try:
        with gzip.open(path, "rb") as file:
            while piece := file.read(_PIECE):
                total += len(piece)
                if total > most:
                    raise Unreadable(f"inflates to more than the {most:,} bytes it declares")
                yield piece
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Unreadable("is no gzip file, or its compressed data are damaged") from error
    except EOFError as error:
        raise Unreadable("is truncated: its compressed data end too early") from error


def stream_start(file: IO[bytes], inflater: Callable[[], _Inflater], size: int) -> bytearray:
    """The first `size` bytes of a compressed stream, which is inflated to its end: there its checksum stands.

    What follows the stream that holds the last of them is not looked at.

    Raises:
      Unreadable: it is damaged, ends too early, or holds far more.
    """
    out, total, current, waiting = bytearray(), 0, inflater(), b""
    while not (current.eof and total >= size):
        if current.eof:  # a stream may be several, one after the other, with zeros between them
            waiting = current.unused_data.lstrip(b"\0")
            current = inflater()
        given = waiting or file.read(_PIECE)
        try:
            piece = current.decompress(given, _PIECE)
        except (OSError, zlib.error) as error:  # bz2 raises an OSError, without a number
            raise Unreadable(_DAMAGED) from error
        waiting = getattr(current, "unconsumed_tail", b"")
        if not (given or piece or current.eof):
            raise Unreadable(_DAMAGED)
        total += len(piece)
        if total > size + SLACK:
            raise Unreadable(f"inflates to more than the {size:,} bytes it declares")
        out += piece[: max(0, size - len(out))]
    return out
