"""Names of files on every system: the same id for the same file, and no name that cannot be stored.

Contract: a name has `/` between folders, whatever the system writes. `paths` is the kind of path that
the system has; it is an argument so that each kind can be tried on any machine.
"""

import re
import sys
import unicodedata
from pathlib import PurePath

_CHARACTERS = re.compile(r'[<>:"|?*\\\x00-\x1f]')
# Names of devices, with any suffix (https://learn.microsoft.com/windows/win32/fileio/naming-a-file).
_DEVICES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE
)


def on_windows() -> bool:
    """Whether files follow the rules of Windows."""
    return sys.platform == "win32"


def parts_inside(name: str, *, paths: type[PurePath] = PurePath) -> tuple[str, ...]:
    """The folders and the file of a name that stays inside of the folder that it is relative to.

    Raises:
      ValueError: it is empty, names a drive or a root, or has `..` in it.
    """
    path = paths(name)
    if not path.parts or path.anchor or ".." in path.parts:
        raise ValueError(f"{name!r} is no name inside of the output folder")
    return path.parts


def alike(name: str) -> str:
    """One spelling of all that people, and some systems, read as one name."""
    return unicodedata.normalize("NFKC", name).casefold()


def slashed(name: str, *, paths: type[PurePath] = PurePath) -> str:
    """A path as the user or the system wrote it, with `/` between its folders."""
    return paths(name).as_posix()


def refused_by_windows(name: str) -> str | None:
    """Why Windows cannot store a file under this name, with `/` between folders; None if it can."""
    for part in name.split("/"):
        if found := _CHARACTERS.search(part):
            return f"Windows allows no {found.group()!r} in a name"
        if part.endswith((".", " ")):
            return "Windows drops the dot or space at the end of a name"
        if _DEVICES.fullmatch(part):
            return f"{part.split('.')[0]!r} is the name of a device on Windows"
    return None
