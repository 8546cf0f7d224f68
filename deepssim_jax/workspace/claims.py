"""Whose folder it is: inputs apart from outputs, the marker that proves ownership, and the lock.

All of it is settled before anything is read or written, by the identity of folders on the disk
(device and inode), so that links, `..` and upper and lower case do not deceive.
"""

import contextlib
import datetime
import enum
import json
import os
import platform
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import filelock

from deepssim_jax.workspace import files
from deepssim_jax.workspace.names import on_windows

MARKER = ".deepssim-workspace.json"
# Where an output folder keeps steps and caches, and what is in there.
WORK = "work"
WORKED = {"steps", "cache"}
FORMAT = 1
_LOCK, _HOLDER = ".deepssim-workspace.lock", ".deepssim-workspace.holder.json"
# What a system puts into an empty folder by itself.
NOBODYS = {".DS_Store", "Thumbs.db", "desktop.ini", "lost+found"}
_SAME = "every image would be found to be a copy of itself. Did you mean another folder?"
_ALLOW = " If this is intended, add --allow_same"
OWN_FILES = frozenset({MARKER, _LOCK, _HOLDER})
# The same while they are written.
_WRITTEN = [files.temporary_of(Path(name)).name for name in (MARKER, _HOLDER)]


class WorkspaceError(ValueError):
    """A folder that cannot be used; the message names the flag and the remedy."""


class Overlap(enum.Enum):
    """Whether two inputs may be the same folder: never, not unless the user says so, or because he did."""

    NEVER = "never"
    REFUSED = "refused"
    ALLOWED = "allowed"


def check_places(
    out: Path,
    inputs: Mapping[str, Path],
    *,
    flag: str,
    reads: Mapping[str, Path] | None = None,
    overlap: Overlap = Overlap.NEVER,
) -> None:
    """Refuses outputs inside of inputs and inputs inside of each other.

    Args:
      out: the folder to write into; it need not exist.
      inputs: by flag, such as "--real"; one that does not exist is left to its reader.
      flag: that of `out`, for messages.
      reads: what is read beside them; held against `out` alone.
      overlap: whether two inputs may be the same.

    Raises:
      WorkspaceError: naming both flags.
    """
    target = _chain(out)
    for name, path in {**inputs, **(reads or {})}.items():
        if not path.exists():
            continue
        chain = _chain(path)
        if chain[0] in target:
            raise WorkspaceError(
                f"{flag} is {name} or lies inside of it, and inputs are never written to; give a "
                f"folder outside of {name}"
            )
        if target[0] in chain:
            raise WorkspaceError(
                f"{name} lies inside of {flag}, where files are replaced; give {flag} a folder of "
                "its own"
            )
    chains = [(name, path, _chain(path)) for name, path in inputs.items() if path.exists()]
    for number, (first, outer_path, outer) in enumerate(chains):
        for second, inner_path, inner in chains[number + 1 :]:
            if overlap is Overlap.ALLOWED:
                continue
            if outer[0] == inner[0] or _linked(outer_path, inner_path):
                hint = _ALLOW if overlap is Overlap.REFUSED else ""
                raise WorkspaceError(f"{first} and {second} are the same files: {_SAME}{hint}")
    for outer_name, outer_path, outer in chains:
        for inner_name, inner_path, inner in chains:
            # A listing may lie in a folder of images; a folder of images inside of another may not.
            if outer[0] in inner[1:] and outer_path.is_dir() and inner_path.is_dir():
                raise WorkspaceError(
                    f"{inner_name} lies inside of {outer_name}, which would hold its images too; "
                    "keep the two apart"
                )


def _linked(first: Path, second: Path) -> bool:
    """Whether two folders hold hard links of the same files, and no others."""
    if not first.is_dir() or not second.is_dir():
        return False
    found = _linked_files(first)
    return bool(found) and found == _linked_files(second)


def _linked_files(folder: Path) -> set[tuple[int, int]] | None:
    """What identifies the files below a folder; None as soon as one has no other name."""
    found = set()
    for place, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if not name.startswith(".")]
        for name in names:
            try:
                status = os.lstat(os.path.join(place, name))
            except OSError:
                return None
            if name.startswith(".") or not stat.S_ISREG(status.st_mode):
                continue
            if status.st_nlink < 2:
                return None
            found.add((status.st_dev, status.st_ino))
    return found


def check_read(outs: Mapping[str, Path], folders: Iterable[Path]) -> None:
    """Refuses an output in a folder of files that are read without being in an input's folder.

    Args:
      outs: by flag.
      folders: of the files that a manifest names or a link leads to.

    Raises:
      WorkspaceError: naming the output's flag.
    """
    targets = {flag: _chain(out) for flag, out in outs.items()}
    for folder in folders:
        chain = _chain(folder)
        for flag, target in targets.items():
            if chain[0] in target:
                raise WorkspaceError(
                    f"{flag} lies in a folder of images that a listing names or a link leads to, and "
                    "inputs are never written to; give a folder outside of theirs"
                )
            if target[0] in chain:
                raise WorkspaceError(
                    f"a listing names, or a link leads to, images inside of {flag}, where files are "
                    f"replaced; give {flag} a folder of its own"
                )


def check_apart(first: Path, second: Path, *, flags: tuple[str, str]) -> None:
    """Refuses two outputs one of which is, or lies inside of, the other; neither need exist.

    Raises:
      WorkspaceError: naming both flags.
    """
    chains = _chain(first), _chain(second)
    for (inner, outer), (chain, other) in zip(
        (flags, flags[::-1]), (chains, chains[::-1]), strict=True
    ):
        if other[0] in chain:
            raise WorkspaceError(
                f"{inner} is {outer} or lies inside of it; give each a folder of its own"
            )


def _chain(path: Path) -> list[tuple[object, ...]]:
    """What identifies a path and every folder above it.

    Device and inode of what exists; of what does not, those of the nearest folder above it that does, and
    the names from there, in lower case, because some systems make no difference.
    """
    real = Path(os.path.realpath(path))
    found: list[tuple[object, ...]] = []
    below: list[Path] = []
    for place in (real, *real.parents):
        try:
            status = place.stat()
        except OSError:
            below.append(place)
            continue
        here = (status.st_dev, status.st_ino)
        if not found:
            found = [(*here, *_names(missing, place)) for missing in below]
        found.append(here)
    return found or [("nowhere", *_names(real, Path(real.anchor)))]  # on a drive that is not there


def _names(path: Path, above: Path) -> tuple[str, ...]:
    return tuple(name.casefold() for name in path.relative_to(above).parts)


def check_owner(out: Path, *, command: str, flag: str) -> bool:
    """Whether the folder is this command's already; False if it is empty or not there.

    Raises:
      WorkspaceError: it is no folder, someone else's, or another command's.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise WorkspaceError(f"{flag}={_name(out)!r} is a file; give a folder")
    try:
        names = {entry.name for entry in os.scandir(out)}
        others = _not_made_here(out, names)
    except OSError as error:
        raise _unusable(out, flag, error) from error
    if MARKER in names and others:
        raise WorkspaceError(
            f"{flag}={_name(out)!r}: its {min(others)} was not made by this program and is left as it is; "
            "move it away, or give another folder"
        )
    if MARKER not in names:
        foreign = others | names - OWN_FILES - NOBODYS - set(_WRITTEN)
        if foreign:
            raise WorkspaceError(
                f"{flag}={_name(out)!r} holds {len(foreign):,} files or folders that this program did "
                "not make, and none of them is touched; give a new or an empty folder"
            )
        return False
    try:
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
        owner, version = marker["command"], marker["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"{flag}={_name(out)!r}: its marker {MARKER} cannot be read; give another folder"
        ) from error
    if version != FORMAT:
        raise WorkspaceError(
            f"{flag}={_name(out)!r} is of format {version} and this version writes {FORMAT}; give "
            "another folder"
        )
    if owner != command:
        raise WorkspaceError(
            f"{flag}={_name(out)!r} holds the work of `{owner}`, and this is `{command}`; give each "
            "command a folder of its own"
        )
    return True


def _not_made_here(out: Path, names: set[str]) -> set[str]:
    """Files that are called like our lock and its note, and are somebody else's.

    Our lock is an empty file; who holds it stands in the note.
    """
    found = set()
    with contextlib.suppress(FileNotFoundError):  # its holder has just left
        if _LOCK in names:
            lock = (out / _LOCK).lstat()
            if not stat.S_ISREG(lock.st_mode) or lock.st_size:
                found.add(_LOCK)
        if _HOLDER in names and _held_by(out) is None and (out / _HOLDER).lstat():
            found.add(_HOLDER)
    return found


def check_listed(out: Path, listed: Path, *, command: str, flag: str) -> None:
    """Refuses a folder that has our marker, and not the list that a run begins with: somebody else's.

    Args:
      out: the folder.
      listed: the list, in it or in the folder of its work.
      command: who would own it.
      flag: that of `out`, for messages.

    Raises:
      WorkspaceError: also if the list was begun with another folder of work, or the work lies behind a link.
    """
    if not check_owner(out, command=command, flag=flag):
        return
    _check_links(out, listed.parent, flag=flag)
    for folder in (out, listed.parent):
        if folder.is_dir() and not os.access(folder, os.W_OK):
            raise WorkspaceError(
                f"{flag}={_name(out)!r}: nothing can be written to {_name(folder)!r}; make it writable "
                f"(chmod u+w), or give another {flag}"
            )
    if listed.is_file():
        return
    names = {name for name in files.with_content(out) if not name.startswith(".")} - NOBODYS
    inside = listed.is_relative_to(out)
    # Earlier versions began the list with the first output, after some work.
    names -= {WORK} if listed.parent != out else WORKED
    if names and inside:
        raise WorkspaceError(
            f"{flag}={_name(out)!r} has our marker and no list of what was written, as after its {WORK!r} "
            f"was deleted: none of its {len(names):,} files or folders is touched; give a new or an empty "
            "folder"
        )
    if names:
        raise WorkspaceError(
            f"{flag}={_name(out)!r} was begun with another --work: give the same one, or another {flag}"
        )


def _check_links(out: Path, work: Path, *, flag: str) -> None:
    """Refuses kept work that a link would lay elsewhere, such as into the images; `out` itself may be one."""
    folders = [Path(place) / name for place, inside, _ in os.walk(work) for name in inside]
    for folder in (*([work] if work.parent == out else []), *folders):
        if folder.is_symlink():
            raise WorkspaceError(
                f"{flag}={_name(out)!r}: {folder.name!r} in it is a link, and its kept work lies nowhere "
                "else; put the folder itself there, or give another one"
            )


@contextlib.contextmanager
def claimed(out: Path, *, command: str, flag: str) -> Iterator[None]:
    """Holds a folder for this process: made, marked and locked.

    A folder that the block leaves without any content, and that was made here, is removed again, with
    those above it that were made for it.

    Raises:
      WorkspaceError: see `check_owner`; or another process holds it; or it cannot be written.
    """
    check_owner(out, command=command, flag=flag)
    made = [place for place in (out, *out.parents) if not place.exists()]
    try:
        files.make_folder(out)
    except OSError as error:
        raise _unusable(out, flag, error) from error
    # An empty file of that name can be anybody's; what was not made here is not removed either.
    lock, ours = filelock.FileLock(out / _LOCK), not os.path.lexists(out / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise WorkspaceError(f"{flag}={_name(out)!r} is in use by {_holder(out)}") from error
    except OSError as error:
        raise _unusable(out, flag, error) from error
    try:
        # Asked again: between the first look and the lock another process may have been here.
        known = check_owner(out, command=command, flag=flag)
        try:
            _mark(out, None if known else command)
        except files.NoSpace:
            raise
        except OSError as error:
            raise _unusable(out, flag, error) from error
        try:
            yield
        finally:
            if not known and {entry.name for entry in os.scandir(out)} <= OWN_FILES:
                (out / MARKER).unlink()
            (out / _HOLDER).unlink(missing_ok=True)
    finally:
        empty = not (out / MARKER).exists()
        # While it is held: what another process locks after that is a file of its own.
        if empty and ours:
            with contextlib.suppress(OSError):
                (out / _LOCK).unlink()
        lock.release()
        if empty:
            with contextlib.suppress(OSError):
                # There no file is deleted that is open, or that another process opened.
                if ours and on_windows():
                    (out / _LOCK).unlink()
                for place in made:
                    place.rmdir()


def _mark(out: Path, command: str | None) -> None:
    """Says who holds a folder, and if it is new, whose it is."""
    for name in _WRITTEN:  # by a run that was killed
        (out / name).unlink(missing_ok=True)
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()
    holder = {"pid": os.getpid(), "host": platform.node(), "since": now}
    files.write_bytes(out / _HOLDER, json.dumps(holder).encode(), access=files.Access.PRIVATE)
    if command is not None:
        marker = {"command": command, "format": FORMAT}
        files.write_bytes(out / MARKER, (json.dumps(marker) + "\n").encode())


def _name(out: Path) -> str:
    """For messages, also of `.` and of a link."""
    return Path(os.path.realpath(out)).name


def _holder(out: Path) -> str:
    return f"{_held_by(out) or 'another process'}; wait until it ends, or give another folder"


def _held_by(out: Path) -> str | None:
    """Who holds the folder by its note; None if that is none of ours."""
    path = out / _HOLDER
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        who = f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if path.is_symlink() else who


def _unusable(out: Path, flag: str, error: OSError) -> WorkspaceError:
    reason = (error.strerror or type(error).__name__).lower()
    return WorkspaceError(f"{flag}={_name(out)!r} cannot be used: {reason}; give another folder")
