"""Pieces of work that are kept: keyed by what they are made from, whole or absent.

Contract: a step is a file `NAME-KEY-CONTENT.SUFFIX` in one flat folder. KEY is the hash of the
step's inputs, its settings and the code that makes it, so that a step of other inputs is never
taken for this one; CONTENT is that of its own bytes, so that a damaged file is made again.
"""

import contextlib
import enum
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepssim_jax.workspace import values
from deepssim_jax.workspace.cache import (
    Cache,
    Entries,
    Made,
    files_of_shard,
    notes_in,
    remove_cache,
    whole_note,
)
from deepssim_jax.workspace.claims import NOBODYS, OWN_FILES
from deepssim_jax.workspace.keys import code_of, key_of
from deepssim_jax.workspace.outputs import FILE as OUTPUTS
from deepssim_jax.workspace.own import Own
from deepssim_jax.workspace.processes import Processes, Progress, silent

_KEY, _CONTENT = 24, 16
_STEPS, _CACHES = "steps", "cache"
_FILE = re.compile(
    r"(?P<stem>[A-Za-z0-9_.-]+-[0-9a-f]{24}(?:\.\d+-\d{9})?)-(?P<content>[0-9a-f]{16})"
    r"(?P<suffix>\.npy|\.npz|\.json)"
)
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class By(enum.Enum):
    """Which processes make a step: the first one alone, or all of them together, over their devices."""

    FIRST = "first"
    ALL = "all"


class Kept:
    """The files of steps in one folder, and which of them this run has used."""

    def __init__(self, work: Path, processes: Processes = Processes()):
        self.processes = processes
        self.own = Own(work, processes.index)
        self._folder, self._places = work / _STEPS, work / _CACHES
        if not self.own.lists():
            self.own.adopt(_proven(work))
        self._used: set[str] = set()
        self._names = self._scan()
        self._caches: dict[str, Cache] = {}

    def cache(self, stem: str) -> Cache:
        """The entries of single images under a step's name."""
        if stem not in self._caches:
            self._caches[stem] = Cache(self._places / stem, self.own, self.processes)
        return self._caches[stem]

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While one process makes what the others wait for, it waits for none of them."""
        processes, self.processes = self.processes, Processes()
        try:
            yield
        finally:
            self.processes = processes

    def _scan(self) -> dict[str, str]:
        self.own.learn()
        return {
            x["stem"]: x.string for x in _steps(self._folder) if self._folder / x.string in self.own
        }

    def agreed_load(self, stem: str) -> tuple[bool, Any]:
        """`load`, with the first process's answer in all of them."""
        there, value = self.load(stem)
        if self.processes.count > 1:
            wanted = self.processes.agreed(there)
            if wanted and not there:
                return self.reload(stem)
            return wanted, value
        return there, value

    def reload(self, stem: str) -> tuple[bool, Any]:
        """`load` of what another process has written meanwhile."""
        self._names = self._scan()
        there, value = self.load(stem)
        if not there:
            raise RuntimeError(
                f"a step that another process wrote is not seen in {self._folder.parent.name!r}: all "
                "processes need the same file system"
            )
        return there, value

    def load(self, stem: str) -> tuple[bool, Any]:
        """Whether a whole step of this stem is there, and its value."""
        self._used.add(stem)
        name = self._names.get(stem)
        found = None if name is None else _FILE.fullmatch(name)
        if name is None or found is None:
            return False, None
        try:
            content = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return False, None
        if _digest(content) != found["content"]:
            return False, None
        return True, values.decoded(found["suffix"], content)

    def store(self, stem: str, value: values.Value) -> Any:
        """Writes a step and returns its value as the next run will read it."""
        suffix, content = values.encoded(value)
        name = f"{stem}-{_digest(content)}{suffix}"
        before = self._names.get(stem)
        self.own.write(self._folder / name, content)
        self._names[stem] = name
        if before not in (None, name):
            self.own.remove(self._folder / str(before))
        return values.decoded(suffix, content)

    def drop(self, stem: str) -> None:
        """Deletes a step."""
        self.own.remove(self._folder / self._names.pop(stem))

    def prune(self) -> None:
        """Deletes what this run has neither made nor read: steps, caches, and entries of those it used."""
        for stem in sorted(self._names.keys() - self._used):
            self.drop(stem)
        for name in self._on_disk():
            if name in self._caches:
                self._caches[name].prune()
            else:
                remove_cache(self._places / name, self.own)

    def forget(self, images: Collection[str]) -> int:
        """Removes images from every cache, also of other settings; returns how many entries."""
        caches = (
            self._caches.get(name) or Cache(self._places / name, self.own)
            for name in self._on_disk()
        )
        return sum(cache.forget(images) for cache in caches)

    def _on_disk(self) -> list[str]:
        """Names of all caches."""
        return [folder.name for folder in _folders(self._places)]


def damaged_work(work: Path) -> int:
    """How many files of a folder of kept work are not as they were written: steps, shards of caches, and
    what is written once for all.
    """
    own, proven = Own(work), set(_proven(work))
    notes = [p for folder in _folders(work / _CACHES) for p in notes_in(folder)]
    found = [*notes, *(work / _STEPS / step.string for step in _steps(work / _STEPS))]
    # Versions that kept no list: whatever is called like a file of ours.
    kept = sum(path not in proven and (path in own or not own.lists()) for path in found)
    return kept + sum(not own.lasts(path) for path in own.lasting())


def strange_work(work: Path) -> int:
    """How many files of a folder of kept work stand in no list; 0 where versions kept none."""
    own = Own(work)
    if not own.lists():
        return 0
    known = {*own.lists(), work / OUTPUTS, *(work / name for name in OWN_FILES)}
    found = (Path(place) / name for place, _, names in os.walk(work) for name in names)
    return sum(path not in known and path not in own for path in found if path.name not in NOBODYS)


def _proven(work: Path) -> Iterator[Path]:
    """Files of kept work whose content is that which their name or their note says."""
    for step in _steps(work / _STEPS):
        path = work / _STEPS / step.string
        if _digest(path.read_bytes()) == step["content"]:
            yield path
    for folder in _folders(work / _CACHES):
        for path in notes_in(folder):
            if (note := whole_note(path)) is not None:
                yield from files_of_shard(path, note)


def _steps(folder: Path) -> list[re.Match[str]]:
    names = os.listdir(folder) if folder.is_dir() else []
    return [found for name in names if (found := _FILE.fullmatch(name)) is not None]


def _folders(places: Path) -> list[Path]:
    entries = os.scandir(places) if places.is_dir() else ()
    return sorted(Path(e.path) for e in entries if e.is_dir(follow_symlinks=False))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_CONTENT]


class Section:
    """A part of a workspace whose steps share inputs, such as one detector's on one set of images."""

    def __init__(self, kept: Kept, path: tuple[str, ...] = (), key: str = ""):
        """Private: `section` makes one."""
        self._kept, self._path, self._key = kept, path, key

    def section(self, name: str, *inputs: object) -> "Section":
        """A section inside of this one; `inputs` go into the key of each of its steps."""
        _check(name)
        return Section(self._kept, (*self._path, name), key_of(self._key, name, *inputs))

    def forget(self, images: Collection[str]) -> int:
        """Removes images from every cache, also of other settings; returns how many entries."""
        return self._kept.forget(images)

    def step(
        self, name: str, inputs: object, make: Callable[[], values.Value], *, by: By = By.FIRST
    ) -> Any:
        """A value, made by `make` unless an earlier run has made it from the same inputs.

        Args:
          name: of the step, for people: letters, digits, `_`, `.` and `-`.
          inputs: all that decides the value, by content (`keys.key_of`): arrays, settings, hashes.
          make: makes it; its module and what that imports go into the key (`keys.code_of`).
          by: which of several processes call `make`; the first one writes.

        Returns:
          The value as it is read from its file: an array, a mapping of arrays, or JSON.

        Raises:
          TypeError: an input has no content, or the value is of another kind.
          NoSpace: the disk is full.
        """
        stem, kept = self.stem(name, inputs, make), self._kept
        there, value = kept.agreed_load(stem)
        if there:
            return value
        if kept.processes.first:
            with contextlib.nullcontext() if by is By.ALL else kept.alone():
                made = make()
            value = kept.store(stem, made)
        elif by is By.ALL:
            make()
        kept.processes.wait()
        return value if kept.processes.first else kept.reload(stem)[1]

    def look(self, name: str, inputs: object, make: Callable[..., Any]) -> tuple[bool, Any]:
        """Whether `step` would find this value kept, and the value; nothing is made."""
        return self._kept.load(self.stem(name, inputs, make))

    def by_rows(
        self,
        name: str,
        inputs: object,
        make: Callable[[np.ndarray], values.Value],
        *,
        count: int,
        block: int,
        on_progress: Progress = silent,
        what: str | None = None,
    ) -> Any:
        """A value of many rows, made in blocks that are each kept as they finish.

        Several processes share the blocks.

        Args:
          name: see `step`.
          inputs: see `step`; `count` is one of them by itself, `block` is not, because the value
            must not depend on it.
          make: the value of some rows, int64 [at most block], rising: an array, a mapping of arrays
            or a list, whose first axis need not be that of the rows.
          count: rows in all; of none, `make` is asked once for no rows.
          block: rows at a time.
          on_progress: called with (rows done, rows in all, what).
          what: the name of this work for people; that of the step if None.

        Returns:
          The blocks' values, end to end.
        """
        if block < 1 or count < 0:
            raise ValueError(f"count {count} must not be negative, and block {block} at least 1")
        what = name if what is None else what
        stem, kept = self.stem(name, [inputs, count], make), self._kept
        there, value = kept.agreed_load(stem)
        if there:
            on_progress(count, count, what)
            return value
        me = kept.processes
        starts = range(0, max(count, 1), block)
        stems = [f"{stem}.{block}-{start:09d}" for start in starts]
        for number in range(me.index, len(starts), me.count):
            stop = min(starts[number] + block, count)
            if not kept.load(stems[number])[0]:
                with kept.alone():
                    made = make(np.arange(starts[number], stop))
                kept.store(stems[number], made)
            on_progress(stop, count, what)
        me.wait()
        if not me.first:
            me.wait()
            return kept.reload(stem)[1]
        parts = [(kept.load if me.count == 1 else kept.reload)(part)[1] for part in stems]
        value = kept.store(stem, values.joined(parts))
        me.wait()
        for part in stems:
            kept.drop(part)
        return value

    def cache(self, kind: str, settings: object, *, code: Callable[..., Any]) -> Cache:
        """Entries of single images that were made with these settings by this code.

        Args:
          kind: what is made, such as "pixels" or "embedding": letters, digits, `_`, `.` and `-`.
          settings: all that decides an entry beside its image, by content.
          code: the function that makes entries; its module and imports go into the key.
        """
        return self._kept.cache(self.stem(kind, settings, code))

    def by_content(
        self,
        name: str,
        inputs: object,
        make: Callable[[np.ndarray], Made],
        *,
        ids: Sequence[str],
        block: int,
        on_progress: Progress = silent,
        what: str | None = None,
    ) -> Entries:
        """What is made of single rows, each kept by its content: of other rows nothing is made again.

        Several processes share the rows.

        Args:
          name: see `step`.
          inputs: all that decides an entry beside its row, by content.
          make: see `Cache.compute`.
          ids: what tells each row's content apart.
          block: rows at a time; what is made of a row must not depend on the others.
          on_progress: called with (rows done, rows in all, what).
          what: the name of this work for people; that of the step if None.
        """
        cache, me = self.cache(name, inputs, code=make), self._kept.processes
        what = name if what is None else what
        if me.count == 1:
            return cache.compute(ids, make, block=block, on_progress=on_progress, what=what)
        own = np.flatnonzero(np.arange(len(ids)) // block % me.count == me.index)
        some = [ids[int(row)] for row in own]
        cache.compute(
            some, lambda places: make(own[places]), block=block, on_progress=on_progress, what=what
        )
        cache.share()
        return cache.entries(ids)

    def stem(self, name: str, inputs: object, make: Callable[..., Any]) -> str:
        """What a step is called on the disk: its name and its key."""
        _check(name)
        key = key_of(self._key, name, inputs, code_of(make))
        return f"{'.'.join([*self._path, name])}-{key[:_KEY]}"


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} must be of letters, digits, '_', '.' and '-'")
