"""What may be said of a failure: nothing that comes from a file, whose name can be a patient's.

What the user typed may be repeated. Our own messages name flags, columns and row numbers; those of other
libraries name whatever they stumbled over, so what stands in them in quotes or looks like a path is left
out.
"""

import contextlib
import dis
import errno
import functools
import logging
import os
import re
import sys
import traceback
import types
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

_PACKAGE = str(Path(__file__).resolve().parents[1])
_QUOTED = re.compile(r"""(?P<quote>['"`])(?P<text>.*?)(?P=quote)""", re.DOTALL)
# A name with the suffix of an image, or a path: in our own messages only one from the root, for
# other words stand between slashes.
_NAME = r"[^\s'\"`,:;=()\[\]]"
_SUFFIXES = "png|jpe?g|tiff?|nii|gz|dcm|npy|npz|bmp|gif|webp|mgz|nrrd|mha|mhd|hdr|img|csv|tsv"
_FILE = rf"{_NAME}+\.(?:{_SUFFIXES})\b"
_OWN = re.compile(rf"(?<![\w.>]){_FILE}|(?<![\w.>/])/{_NAME}+", re.IGNORECASE)
_OTHERS = re.compile(rf"{_NAME}*[/\\]{_NAME}+|{_FILE}", re.IGNORECASE)
_LEFT_OUT = "(not shown)"
_LONGEST_NAME = 255  # of a file or folder, on every common file system
_WRITTEN = re.compile(rf"(?<![\w.>]){_FILE}")


def said(error: BaseException, args: Sequence[str]) -> str:
    """The message of an input or usage error."""
    return _without_names(str(error), args, own=_raised_here(error))


def words(error: BaseException, args: Sequence[str]) -> str:
    """The kind and message of any other error."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return f"{type(error).__name__}: {_without_names(str(error), args, own=_raised_here(error))}"


def of_arguments(error: BaseException, args: Sequence[str]) -> str | None:
    """What is wrong with a path that was typed, where that is why the system failed; else None."""
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return None
    for before, arg in zip(("", *args), args, strict=False):
        flag, _, value = arg.rpartition("=")
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in Path(value).parts):
            flag = flag or (before if before.startswith("-") else "an argument")
            return f"{flag}: a name in this path has more than {_LONGEST_NAME} bytes; give a shorter one"
    return None


def trace(error: BaseException, args: Sequence[str]) -> str:
    """Where an error and what led to it were raised, the last one last; values are not shown."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        hidden = following.__suppress_context__
        following = following.__cause__ or (None if hidden else following.__context__)
    parts = []
    for one in reversed(chain):
        stack = "".join(
            traceback.StackSummary.extract(traceback.walk_tb(one.__traceback__)).format()
        )
        parts.append(f"Traceback (most recent call last):\n{stack}{words(one, args)}\n")
    return "\n".join(parts)


@contextlib.contextmanager
def quiet_libraries(args: Sequence[str]) -> Iterator[None]:
    """Takes names out of what other libraries warn of and log."""

    def warned(
        message: Warning | str, category: type[Warning], *where: object, **line: object
    ) -> None:
        print(f"{category.__name__}: {_without_names(str(message), args)}", file=sys.stderr)

    before, root = warnings.showwarning, logging.getLogger()
    handler = logging.StreamHandler(_Stderr())
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Formatter(args))
    warnings.showwarning = warned
    root.addHandler(handler)
    try:
        yield
    finally:
        warnings.showwarning = before
        root.removeHandler(handler)


class _Stderr:
    """The stream that is `sys.stderr` when something is written."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _Formatter(logging.Formatter):
    """One line without names."""

    def __init__(self, args: Sequence[str]):
        super().__init__()
        self._args = args

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.name}: {_without_names(record.getMessage(), self._args)}"


def _raised_here(error: BaseException) -> bool:
    """Whether this package wrote the message: the error left a function of it by `raise`."""
    at: types.TracebackType | None = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None:
        return False  # made, and never raised
    code = at.tb_frame.f_code
    here = code.co_filename.startswith(_PACKAGE)
    return here and dis.opname[code.co_code[at.tb_lasti]] in ("RAISE_VARARGS", "RERAISE")


@functools.cache
def _own_words() -> frozenset[str]:
    """Names of files and suffixes that the package's own sources write: outputs, formats, layouts.

    Those with numbers are left out: examples can be like a study's own names.
    """
    found: set[str] = set()
    for path in Path(_PACKAGE).rglob("*.py"):
        found.update(x.group() for x in _WRITTEN.finditer(path.read_text(encoding="utf-8")))
    return frozenset(word for word in found if not re.search(r"\d\d", word))


def _without_names(text: str, args: Sequence[str], *, own: bool = False) -> str:
    typed = " ".join(args)

    def kept(found: re.Match[str]) -> str:
        word = found.groupdict().get("text") or found.group()
        known = word in typed or word.startswith("--") or (own and word in _own_words())
        return found.group() if known else _LEFT_OUT

    if own:
        return _OWN.sub(kept, text)
    return _OTHERS.sub(kept, _QUOTED.sub(kept, text))
