"""Decoded images on disk, each once, by the content of its file; read through a memory map.

Contract: a store is a cache of a workspace, one entry an image: uint16 [h, w], or [d, h, w] of a whole
volume, or the reason why there is none. An entry is found by the SHA-256 of its file and the settings,
so a changed file is a new image whatever its size and time, and a second run decodes what is new.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepssim_jax.data import sheets
from deepssim_jax.data.account import Account
from deepssim_jax.data.decoded import digest_of
from deepssim_jax.data.manifest import Manifest, Record, Rejected, files_of
from deepssim_jax.data.preprocess import fit_to_canvas, fit_to_size, quantize
from deepssim_jax.data.readers import Limits, read_image
from deepssim_jax.data.sheets import Box
from deepssim_jax.data.volume import PASSING, SliceSpec, Unavailable, Unreadable, reason_of
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.workspace import Cache, Entries, Made, Workspace, key_of, sha256

CHUNK = 256
_LEVELS = 65535.0  # of `preprocess.quantize`
NO_SLICE = "none"  # volumes are refused
_PIXELS, _CANVAS, _CONTENT, _DECODED = "pixels", "canvas", "content", "decoded"
_FIELDS = "fields"
# What says whose a record is and where it lies; all else decides what is read from it.
_IDENTITY = {"image_id", "path", "subject_id", "any_issuer", "session_id", "site", "split", "parts"}


@dataclasses.dataclass(frozen=True)
class InputSettings:
    """How images are brought into one form: (height, width) and the slice of volumes, or NO_SLICE.

    Where `canvas` is not 0, the image is kept a second time with its longer side of so many pixels, in
    the middle of a square, for local features. With `sheets` it is kept where the fields of a sheet lie, too.
    What is no empty page is kept (`sheets.content`).
    """

    size: tuple[int, int] = (128, 128)
    slice: str = "axial:0.5"
    canvas: int = 0
    sheets: bool = False

    @property
    def chunk(self) -> int:
        """Records of one chunk."""
        return CHUNK

    def validate(self) -> None:
        """Raises ValueError if the slice cannot be meant."""
        if self.slice != NO_SLICE:
            SliceSpec.parse(self.slice)

    def load(self, record: Record) -> dict[str, np.ndarray]:
        """The fields of an entry."""
        spec = None if self.slice == NO_SLICE else SliceSpec.parse(self.slice)
        image = read_image(record, spec=spec)
        if image.ndim != 2:
            raise Unreadable(
                f"is a volume of {len(image)} slices; --slice=axial:0.5 compares one slice of each"
            )
        return self.fields(image)

    def fields(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of an entry, of an image [h, w] that is in memory."""
        fields = {_PIXELS: fitted(image, self), _DECODED: digest_of(image)}
        if self.canvas:
            canvas, content = on_canvas(image, self)
            fields |= {_CANVAS: quantize(canvas), _CONTENT: np.array(content, np.int32)}
        if self.sheets:
            boxes = np.zeros((sheets.MOST_FIELDS, 4), np.int16)
            for row, box in enumerate(sheets.fields(image)):
                boxes[row] = dataclasses.astuple(box)
            fields[_FIELDS] = boxes
        return fields


Settings = InputSettings | VolumeSettings


@dataclasses.dataclass(frozen=True)
class Chunk:
    """The readable images of one run of records: uint16 [m, ...], their ids and their entries' keys.

    `canvases` uint16 [m, s, s] and `content` int32 [m, 2], see `preprocess.fit_to_canvas`; empty where
    the settings ask for none.
    """

    images: np.ndarray
    image_ids: tuple[str, ...]
    keys: tuple[str, ...]
    canvases: np.ndarray
    content: np.ndarray


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
    out = quantize(fit_to_size(sheets.content(image).of(image), size=settings.size))
    if out.max() == 0:
        raise Unreadable("is constant at the declared size")
    return out


def on_canvas(image: np.ndarray, settings: InputSettings) -> tuple[np.ndarray, tuple[int, int]]:
    """A float32 image [h, w] that is in memory, as `preprocess.fit_to_canvas` gives it for local features."""
    return fit_to_canvas(sheets.content(image).of(image), side=settings.canvas)


@dataclasses.dataclass(frozen=True)
class ImageStore:
    """The readable images of a source, in the order of their ids; pixels stay on disk.

    `keys` name the images' content; `fingerprint` is that of all of it, with ids and patients; `account`
    says what became of the source's files.
    """

    entries: Entries
    image_ids: tuple[str, ...]
    subject_ids: tuple[str | None, ...]
    sha256: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    fingerprint: str
    account: Account = Account()

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def keys(self) -> tuple[str, ...]:
        """What tells the images' content apart, for caches of what is made of them."""
        return self.entries.ids

    def patients(self) -> np.ndarray:
        """int32 [n]: numbers from 0, one a patient; an image without a patient is one of its own."""
        names = [s if s is not None else f"\0{i}" for i, s in enumerate(self.subject_ids)]
        return np.unique(names, return_inverse=True)[1].astype(np.int32)

    @property
    def geometry(self) -> np.ndarray:
        """float32 [n, 4] of whole volumes, see `data.whole_volume`."""
        return self.entries.field("geometry")

    @property
    def two_spacings(self) -> np.ndarray:
        """uint8 [n] of whole volumes: whose headers contradict themselves."""
        return self.entries.field("two_spacings")

    def take(self, rows: np.ndarray) -> np.ndarray:
        """uint16 [k, ...] of the given rows, in their order."""
        return self.entries.take(_PIXELS, rows)

    def pictures(self, rows: np.ndarray) -> list[np.ndarray]:
        """float32 [h, w] on [0, 1] of the given rows, without the rim of the canvas.

        Only where the settings asked for a canvas.
        """
        canvases = self.entries.take(_CANVAS, rows).astype(np.float32) / _LEVELS
        side = canvases.shape[-1]
        pads = (side - self.entries.take(_CONTENT, rows)) // 2
        return [c[y : side - y, x : side - x] for c, (y, x) in zip(canvases, pads, strict=True)]

    def fields(self) -> dict[int, list[Box]]:
        """The fields of each image that is a sheet, by its row, where sheets were asked for."""
        boxes = self.entries.field(_FIELDS)
        rows = np.flatnonzero(boxes[:, 0, 2] > 0).tolist()
        return {row: [Box(*box) for box in boxes[row].tolist() if box[2]] for row in rows}

    def decoded(self) -> np.ndarray:
        """uint8 [n, 32]: SHA-256 of each image as it was decoded, before it was brought to one size."""
        return self.entries.field(_DECODED)


class Reading:
    """A source on its way into a store. `of` hashes its files, `chunks` decodes, `images` opens."""

    def __init__(
        self,
        manifest: Manifest,
        settings: Settings,
        cache: Cache,
        digests: list[str | Rejected],
        states: dict[Path, object],
    ):
        """Private: see `of`."""
        self._manifest, self._settings, self._cache = manifest, settings, cache
        self._states = states
        pairs = list(zip(manifest.records, digests, strict=True))
        self._unread = [digest for _, digest in pairs if isinstance(digest, Rejected)]
        known = [(record, digest) for record, digest in pairs if isinstance(digest, str)]
        self._records = [record for record, _ in known]
        self._digests = [digest for _, digest in known]
        self._keys = [_key(record, digest) for record, digest in known]

    @classmethod
    def of(
        cls, manifest: Manifest, workspace: Workspace, *, settings: Settings, threads: int = 4
    ) -> "Reading":
        """Hashes every file, in threads.

        Raises:
          ValueError: a setting cannot be meant.
          WorkspaceError: the workspace lies where these files are read.
        """
        settings.validate()
        workspace.keep_apart(manifest.elsewhere)
        states = {path: _state(path) for r in manifest.records for path in files_of(r)}
        digests = _digests(manifest, threads=threads)
        return cls(manifest, settings, store_cache(workspace, settings), digests, states)

    def __len__(self) -> int:
        return len(self._manifest.records)

    def chunks(self, *, threads: int = 4) -> Iterator[Chunk]:
        """Decodes what is new, chunk by chunk, the next one while the caller works on this one.

        Several processes share the chunks, and wait for each other at the end.

        Yields:
          The chunks in order, from memory maps.
        """
        me = self._cache.processes
        runs = [
            np.arange(i, min(i + self._settings.chunk, len(self._records)))
            for i in range(0, len(self._records), self._settings.chunk)
        ][me.index :: me.count]
        with (
            concurrent.futures.ThreadPoolExecutor(threads) as pool,
            concurrent.futures.ThreadPoolExecutor(1) as ahead,
        ):
            work = functools.partial(self._decode, pool)
            pending = ahead.submit(work, runs[0]) if runs else None
            for number, run in enumerate(runs):
                assert pending is not None
                entries = pending.result()
                if number + 1 < len(runs):
                    pending = ahead.submit(work, runs[number + 1])
                names = tuple(self._records[run[p]].image_id for p in entries.positions)
                images = entries.field(_PIXELS) if len(entries) else np.zeros((0, 1, 1), np.uint16)
                asked = self._settings.canvas if isinstance(self._settings, InputSettings) else 0
                more = [
                    entries.field(name) if asked and len(entries) else np.zeros((0, asked, asked))
                    for name in (_CANVAS, _CONTENT)
                ]
                yield Chunk(images, names, entries.ids, *more)
        self._cache.share()

    @property
    def at_once(self) -> int:
        """Records that all processes together have read when each has been given a chunk."""
        return self._settings.chunk * self._cache.processes.count

    def images(self) -> ImageStore:
        """The store of what was decoded.

        Raises:
          KeyError: the chunks were not all asked for.
        """
        entries = self._cache.entries(self._keys)
        chosen = [self._records[place] for place in entries.positions]
        refused = [
            Rejected(self._records[place].image_id, why) for place, why in entries.refused.items()
        ]
        rejected = [*self._manifest.rejected, *self._unread, *refused]
        names = [(r.image_id, r.subject_id) for r in chosen]
        reasons = sorted((r.image_id, r.reason) for r in rejected)
        not_read = tuple(Rejected(*row) for row in reasons)
        return ImageStore(
            entries=entries,
            image_ids=tuple(record.image_id for record in chosen),
            subject_ids=tuple(record.subject_id for record in chosen),
            sha256=tuple(self._digests[place] for place in entries.positions),
            rejected=not_read,
            fingerprint=key_of(self._settings, names, entries.ids, reasons),
            account=Account.of(self._manifest, images=len(chosen), not_read=not_read),
        )

    def _decode(self, pool: concurrent.futures.Executor, run: np.ndarray) -> Entries:
        def make(places: np.ndarray) -> Made:
            records = [self._records[row] for row in run[places]]
            found = list(pool.map(self._load, records))
            images = [x for x in found if isinstance(x, dict)]
            refused = {n: reason_of(x) for n, x in enumerate(found) if not isinstance(x, dict)}
            passing = {n for n, x in enumerate(found) if isinstance(x, PASSING)}
            names = images[0] if images else ()
            fields = {name: np.stack([x[name] for x in images]) for name in names}
            return Made(fields, refused, frozenset(passing))

        return self._cache.compute([self._keys[row] for row in run], make, block=len(run))

    def _load(self, record: Record) -> dict[str, np.ndarray] | Unreadable | OSError | MemoryError:
        """The fields of an entry, or why there are none."""
        try:
            found = self._settings.load(record)
        except (Unreadable, *PASSING) as error:
            return error
        # What is kept under a hash must be what was hashed.
        if any(_state(path) != self._states[path] for path in files_of(record)):
            return Unavailable("was changed while it was read; run the same command again")
        return found if isinstance(found, dict) else {_PIXELS: found}


def store_cache(workspace: Workspace, settings: Settings) -> Cache:
    """Where a workspace keeps images of these settings."""
    return workspace.cache(_PIXELS, settings, code=load_one)


def fingerprint(manifest: Manifest, settings: Settings) -> str:
    """Hash of everything that decides what a store would hold, files by their content."""
    rows: list[tuple[str, str | None, str]] = []
    refused = [(r.image_id, r.reason) for r in manifest.rejected]
    for record, digest in zip(manifest.records, _digests(manifest), strict=True):
        if isinstance(digest, Rejected):
            refused.append((digest.image_id, digest.reason))
        else:
            rows.append((record.image_id, record.subject_id, _key(record, digest)))
    return key_of(settings, rows, refused)


def file_hash(record: Record) -> str:
    """SHA-256 of the record's file, or of its files one after the other."""
    return sha256(*files_of(record))


def _digests(manifest: Manifest, *, threads: int = 4) -> list[str | Rejected]:
    """`file_hash` of every record, or why there is none; each file is read once for all its images."""
    files = [tuple(files_of(record)) for record in manifest.records]
    distinct = list(dict.fromkeys(files))
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = dict(zip(distinct, pool.map(_digest, distinct), strict=True))
    return [
        digest if isinstance(digest, str) else Rejected(record.image_id, reason_of(digest))
        for record, digest in zip(manifest.records, map(found.__getitem__, files), strict=True)
    ]


def _state(path: Path) -> object:
    """What changes when someone writes a file, or None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _digest(files: tuple[Path, ...]) -> str | OSError:
    try:
        return sha256(*files)
    except OSError as error:
        return error


def _key(record: Record, digest: str) -> str:
    """What an image is made of: its file's content, its kind by name, and its place in the file."""
    how = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    rest = {name: value for name, value in how.items() if name not in _IDENTITY}
    suffixes = [suffix.lower() for suffix in Path(record.path).suffixes[-2:]]
    return key_of(digest, suffixes, rest)[:40]
