"""Decoded images on disk, in chunks, read through a memory map.

Contract: a store is a directory of `chunk-00000.npy` (uint16 [m, h, w], or [m, d, h, w] of whole
volumes; the readable images of a run of records, in their order) with a `.json` beside each that
names them. `decode` makes what is missing, the next chunk in threads while the caller works on this
one; the directory belongs to one fingerprint (settings, files, sizes and times) and one of another
is replaced.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepssim_jax.data.manifest import Manifest, Record, Rejected, files_of
from deepssim_jax.data.preprocess import fit_to_size, quantize
from deepssim_jax.data.readers import Limits, read_image
from deepssim_jax.data.volume import SliceSpec, Unreadable
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.files import sha256, write_array, write_bytes

CHUNK = 256
_INDEX = "store.json"


@dataclasses.dataclass(frozen=True)
class InputSettings:
    """How images are brought into one form: (height, width) and the slice of volumes."""

    size: tuple[int, int] = (128, 128)
    slice: str = "axial:0.5"

    @property
    def chunk(self) -> int:
        """Records of one chunk."""
        return CHUNK

    def validate(self) -> None:
        """Raises ValueError if the slice cannot be meant."""
        SliceSpec.parse(self.slice)

    def load(self, record: Record) -> np.ndarray:
        """See `load_one`."""
        return load_one(record, self)


Settings = InputSettings | VolumeSettings


@dataclasses.dataclass(frozen=True)
class Chunk:
    """The readable images of one run of records: uint16 [m, ...] and their ids."""

    images: np.ndarray
    image_ids: tuple[str, ...]


def fingerprint(manifest: Manifest, settings: Settings) -> str:
    """Hash of everything that decides what a store holds; the files' content by size and time."""
    rows: list[object] = [dataclasses.astuple(settings)]
    for record in manifest.records:
        stats = [path.stat() for path in files_of(record)]
        rows.append(
            [
                record.image_id,
                record.subject_id,
                [record.items, record.layout],
                [[s.st_size, s.st_mtime_ns] for s in stats],
            ]
        )
    rows.append([[r.image_id, r.reason] for r in manifest.rejected])
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def load_one(record: Record, settings: InputSettings, limits: Limits = Limits()) -> np.ndarray:
    """One image as the store holds it: uint16 of the declared size.

    Raises:
      Unreadable: with the reason.
    """
    return fitted(read_image(record, spec=SliceSpec.parse(settings.slice), limits=limits), settings)


def fitted(image: np.ndarray, settings: InputSettings) -> np.ndarray:
    """A float32 image [h, w] that is in memory, as `load_one` gives one that is in a file.

    Raises:
      Unreadable: it is constant.
    """
    out = quantize(fit_to_size(image, size=settings.size))
    if out.max() == 0:
        raise Unreadable("is constant at the declared size")
    return out


def decode(
    manifest: Manifest, directory: Path, *, settings: Settings, threads: int = 4
) -> Iterator[Chunk]:
    """Decodes every record, chunk by chunk; finished chunks are not decoded again.

    Args:
      manifest: the records.
      directory: the store.
      settings: how images are brought into one form.
      threads: decoding threads.

    Yields:
      The chunks in order, from memory maps.
    """
    settings.validate()
    mark = {"fingerprint": fingerprint(manifest, settings)}
    index = directory / _INDEX
    if directory.exists() and (not index.exists() or _json(index) != mark):
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if not index.exists():
        write_bytes(index, json.dumps(mark).encode())
    records = manifest.records
    runs = [records[i : i + settings.chunk] for i in range(0, len(records), settings.chunk)]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        pending = None
        for number, run in enumerate(runs):
            if pending is None:
                pending = _submit(pool, directory, number, run, settings)
            pending.finish()
            later = number + 1
            pending = (
                _submit(pool, directory, later, runs[later], settings)
                if later < len(runs)
                else None
            )
            yield _open_chunk(directory, number)
    if not (directory / "rejected.json").exists():
        early = [[r.image_id, r.reason] for r in manifest.rejected]
        write_bytes(directory / "rejected.json", json.dumps(early).encode())


@dataclasses.dataclass
class _Pending:
    directory: Path
    number: int
    run: tuple[Record, ...]
    futures: list[concurrent.futures.Future] | None

    def finish(self) -> None:
        if self.futures is None:
            return
        images, entries, rejected = [], [], []
        for record, future in zip(self.run, self.futures, strict=True):
            image, digest, reason = future.result()
            if reason is not None:
                rejected.append([record.image_id, reason])
            else:
                images.append(image)
                entries.append([record.image_id, record.subject_id, digest])
        stem = self.directory / f"chunk-{self.number:05d}"
        shape = images[0].shape if images else (1, 1)
        array = np.stack(images) if images else np.zeros((0, *shape), np.uint16)
        write_array(stem.with_suffix(".npy"), array)
        # The names come last: a chunk counts only when they are there.
        content = {"images": entries, "rejected": rejected}
        write_bytes(stem.with_suffix(".json"), json.dumps(content).encode())


def _submit(
    pool: concurrent.futures.Executor,
    directory: Path,
    number: int,
    run: tuple[Record, ...],
    settings: Settings,
) -> _Pending:
    if (directory / f"chunk-{number:05d}.json").exists():
        return _Pending(directory, number, run, None)
    futures = [pool.submit(_load, record, settings) for record in run]
    return _Pending(directory, number, run, futures)


def _load(record: Record, settings: Settings) -> tuple[np.ndarray | None, str, str | None]:
    try:
        return settings.load(record), file_hash(record), None
    except Unreadable as error:
        return None, "", str(error)
    except MemoryError:
        return None, "", "needs more memory than there is"
    except OSError as error:
        return None, "", f"cannot be read: {error.strerror or type(error).__name__}"


def file_hash(record: Record) -> str:
    """SHA-256 of the record's file, or of its files one after the other."""
    if len(record.items) == 1:  # the next records are images of the same file
        status = record.path.stat()
        return _hash_of_shared(record.path, status.st_size, status.st_mtime_ns)
    return sha256(*files_of(record))


@functools.lru_cache(maxsize=16)
def _hash_of_shared(path: Path, size: int, time: int) -> str:
    del size, time  # they are part of the key
    return sha256(path)


def _json(path: Path) -> dict:
    return json.loads(path.read_text())


def _open_chunk(directory: Path, number: int) -> Chunk:
    stem = directory / f"chunk-{number:05d}"
    names = _json(stem.with_suffix(".json"))["images"]
    images = np.load(stem.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    return Chunk(images=images, image_ids=tuple(name for name, *_ in names))


@dataclasses.dataclass(frozen=True)
class ImageStore:
    """The readable images of a source, in the order of their ids; pixels stay on disk."""

    chunks: tuple[np.ndarray, ...]
    starts: np.ndarray
    image_ids: tuple[str, ...]
    subject_ids: tuple[str | None, ...]
    sha256: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    fingerprint: str

    @classmethod
    def open(cls, directory: Path) -> "ImageStore":
        """Opens a store that `decode` has finished.

        Raises:
          ValueError: it is not finished.
        """
        if not (directory / "rejected.json").exists():
            raise ValueError(
                f"the store {directory.name} is not finished; run the same command again"
            )
        rejected = [Rejected(*row) for row in json.loads((directory / "rejected.json").read_text())]
        chunks, names = [], []
        for path in sorted(directory.glob("chunk-*.json")):
            content = _json(path)
            names += content["images"]
            rejected += [Rejected(*row) for row in content["rejected"]]
            if content["images"]:
                chunks.append(np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False))
        return cls(
            chunks=tuple(chunks),
            starts=np.cumsum([0, *(len(c) for c in chunks)]),
            image_ids=tuple(row[0] for row in names),
            subject_ids=tuple(row[1] for row in names),
            sha256=tuple(row[2] for row in names),
            rejected=tuple(sorted(rejected, key=lambda r: (r.image_id, r.reason))),
            fingerprint=_json(directory / _INDEX)["fingerprint"],
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def patients(self) -> np.ndarray:
        """int32 [n]: numbers from 0, one a patient; an image without a patient is one of its own."""
        names = [s if s is not None else f"\0{i}" for i, s in enumerate(self.subject_ids)]
        return np.unique(names, return_inverse=True)[1].astype(np.int32)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """uint16 [k, ...] of the given rows, in their order."""
        rows = np.asarray(rows)
        which = np.searchsorted(self.starts, rows, side="right") - 1
        return np.stack(
            [self.chunks[c][r - self.starts[c]] for c, r in zip(which, rows, strict=True)]
        )
