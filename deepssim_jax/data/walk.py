"""Every file below a folder, and why some of them are passed over.

Contract: nothing is left out in silence. `Walked.found` counts files; a link or a special file counts
as one, and a folder that is not searched as the files in it. Only regular files are opened.
"""

import dataclasses
import os
from pathlib import Path, PurePath

from deepssim_jax.data.formats import Format, Recognised, recognise
from deepssim_jax.data.records import EARLIER, Links, Rejected, Unused
from deepssim_jax.workspace import MARKER, WORK, is_kept_work

# What photo managers and archivers leave beside pictures: smaller copies of them.
_BYPRODUCTS = {"__MACOSX": "archiver's by-products", "@eaDir": "a disk station's thumbnails"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file that may be an image: the id that it would have, and its format."""

    name: str
    path: Path
    recognised: Recognised


@dataclasses.dataclass
class Walked:
    """What a folder holds."""

    found: int = 0
    files: list[Entry] = dataclasses.field(default_factory=list)
    rejected: list[Rejected] = dataclasses.field(default_factory=list)
    unused: list[Unused] = dataclasses.field(default_factory=list)
    elsewhere: set[Path] = dataclasses.field(default_factory=set)  # folders that links lead to


def printable(name: str) -> str:
    r"""A file's name as text: bytes that are not UTF-8 are spelled out (`gr\xf6\xdfe.png`)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def named(path: PurePath, root: PurePath) -> str:
    """The id of a file or folder below `root`: its path from there, with `/` on every system."""
    return printable(path.relative_to(root).as_posix())


def walk(root: Path, links: Links) -> Walked:
    """Lists a folder and all below it.

    Args:
      root: the folder; if an earlier run wrote it, all but the work that it keeps there is searched.
      links: whether links that leave it are followed. Links that run in a circle never are.
    """
    out = Walked()
    top = root.resolve()
    seen = {top}
    stack = [str(root)]
    while stack:
        folder = stack.pop()
        name = "" if folder == str(root) else named(Path(folder), root)
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda e: e.name, reverse=True)
        except OSError as error:
            out.found += 1
            out.rejected.append(Rejected(name or ".", f"cannot be opened: {error.strerror}"))
            continue
        owned = any(entry.name == MARKER for entry in inside)
        if name and owned:
            # Links that leave it could lead here again.
            images = len(walk(Path(folder), Links.INSIDE).files)
            _pass_over(out, folder, name, EARLIER, images)
            continue
        kept = (e for e in inside if e.name == WORK and e.is_dir() and is_kept_work(Path(e.path)))
        if owned and (work := next(kept, None)):
            _pass_over(out, work.path, WORK, EARLIER)
            inside.remove(work)
        for entry in inside:
            _take(out, entry, named(Path(entry.path), root), (top, seen, stack), links)
    return out


def _take(
    out: Walked,
    entry: os.DirEntry,
    name: str,
    state: tuple[Path, set[Path], list[str]],
    links: Links,
) -> None:
    top, seen, stack = state
    if entry.is_symlink():
        real, reason = _followed(entry, top, links)
        if real is not None and not real.is_relative_to(top):
            out.elsewhere.add(real if real.is_dir() else real.parent)
        if reason is not None:
            out.found += 1
            if entry.name.startswith("."):
                out.unused.append(Unused(name, "hidden"))
            else:
                out.rejected.append(Rejected(name, reason))
            return
    if entry.is_dir():
        if entry.name.startswith("."):
            _pass_over(out, entry.path, name, "a hidden folder")
        elif entry.name in _BYPRODUCTS:
            _pass_over(out, entry.path, name, _BYPRODUCTS[entry.name])
        elif (target := Path(entry.path).resolve()) in seen:
            out.found += 1
            out.rejected.append(Rejected(name, "a link to a folder that was already read"))
        else:
            seen.add(target)
            stack.append(entry.path)
        return
    out.found += 1
    if entry.name.startswith("."):
        out.unused.append(Unused(name, "hidden"))
    elif not entry.is_file():
        out.rejected.append(Rejected(name, "is no regular file but a pipe, socket or device"))
    else:
        _recognised(out, Path(entry.path), name)


def _recognised(out: Walked, path: Path, name: str) -> None:
    try:
        found = recognise(path)
    except OSError as error:
        out.rejected.append(Rejected(name, f"cannot be opened: {error.strerror}"))
        return
    if found is None:
        known = f"no known image format, by name ({path.suffix or 'no suffix'}) or content"
        out.unused.append(Unused(name, known))
    elif found.format is Format.ANALYZE and not header_of(path).is_file():
        out.rejected.append(Rejected(name, f"its header {header_of(path).suffix} is missing"))
    else:
        out.files.append(Entry(name, path, found))


def header_of(path: Path) -> Path:
    """The `.hdr` of an `.img`, in the same letters."""
    return path.with_suffix(".HDR" if path.suffix.isupper() else ".hdr")


def _followed(entry: os.DirEntry, top: Path, links: Links) -> tuple[Path | None, str | None]:
    """Where a link leads to, or why it is not followed."""
    try:
        real = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):
        return None, "a link that points nowhere or to itself"
    if links is Links.INSIDE and not real.is_relative_to(top):
        return (
            None,
            "a link that leaves the folder; copy the file, or follow it with --follow_links",
        )
    return real, None


def _pass_over(out: Walked, folder: str, name: str, reason: str, images: int = 0) -> None:
    files = 0
    for place, inside, names in os.walk(folder):
        files += len(names) + sum(os.path.islink(os.path.join(place, link)) for link in inside)
    out.found += files
    said = "1 file" if files == 1 else f"{files:,} files"
    if images:
        said += f", {images:,} of an image format; give this folder itself to include them"
    out.unused.append(Unused(f"{name}/", f"{reason}, of {said}", files, images))
