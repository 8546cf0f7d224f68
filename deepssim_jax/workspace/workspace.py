"""A folder that a command owns: its outputs at the top, its kept work below `work`.

Contract: the only thing that creates, replaces or deletes a file or folder of a command. A
`Workspace` exists only while its folder is claimed (`claims`), writes files whole or not at all
(`files`), and replaces and deletes only what it wrote itself, by the lists that it keeps: of outputs
(`outputs`) and of kept work (`own`). A marker without such a list proves nothing.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from deepssim_jax.workspace import claims, files, names
from deepssim_jax.workspace.claims import WORK, Overlap, WorkspaceError
from deepssim_jax.workspace.examine import check_alone
from deepssim_jax.workspace.facts import differences, noted
from deepssim_jax.workspace.files import Access
from deepssim_jax.workspace.outputs import FILE as _OUTPUTS
from deepssim_jax.workspace.outputs import GROWS, Outputs
from deepssim_jax.workspace.scratch import scratch_folder
from deepssim_jax.workspace.steps import Kept, Processes, Section

_READER = Processes(index=1)  # anyone but the first process writes nothing
_WORK_FLAG, _ANY = "--work", Overlap.ALLOWED
_SECRET, _SECRET_BYTES = "secret", 32


class Workspace(Section):
    """A claimed folder, and the outermost section of steps. Use `with Workspace.open(...) as workspace`."""

    def __init__(
        self,
        root: Path,
        processes: Processes = Processes(),
        work: Path | None = None,
        flag: str | None = None,
    ):
        """Private: `open` claims the folder first."""
        self._root, self._processes, self._flag = root, processes, flag
        self._work = root / WORK if work is None else work
        super().__init__(Kept(self._work, processes))
        self._outputs = Outputs(self._work / _OUTPUTS)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        out: str | Path,
        *,
        command: str,
        inputs: Mapping[str, str | Path] | None = None,
        reads: Mapping[str, str | Path] | None = None,
        flag: str = "--out",
        overlap: Overlap = Overlap.NEVER,
        work: str | Path | None = None,
        processes: Processes = Processes(),
    ) -> Iterator["Workspace"]:
        """Claims a folder for one command, before anything is read.

        Args:
          out: the folder: new, empty, or this command's own of an earlier run.
          command: who owns it.
          inputs: images that are only read, by flag: {"--real": "images/"}; kept apart from `out` and
            from each other.
          reads: what else is read, such as a model; kept apart from `out`.
          flag: the flag of `out`, for messages.
          overlap: whether two inputs may be the same.
          work: where steps and caches are kept instead of in `out`, which is to be given away and holds
            nothing else: the folder of the flag `--work`, claimed likewise.
          processes: that work on it together; the first one claims and writes.

        Raises:
          WorkspaceError: the folder is somebody else's, another command's, in use by another process,
            or cannot be written; it lies inside of an input; inputs lie inside of each other; or
            outputs were changed since they were written. Nothing was written.
        """
        root = Path(out).expanduser()
        apart, read = (
            {name: Path(path).expanduser() for name, path in (given or {}).items()}
            for given in (inputs, reads)
        )
        kept = None if work is None else Path(work).expanduser()
        claims.check_places(root, apart, reads=read, flag=flag, overlap=overlap)
        if kept is not None:
            claims.check_places(kept, {**apart, **read}, flag=_WORK_FLAG, overlap=_ANY)
            claims.check_apart(root, kept, flags=(flag, _WORK_FLAG))
        with contextlib.ExitStack() as stack:
            error: WorkspaceError | None = None
            if processes.first:
                try:
                    folders = [(root, command, flag)]
                    if kept is not None:
                        folders.append((kept, f"{command}, its {_WORK_FLAG}", _WORK_FLAG))
                    listed = (root / WORK if kept is None else kept) / _OUTPUTS
                    for folder, owner, its_flag in folders:
                        claims.check_listed(folder, listed, command=owner, flag=its_flag)
                    for folder, owner, its_flag in folders:
                        claim = claims.claimed(folder, command=owner, flag=its_flag)
                        stack.enter_context(claim)
                    begun = cls(root, work=kept)
                    begun._sweep()
                    stack.callback(begun._leave)
                    begun._outputs.begin()
                    begun._outputs.note_marker(files.sha256(root / claims.MARKER))
                    begun._check_outputs(flag)
                    check_alone(root, work=begun._work, flag=flag)
                except WorkspaceError as found:
                    error = found
            # Where the first process cannot, no process goes on.
            if not processes.agreed(error is None):
                raise error or WorkspaceError(
                    f"{flag}={root.name!r}: the first process could not claim it and says why"
                )
            yield cls(root, processes, kept, flag)
            processes.wait()  # nobody reads on before the first one has written everything

    @classmethod
    @contextlib.contextmanager
    def temporary(cls, *, command: str) -> Iterator["Workspace"]:
        """A workspace that is gone when the block ends, for calls without an output folder."""
        with (
            scratch_folder() as folder,
            claims.claimed(folder, command=command, flag="the temporary folder"),
        ):
            yield cls(folder)

    @classmethod
    def finished(cls, out: str | Path, *, command: str, flag: str) -> "Workspace":
        """The folder of an earlier command, only to be read: nothing is claimed or written.

        Raises:
          WorkspaceError: it is not a folder of that command.
        """
        root = Path(out).expanduser()
        if not (root / claims.MARKER).is_file():
            raise WorkspaceError(
                f"{flag}={root.name!r} must be the --out of a finished `deepssim {command}`"
            )
        claims.check_owner(root, command=command, flag=flag)
        return cls(root, _READER)

    @property
    def processes(self) -> Processes:
        """Those that work on this folder together."""
        return self._processes

    def by_first(self, work: Callable[[], object]) -> None:
        """Runs what writes the outputs, in the first process alone; the others wait for it."""
        processes = self._processes
        if processes.first:
            self._processes = Processes()
            try:
                with self._kept.alone():
                    work()
            finally:
                self._processes = processes
        processes.wait()

    @property
    def root(self) -> Path:
        """The folder."""
        return self._root

    def path(self, name: str) -> Path:
        """Where an output of this name lies, or will lie.

        Raises:
          ValueError: the name leads out of the folder or into the kept work, or cannot be stored.
        """
        parts = names.parts_inside(name)
        if names.on_windows() and (reason := names.refused_by_windows(name)):
            raise WorkspaceError(f"{name!r} cannot be written: {reason}; give another name")
        if (parts[0] == WORK and self._work.parent == self._root) or parts[0] in claims.OWN_FILES:
            raise ValueError(f"{name!r} is kept for the work in progress; give another name")
        path = self._root / name
        # A link that someone laid in here must not lead a write out of the folder.
        if not path.parent.resolve().is_relative_to(self._root.resolve()):
            raise WorkspaceError(
                f"{name!r} leads out of {self._root.name!r} over a link; remove it"
            )
        return path

    def write(self, name: str, content: bytes, *, access: Access = Access.PRIVATE) -> Path:
        """Writes an output whole; files are for their owner alone unless said otherwise.

        Args:
          name: relative to the folder, with `/` between folders.
          content: of the file.
          access: who may read it: `SHARED` for what holds nothing of patients.

        Raises:
          WorkspaceError: a file of that name is there that this workspace did not write.
          NoSpace: the disk is full; what was there is as it was.
        """
        path, digest = self.path(name), hashlib.sha256(content).hexdigest()
        if not self._processes.first:
            return path
        # The same bytes may lie there unlisted after the machine lost its power.
        if not self._outputs.ours(name, path) and not files.holds(path, digest):
            raise WorkspaceError(_not_ours(path, self._root))
        self._outputs.note(name, digest)
        files.write_bytes(path, content, access=access)
        return path

    def append(self, name: str, line: str) -> None:
        """Adds a line to an output that grows; the first one makes it, for its owner alone."""
        if not self._processes.first:
            return
        path = self.path(name)
        if not path.exists():
            self.write(name, b"")
        if not self._outputs.ours(name, path):
            raise WorkspaceError(_not_ours(path, self._root))
        self._outputs.note(name, GROWS)
        files.append_line(path, line)

    def remove(self, name: str) -> None:
        """Deletes an output that this workspace wrote; does nothing if it is gone already.

        Raises:
          WorkspaceError: it was not written here, or changed since.
        """
        path = self.path(name)
        if not self._processes.first:
            return
        if name not in self._outputs or not self._outputs.ours(name, path):
            raise WorkspaceError(_not_ours(path, self._root))
        path.unlink(missing_ok=True)
        files.sync_folder(path.parent)
        self._outputs.note(name, None)

    def remove_others(self, names: Iterable[str]) -> None:
        """Deletes the outputs of earlier runs that are not among these; lent folders stay."""
        for name in set(self) - set(names):
            if not name.endswith("/"):
                self.remove(name)

    def intact(self, name: str) -> bool:
        """Whether an output is there with the bytes that were written last."""
        path, last = self.path(name), self._outputs.last(name)
        return bool(last) and files.holds(path, str(last))

    def __iter__(self) -> Iterator[str]:
        """Names of the outputs that were written here, of earlier runs too."""
        return iter(self._outputs)

    def check(self, name: str, facts: Mapping[str, object], *, flag: str = "--out") -> None:
        """Refuses a folder that `bind` has made that of something else.

        Args:
          name: of the file that says so, beside the kept work.
          facts: settings and hashes by what they are called in messages; all of them, or some.
          flag: that of the folder, for messages.

        Raises:
          WorkspaceError: naming every fact that differs, with both values.
        """
        path = self._work / f"{name}.json"
        if not path.exists():
            return
        known = json.loads(path.read_text(encoding="utf-8"))
        other = differences(known, noted(facts))
        if other:
            raise WorkspaceError(
                f"{flag}={self._root.name!r} is of another {name}: {'; '.join(other)}. Take another "
                "folder, or give what it was begun with"
            )

    def bind(self, name: str, facts: Mapping[str, object], *, flag: str = "--out") -> None:
        """Writes down, once, what the outputs are of; see `check`, which comes first."""
        self.check(name, facts, flag=flag)
        path = self._work / f"{name}.json"
        if self._processes.first and not path.exists():
            content = json.dumps(noted(facts), indent=1, sort_keys=True).encode()
            self._kept.own.write_lasting(path, content)

    def keep(self, name: str, content: bytes) -> None:
        """Writes a private file beside the kept work: what stays, though the outputs are given away."""
        if self._processes.first:
            self._kept.own.write(self._work / name, content)

    def kept(self, name: str) -> bytes | None:
        """What `keep` wrote last under this name; None if nothing."""
        path = self._work / name
        return path.read_bytes() if path in self._kept.own and path.is_file() else None

    def secret(self) -> bytes:
        """32 random bytes, drawn once and kept in the private work: the key of aliases.

        A key made from the images could be made again by whoever has these.

        Raises:
          WorkspaceError: it was changed since.
        """
        path = self._work / _SECRET
        if self._processes.first and not path.exists():
            self._kept.own.write_lasting(path, secrets.token_bytes(_SECRET_BYTES))
        self._processes.wait()
        self._kept.own.learn()
        if not self._kept.own.lasts(path):
            raise WorkspaceError(
                f"the key of aliases, {_SECRET!r} in the kept work, was changed, and with it every alias; "
                "put it back, or take another folder"
            )
        return path.read_bytes()

    def lend(self, name: str) -> Path:
        """A folder for a library that writes and deletes files by itself (Orbax, TensorBoard).

        Raises:
          WorkspaceError: something of that name is there that this workspace did not make.
        """
        path, listed = self.path(name), f"{name}/"
        if not self._processes.first:
            return path
        if listed not in self._outputs:
            if path.exists():
                raise WorkspaceError(_not_ours(path, self._root))
            self._outputs.note(listed, GROWS)
        files.make_folder(path, access=Access.PRIVATE)
        return path

    def set_aside(self, path: Path) -> Path:
        """Moves a file or folder of a lent folder to `unreadable`, so that people can look at it."""
        inside = path.resolve().relative_to(self._root.resolve())
        if f"{inside.parts[0]}/" not in self._outputs:
            raise WorkspaceError(f"{inside.parts[0]!r} is not lent and nothing in it is moved")
        folder = self.lend("unreadable")
        stem = "-".join(inside.parts)
        number = sum(entry.name.startswith(stem) for entry in os.scandir(folder))
        target = folder / (stem if not number else f"{stem}.{number}")
        os.rename(path, target)
        files.sync_folder(folder)
        return target

    def prune(self) -> None:
        """Deletes what this run did not use: steps, caches, and what caches hold of other images."""
        if self._processes.first:
            self._kept.prune()

    def keep_apart(self, folders: Iterable[Path]) -> None:
        """Refuses to write in these folders, of files that only a manifest names or a link leads to.

        Raises:
          WorkspaceError: the folder, or that of its work, is or lies inside of one of them, or holds one.
        """
        outs = {} if self._flag is None else {self._flag: self._root}
        if self._work.parent != self._root:
            outs[_WORK_FLAG] = self._work
        claims.check_read(outs, folders)

    def _sweep(self) -> None:
        """Deletes what a killed run was writing."""
        self._kept.own.sweep()
        for name in self._outputs:
            if not name.endswith("/"):
                files.temporary_of(self._root / name).unlink(missing_ok=True)

    def _leave(self) -> None:
        """Takes away the empty lists of a run that wrote nothing."""
        path = self._outputs.path
        if any(Outputs(path)) or self._kept.own.lists():
            return
        path.unlink(missing_ok=True)
        if self._work.parent == self._root:
            with contextlib.suppress(OSError):
                self._work.rmdir()

    def _check_outputs(self, flag: str) -> None:
        """Refuses to go on over outputs that someone has changed: their run would call them right."""
        changed = [
            name
            for name in self._outputs
            if not name.endswith("/") and not self._outputs.ours(name, self._root / name)
        ]
        if changed:
            # Names of files can be names of patients: they go into a file, never on the screen.
            listing = self._work / "changed.txt"
            self._kept.own.write(listing, "".join(f"{name}\n" for name in changed).encode())
            try:
                where = os.path.relpath(listing, self._root.parent)  # whose path the user typed
            except ValueError:  # two drives of Windows
                where = listing.name
            raise WorkspaceError(
                f"{flag}={self._root.name!r}: {len(changed):,} of its files changed after being written; "
                f"{where} lists them. Move them away and run the same command again: it writes them anew"
            )


def _not_ours(path: Path, root: Path) -> str:
    return (
        f"{path.name!r} in {root.name!r} was not made by this program, or was changed since, and is "
        "left as it is; move it away and run the same command again"
    )
