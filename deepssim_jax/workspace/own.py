"""The files of kept work: each is noted before it comes into being, and no other is replaced or deleted.

Contract: a process has a list of its own, `kept-INDEX.jsonl` beside the work, with a line a file: its
name from there, with `/` between folders, and for a file that is written once for all `[name, sha256]`.
What someone else lays in between is in no list.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from deepssim_jax.workspace import files
from deepssim_jax.workspace.claims import WorkspaceError
from deepssim_jax.workspace.outputs import FILE as OUTPUTS


class Own:
    """The lists of all processes, and the one of this process to write in."""

    def __init__(self, work: Path, index: int = 0):
        self.work, self._index, self._path = work, index, work / f"kept-{index}.jsonl"
        self._names: set[str] = set()
        self._lasting: dict[str, str] = {}
        self._unwritten: list[str] = []
        self.learn()

    def learn(self) -> None:
        """Reads what other processes have noted meanwhile."""
        for path in self.lists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    noted = json.loads(line)
                    name, digest = noted if isinstance(noted, list) else (noted, None)
                    self._names.add(name)
                except (ValueError, TypeError):  # a line that a killed run was writing
                    continue
                if digest is not None:
                    self._lasting[name] = digest

    def lists(self) -> list[Path]:
        """The lists, of every process; none in work of versions that kept no list."""
        return sorted(path for path in self.work.glob("kept-*.jsonl") if path.stem[5:].isdecimal())

    def adopt(self, paths: Iterable[Path]) -> None:
        """Takes files for own that prove it themselves; they are noted with the next one."""
        self._unwritten = [name for path in paths if (name := self._name(path)) not in self._names]
        self._names.update(self._unwritten)

    def __contains__(self, path: Path) -> bool:
        return self._name(path) in self._names

    def note(self, *paths: Path) -> None:
        """Notes files that are about to be written.

        Raises:
          WorkspaceError: one of them is there, and is somebody else's.
        """
        self._check(*paths)
        names = [n for path in paths if (n := self._name(path)) not in self._names]
        if names or self._unwritten:
            self._append([json.dumps(name) for name in names])
            self._names.update(names)

    def _check(self, *paths: Path) -> None:
        for path in paths:
            if path in self or not (path.exists() or path.is_symlink()):
                continue
            self.learn()  # another process may have made the same of the same content
            if path not in self:
                raise WorkspaceError(
                    f"{path.name!r} in the kept work was not made by this program; move it away and "
                    "run the same command again"
                )

    def _append(self, lines: list[str]) -> None:
        files.make_empty(self._path)
        files.append_line(self._path, "\n".join([*map(json.dumps, self._unwritten), *lines]))
        self._unwritten = []

    def write(self, path: Path, content: bytes) -> None:
        """Writes a file of kept work whole, for its owner alone.

        Raises:
          WorkspaceError: see `note`.
          NoSpace: the disk is full.
        """
        self.note(path)
        files.write_bytes(path, content, access=files.Access.PRIVATE, process=self._index)

    def write_lasting(self, path: Path, content: bytes) -> None:
        """`write` of a file that stays as it is from then on; its hash is noted."""
        self._check(path)
        name, digest = self._name(path), hashlib.sha256(content).hexdigest()
        self._append([json.dumps([name, digest])])
        self._names.add(name)
        self._lasting[name] = digest
        self.write(path, content)

    def lasts(self, path: Path) -> bool:
        """Whether a file that was written once for all is as it was; True where its hash was not noted."""
        digest = self._lasting.get(self._name(path))
        return digest is None or files.holds(path, digest)

    def lasting(self) -> list[Path]:
        """Files that were written once for all."""
        return [self.work / name for name in self._lasting]

    def write_array(self, path: Path, array: np.ndarray) -> str:
        """Writes a `.npy` file likewise, and gives its SHA-256."""
        self.note(path)
        return files.write_array(path, array, access=files.Access.PRIVATE, process=self._index)

    def remove(self, path: Path) -> None:
        """Deletes a file, if it is one of these and there."""
        if path in self:
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Deletes what killed processes were writing."""
        lists = self.lists()
        numbers = {0, *(int(x.stem.removeprefix("kept-")) for x in lists)}
        for path in (*lists, self.work / OUTPUTS, *(self.work / name for name in self._names)):
            for number in numbers:
                files.temporary_of(path, number).unlink(missing_ok=True)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.work).as_posix()
