"""What was computed of single images, kept by the content of their files.

Contract: an entry is an image: a mapping of fields to arrays, or the reason why it has none. Its id is
whatever tells its content apart, as a rule the SHA-256 of its file (with `#k` where a file holds
several). Entries lie in shards, `NUMBER.FIELD.npy` with one row an entry, and a shard counts only when
its `NUMBER.json`, written last, is there and its arrays have the hashes that stand in it: the images of
others are new. Shards are never changed: what is new becomes another one.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.workspace import files
from deepssim_jax.workspace.names import on_windows
from deepssim_jax.workspace.processes import Processes, Progress, silent

_FILE = re.compile(r"(\d{6})\.(?:json|[A-Za-z0-9_]+\.npy)")
_FIELD = re.compile(r"[A-Za-z0-9_]+")


@dataclasses.dataclass(frozen=True)
class Made:
    """What was made of some images: `fields` hold one row for each that is not in `refused`.

    `refused` gives reasons by place among the images of this block, from 0.
    """

    fields: Mapping[str, np.ndarray]
    refused: Mapping[int, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Entries:
    """Entries of a cache for a list of images; arrays stay on disk until they are taken.

    `ids` are those with arrays, in the order asked for; `positions` int [n] their places in it;
    `refused` the reasons of the others by place.
    """

    ids: tuple[str, ...]
    positions: np.ndarray
    refused: Mapping[int, str]
    shards: tuple[Mapping[str, np.ndarray], ...]
    places: np.ndarray  # int [n, 2]: shard and row

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, field: str, rows: np.ndarray) -> np.ndarray:
        """[k, ...] of the given entries, in their order."""
        chosen = self.places[np.asarray(rows, np.int64)]
        if not len(chosen):
            whole = [shard[field] for shard in self.shards if field in shard]
            return np.array(whole[0][:0]) if whole else np.zeros(0)
        first = self.shards[chosen[0, 0]][field]
        out = np.empty((len(chosen), *first.shape[1:]), first.dtype)
        for shard in np.unique(chosen[:, 0]):
            here = chosen[:, 0] == shard
            out[here] = self.shards[shard][field][chosen[here, 1]]
        return out

    def has(self, field: str) -> bool:
        """Whether the entries hold this field."""
        return any(field in self.shards[number] for number in np.unique(self.places[:, 0]))

    def field(self, name: str) -> np.ndarray:
        """[n, ...] of all entries."""
        return self.take(name, np.arange(len(self)))


class Cache:
    """The shards of one kind of work with one set of settings. Made by `Section.cache`."""

    def __init__(self, folder: Path, processes: Processes = Processes()):
        self._folder, self.processes = folder, processes
        self._shards: dict[int, Mapping[str, np.ndarray]] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._refused: dict[str, str] = {}
        self._used: set[str] = set()
        self._next = 1
        self._scan()

    def _scan(self) -> None:
        names = os.listdir(self._folder) if self._folder.is_dir() else []
        for name in sorted(filter(_FILE.fullmatch, names)):
            number = int(name[:6])
            self._next = max(self._next, number + 1)
            if name.endswith(".json") and number not in self._shards:
                path = self._folder / name
                note = _read(path)
                # A damaged shard counts for nothing, and its images are new.
                if note is not None and _is_whole(path, note):
                    self._open(number, note)

    def __contains__(self, image: str) -> bool:
        return image in self._places or image in self._refused

    def compute(
        self,
        ids: Sequence[str],
        make: Callable[[np.ndarray], Made],
        *,
        block: int,
        on_progress: Progress = silent,
        what: str = "images",
    ) -> Entries:
        """Entries of all images; those that are not there yet are made, block by block, and kept.

        Of several processes each asks for images of its own and waits for none; see `share`.

        Args:
          ids: of the images; an id that comes twice is made once.
          make: makes those at some places in `ids`, int64 [at most block], rising.
          block: images of one shard.
          on_progress: called with (images done, images in all, what).
          what: the name of this work.

        Raises:
          ValueError: `make` returned another number of rows.
          NoSpace: the disk is full; finished blocks are kept.
        """
        first: dict[str, int] = {}
        for place, image in enumerate(ids):
            if image not in self:
                first.setdefault(image, place)
        missing = np.fromiter(first.values(), np.int64, len(first))
        done = len(ids) - len(missing)
        on_progress(done, len(ids), what)
        for start in range(0, len(missing), block):
            places = missing[start : start + block]
            self._add(self._free(), [ids[place] for place in places], make(places))
            done += len(places)
            on_progress(done, len(ids), what)
        return self.entries(ids)

    def share(self) -> None:
        """Waits until every process has come here, and learns what the others have computed."""
        if self.processes.count > 1:
            self.processes.wait()
            self._scan()
            self.processes.wait()

    def _free(self) -> int:
        """The next number of a shard that no other process takes at the same time."""
        return self._next + (self.processes.index - self._next) % self.processes.count

    def entries(self, ids: Sequence[str]) -> Entries:
        """Entries of images that were all computed.

        Raises:
          KeyError: one was not.
        """
        self._used.update(ids)
        rows = [place for place, image in enumerate(ids) if image not in self._refused]
        numbers = sorted(self._shards)
        order = {number: place for place, number in enumerate(numbers)}
        found = [self._places[ids[row]] for row in rows]
        return Entries(
            ids=tuple(ids[row] for row in rows),
            positions=np.array(rows, np.int64),
            refused={p: self._refused[i] for p, i in enumerate(ids) if i in self._refused},
            shards=tuple(self._shards[number] for number in numbers),
            places=np.array([(order[n], row) for n, row in found], np.int64).reshape(-1, 2),
        )

    def prune(self) -> None:
        """Removes the images that nobody has asked for in this run."""
        self.forget((self._places.keys() | self._refused.keys()) - self._used)

    def forget(self, images: Collection[str]) -> int:
        """Rewrites the shards that hold these images without them; returns how many there were.

        Arrays taken earlier stay valid. A run that is killed meanwhile leaves some: ask again.
        """
        self._scan()
        gone = set(images)
        found = len(gone & (self._places.keys() | self._refused.keys()))
        for path in sorted(self._folder.glob("[0-9]*.json")):
            note = _read(path)
            number = int(path.stem)
            if note is None or number not in self._shards:
                self._delete(number)  # damaged: nobody knows what it holds
                continue
            if not gone & ({*note["images"]} | note["refused"].keys()):
                continue
            keep = [row for row, image in enumerate(note["images"]) if image not in gone]
            fields = {name: array[keep] for name, array in self._fields(number, note).items()}
            names = [note["images"][row] for row in keep]
            refused = {i: why for i, why in note["refused"].items() if i not in gone}
            for image in {*note["images"], *note["refused"]}:
                self._places.pop(image, None)
                self._refused.pop(image, None)
            self._shards.pop(number, None)
            if names or refused:
                self._write(self._free(), names, fields, refused)
            self._delete(number)
        return found

    def _add(self, number: int, images: Sequence[str], made: Made) -> None:
        names = [image for place, image in enumerate(images) if place not in made.refused]
        for field, array in made.fields.items():
            if not _FIELD.fullmatch(field):
                raise ValueError(f"{field!r} must be of letters, digits and '_'")
            if len(array) != len(names):
                raise ValueError(f"{field!r} has {len(array)} rows for {len(names)} images")
        refused = {images[place]: reason for place, reason in made.refused.items()}
        self._write(number, names, made.fields, refused)

    def _write(
        self,
        number: int,
        names: Sequence[str],
        fields: Mapping[str, np.ndarray],
        refused: Mapping[str, str],
    ) -> None:
        self._next = max(self._next, number + 1)
        digests = {}
        for field, array in fields.items() if names else ():
            path = _array(self._folder, number, field)
            digests[field] = files.write_array(path, array, access=files.Access.PRIVATE)
        note = {"images": list(names), "refused": dict(refused), "fields": digests}
        path = self._folder / f"{number:06d}.json"
        files.write_bytes(path, json.dumps(note).encode(), access=files.Access.PRIVATE)
        self._open(number, note)

    def _open(self, number: int, note: Mapping) -> None:
        """Learns what a shard holds."""
        try:
            self._shards[number] = self._fields(number, note)
        except (OSError, ValueError, EOFError):
            return
        self._places.update({image: (number, row) for row, image in enumerate(note["images"])})
        self._refused.update(note["refused"])

    def _fields(self, number: int, note: Mapping) -> dict[str, np.ndarray]:
        # Windows deletes no file that is mapped, and what is forgotten must go: there arrays are read whole.
        mode = None if on_windows() else "r"
        return {
            field: np.load(_array(self._folder, number, field), mmap_mode=mode, allow_pickle=False)
            for field in note["fields"]
        }

    def _delete(self, number: int) -> None:
        # Its note first: without it the arrays count for nothing.
        (self._folder / f"{number:06d}.json").unlink(missing_ok=True)
        for path in self._folder.glob(f"{number:06d}.*.npy"):
            path.unlink(missing_ok=True)


def remove_cache(folder: Path) -> None:
    """Deletes the shards of a cache, and its folder if nothing else lies in it."""
    for path in sorted(folder.iterdir(), reverse=True):
        if _FILE.fullmatch(path.name) or files.is_temporary(path.name):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def damaged(folder: Path) -> int:
    """How many shards of a cache are not as they were written."""
    notes = {path: _read(path) for path in folder.glob("[0-9]*.json")}
    return sum(note is None or not _is_whole(path, note) for path, note in notes.items())


def _is_whole(path: Path, note: Mapping) -> bool:
    """Whether the arrays of a shard are those that were written."""
    number = int(path.stem)
    for field, digest in note["fields"].items():
        array = _array(path.parent, number, field)
        if not array.is_file() or files.sha256(array) != digest:
            return False
    return True


def _array(folder: Path, number: int, field: str) -> Path:
    return folder / f"{number:06d}.{field}.npy"


def _read(path: Path) -> dict | None:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    good = isinstance(note, dict) and {"images", "refused", "fields"} <= note.keys()
    return note if good and isinstance(note["fields"], dict) else None
