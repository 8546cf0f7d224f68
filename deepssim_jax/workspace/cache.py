"""What was computed of single images, kept by the content of their files.

Contract: an entry is an image: a mapping of fields to arrays, or the reason why it has none. Its id is
whatever tells its content apart, as a rule the SHA-256 of its file (with `#k` where a file holds
several). Entries lie in shards, `SHARD.FIELD.npy` with one row an entry, and a shard counts only when
its `SHARD.json`, written last, is there with the hash of itself, and its arrays have the hashes that
stand in it: the images of others are new. Shards are never changed: what is new becomes another one.
SHARD is the hash of the ids in it, so that it does not depend on which of several processes made it, and
when.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.workspace import files
from deepssim_jax.workspace.names import on_windows
from deepssim_jax.workspace.own import Own
from deepssim_jax.workspace.processes import Processes, Progress, silent

_NOTE = re.compile(r"([0-9a-f]{16}|\d{6})\.json")  # numbers in earlier versions
_FIELD = re.compile(r"[A-Za-z0-9_]+")
_PASSING = "passing"  # in a note, those of the refused who may be made by another run
_CONTENT = "content"  # in a note, the hash of the rest of it


@dataclasses.dataclass(frozen=True)
class Made:
    """What was made of some images: `fields` hold one row for each that is not in `refused`.

    `refused` gives reasons by place among the images of this block, from 0; `passing` are the places of
    those that hold for this run alone, such as a lack of memory: the next one makes them again.
    """

    fields: Mapping[str, np.ndarray]
    refused: Mapping[int, str] = dataclasses.field(default_factory=dict)
    passing: frozenset[int] = frozenset()


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

    def __init__(self, folder: Path, own: Own, processes: Processes = Processes()):
        self._folder, self._own, self.processes = folder, own, processes
        self._shards: dict[str, Mapping[str, np.ndarray]] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._refused: dict[str, str] = {}
        self._used: set[str] = set()
        self._scan(fresh=False)

    def _scan(self, *, fresh: bool = True) -> None:
        for path in notes_in(self._folder):
            if path in self._own and path.stem not in self._shards:
                note = whole_note(path)
                # A damaged shard counts for nothing, and its images are new.
                if note is not None:
                    self._open(path.stem, note, fresh=fresh)

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
            self._add([ids[place] for place in places], make(places))
            done += len(places)
            on_progress(done, len(ids), what)
        return self.entries(ids)

    def share(self) -> None:
        """Waits until every process has come here, and learns what the others have computed."""
        if self.processes.count > 1:
            self.processes.wait()
            self._own.learn()
            self._scan()
            self.processes.wait()

    def entries(self, ids: Sequence[str]) -> Entries:
        """Entries of images that were all computed.

        Raises:
          KeyError: one was not.
        """
        self._used.update(ids)
        rows = [place for place, image in enumerate(ids) if image not in self._refused]
        names = sorted(self._shards)
        order = {name: place for place, name in enumerate(names)}
        found = [self._places[ids[row]] for row in rows]
        return Entries(
            ids=tuple(ids[row] for row in rows),
            positions=np.array(rows, np.int64),
            refused={p: self._refused[i] for p, i in enumerate(ids) if i in self._refused},
            shards=tuple(self._shards[name] for name in names),
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
        gone, found = set(images), set[str]()
        for path in notes_in(self._folder):
            if path not in self._own:
                continue
            note, name = read_note(path), path.stem
            if note is None or name not in self._shards:
                self._delete(name)  # damaged: nobody knows what it holds
                continue
            here = gone & ({*note["images"]} | note["refused"].keys())
            if not here:
                continue
            found |= here
            keep = [row for row, image in enumerate(note["images"]) if image not in gone]
            fields = {field: array[keep] for field, array in self._fields(name, note).items()}
            names = [note["images"][row] for row in keep]
            self._places = {i: at for i, at in self._places.items() if at[0] != name}
            for image in note["refused"]:
                self._refused.pop(image, None)
            # What was refused for one run alone may have been made since, in another shard.
            left = note["refused"].keys() - gone - self._places.keys()
            refused = {i: why for i, why in note["refused"].items() if i in left}
            self._shards.pop(name, None)
            if names or refused:
                self._write(names, fields, refused, left & {*note.get(_PASSING, ())})
            self._delete(name)
        return len(found)

    def _add(self, images: Sequence[str], made: Made) -> None:
        names = [image for place, image in enumerate(images) if place not in made.refused]
        for field, array in made.fields.items():
            if not _FIELD.fullmatch(field):
                raise ValueError(f"{field!r} must be of letters, digits and '_'")
            if len(array) != len(names):
                raise ValueError(f"{field!r} has {len(array)} rows for {len(names)} images")
        refused = {images[place]: reason for place, reason in made.refused.items()}
        self._write(names, made.fields, refused, {images[place] for place in made.passing})

    def _write(
        self,
        names: Sequence[str],
        fields: Mapping[str, np.ndarray],
        refused: Mapping[str, str],
        passing: Collection[str],
    ) -> None:
        shard = _shard_of(names, refused)
        arrays = {
            _array(self._folder, shard, field): (field, array)
            for field, array in (fields.items() if names else ())
        }
        path = self._folder / f"{shard}.json"
        self._own.note(path, *arrays)
        digests = {
            field: self._own.write_array(place, array) for place, (field, array) in arrays.items()
        }
        note = {"images": list(names), "refused": dict(refused), "fields": digests}
        if passing:
            note[_PASSING] = sorted(passing)
        self._own.write(path, _written(note))
        self._open(shard, note, fresh=True)

    def _open(self, shard: str, note: Mapping, *, fresh: bool) -> None:
        """Learns what a shard holds; what it was refused for one run alone only if that is this one."""
        try:
            self._shards[shard] = self._fields(shard, note)
        except (OSError, ValueError, EOFError):
            return
        self._places.update({image: (shard, row) for row, image in enumerate(note["images"])})
        others = () if fresh else note.get(_PASSING, ())
        self._refused.update({i: x for i, x in note["refused"].items() if i not in others})
        # One of several processes may have made what another could not.
        for image in self._refused.keys() & self._places.keys():
            del self._refused[image]

    def _fields(self, shard: str, note: Mapping) -> dict[str, np.ndarray]:
        # Windows deletes no file that is mapped, and what is forgotten must go: there arrays are read whole.
        mode = None if on_windows() else "r"
        return {
            field: np.load(_array(self._folder, shard, field), mmap_mode=mode, allow_pickle=False)
            for field in note["fields"]
        }

    def _delete(self, shard: str) -> None:
        # Its note first: without it the arrays count for nothing.
        self._own.remove(self._folder / f"{shard}.json")
        for path in self._folder.glob(f"{shard}.*.npy"):
            self._own.remove(path)


def remove_cache(folder: Path, own: Own) -> None:
    """Deletes the shards of a cache, and its folder if nothing else lies in it."""
    for path in sorted(folder.iterdir(), key=lambda path: path.suffix):  # notes first
        own.remove(path)
    if not any(folder.iterdir()):
        folder.rmdir()


def notes_in(folder: Path) -> list[Path]:
    """The notes of a cache's shards."""
    names = os.listdir(folder) if folder.is_dir() else []
    return [folder / name for name in sorted(names) if _NOTE.fullmatch(name)]


def whole_note(path: Path) -> dict | None:
    """The note of a shard whose arrays are those that were written, or None."""
    note = read_note(path)
    if note is None:
        return None
    for field, digest in note["fields"].items():
        array = _array(path.parent, path.stem, field)
        if not array.is_file() or files.sha256(array) != digest:
            return None
    return note


def files_of_shard(path: Path, note: Mapping) -> list[Path]:
    """A shard's note and arrays."""
    return [path, *(_array(path.parent, path.stem, field) for field in note["fields"])]


def _array(folder: Path, shard: str, field: str) -> Path:
    return folder / f"{shard}.{field}.npy"


def read_note(path: Path) -> dict | None:
    """What a shard says of itself, or None if it is damaged."""
    try:
        content = path.read_bytes()
        note = json.loads(content)
    except (OSError, ValueError):
        return None
    if not isinstance(note, dict):
        return None
    hashed = note.pop(_CONTENT, None) is not None
    kinds = {name: type(value) for name, value in note.items()}
    if kinds.pop(_PASSING, list) is not list:
        return None
    if kinds != {"images": list, "refused": dict, "fields": dict}:
        return None
    if hashed:
        return note if content == _written(note) else None
    # Earlier versions wrote no hash: their names prove the ids, or, if they are numbers, nothing.
    proven = path.stem.isdecimal() and len(path.stem) == 6
    return note if proven or path.stem == _shard_of(note["images"], note["refused"]) else None


def _shard_of(images: Sequence[str], refused: Mapping[str, str]) -> str:
    """The name of the shard that holds these images."""
    return hashlib.sha256(json.dumps([*images, "", *refused]).encode()).hexdigest()[:16]


def _written(note: Mapping) -> bytes:
    """A note as it stands on the disk."""
    digest = hashlib.sha256(json.dumps(note).encode()).hexdigest()
    return json.dumps({**note, _CONTENT: digest}).encode()
