"""The list of a workspace's outputs: what it wrote, by name and content, so that it replaces nothing else.

Contract: `outputs.jsonl` has one line `[name, sha256]` a write, noted before the file comes into
being; `null` says that it was removed, `""` that its content is not followed (a folder lent to a
library, a file that grows). A file is ours if its content is one of those noted for its name.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from deepssim_jax.workspace import files
from deepssim_jax.workspace.claims import MARKER, WORKED

GROWS = ""
FILE = "outputs.jsonl"


def is_kept_work(folder: Path) -> bool:
    """Whether a folder beside our marker holds kept work: its list, or what it lists and nothing else."""
    names = {entry.name for entry in folder.iterdir() if not entry.is_symlink()}
    return FILE in names or bool(names & WORKED and names <= WORKED)


class Outputs:
    """The list, in memory and in its file."""

    def __init__(self, path: Path):
        self.path = path
        self._noted: dict[str, list[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                name, digest = json.loads(line)
            except ValueError:  # an empty line, or one that a killed run was writing
                continue
            self._take(name, digest)

    def __contains__(self, name: str) -> bool:
        return name in self._noted

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._noted.keys() - {MARKER}))

    def note_marker(self, digest: str) -> None:
        """Notes the marker that the folder was begun with, which is no output."""
        if MARKER not in self._noted:
            self.note(MARKER, digest)

    @property
    def begun(self) -> bool:
        """Whether the list is there, if only empty."""
        return self.path.is_file()

    def begin(self) -> None:
        """Makes the list, by which the folder is known as ours from then on."""
        files.make_empty(self.path)

    def note(self, name: str, digest: str | None) -> None:
        """Notes what is about to be written, or `None` after it was removed."""
        known = self._noted.get(name, [None])
        if known[-1] == digest:
            return
        self.begin()
        files.append_line(self.path, json.dumps([name, digest]))
        self._take(name, digest)

    def last(self, name: str) -> str | None:
        """SHA-256 of the last write under this name, `GROWS`, or None."""
        return self._noted.get(name, [None])[-1]

    def ours(self, name: str, path: Path) -> bool:
        """Whether what lies at `path` was written here; what does not exist counts as ours."""
        if not path.exists() and not path.is_symlink():
            return True
        noted = self._noted.get(name, [])
        # A write after it may have been noted and then interrupted.
        if GROWS in noted[-2:]:
            return not path.is_symlink()
        return path.is_file() and not path.is_symlink() and files.sha256(path) in noted

    def _take(self, name: str, digest: str | None) -> None:
        if digest is None:
            self._noted.pop(name, None)
        else:
            self._noted.setdefault(name, []).append(digest)
