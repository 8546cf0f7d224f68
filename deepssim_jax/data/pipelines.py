"""Batches for training from images on disk, read through Grain.

Contract: batch number i of a pipeline is a pure function of its seed and i, so that a run that was
stopped reads on where it was. Images are decoded once into a store (`data.store`) and are uint16
[n, h, w] from there on. Training and validation share no patient.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar, cast

import grain
import numpy as np

from deepssim_jax.data.manifest import InputError, Manifest, Role, in_order, read_manifest
from deepssim_jax.data.records import FileCounts
from deepssim_jax.data.store import ImageStore, InputSettings, Reading
from deepssim_jax.data.table_rows import named_rows
from deepssim_jax.workspace import Workspace

# Of the patients; at least one of them.
VALIDATION_SHARE = 0.15
_COLUMNS = ("real_key", "synth_key", "ssim", "split")

_Batch = TypeVar("_Batch", covariant=True)


class Batches(Protocol[_Batch]):
    """Batches by their number; what Grain's MapDataset is, seen from training."""

    def __getitem__(self, index: int, /) -> _Batch:
        """Batch number `index`, from 0 on without end."""
        ...


def open_images(
    source: str | Path,
    workspace: Workspace,
    *,
    size: tuple[int, int],
    roles: tuple[Role, ...] = (Role.REAL,),
    subject_regex: str | None = None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> ImageStore:
    """Decodes what is new of a folder, manifest or BIDS root into a workspace's store.

    Of the reference layout the files of `roles` are taken; elsewhere all files have the first one.

    Raises:
      InputError: it holds no readable image.
    """
    manifest = read_manifest(source, role=roles[0], subject_regex=subject_regex)
    if manifest.kind == "reference":
        for role in roles[1:]:
            other = read_manifest(source, role=role, subject_regex=subject_regex)
            manifest = _joined(manifest, other)
    done, total = 0, len(manifest.records)
    reading = Reading.of(manifest, workspace, settings=InputSettings(size=size))
    for _ in reading.chunks():
        done += reading.at_once
        on_progress(min(done, total), total, "reading images")
    images = reading.images()
    if not len(images):
        reason = images.rejected[0].reason if images.rejected else "it is empty"
        raise InputError(f"none of {total} images could be read; the first reason: {reason}")
    return images


def _joined(one: Manifest, other: Manifest) -> Manifest:
    """Both roles of one reference layout: what is no image of either stays unused or refused."""
    both = set(other.unused)
    unused = tuple(item for item in one.unused if item in both)
    used, spare = one.counts.used + other.counts.used, sum(item.files for item in unused)
    found = one.counts.found
    return dataclasses.replace(
        one,
        records=tuple(sorted((*one.records, *other.records), key=in_order)),
        rejected=tuple(sorted({*one.rejected, *other.rejected}, key=lambda x: x.image_id)),
        unused=unused,
        counts=FileCounts(found, used, found - used - spare, spare),
    )


def split_by_patient(
    images: ImageStore, *, seed: int, share: float = VALIDATION_SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation, of about `share` of the patients; an image without a
    patient is one of its own.

    Raises:
      InputError: there are fewer than two patients.
    """
    number = images.patients()
    count = int(number.max()) + 1
    if count < 2:
        raise InputError(
            "all images are of one patient; training needs others to validate on. Is "
            "--config.subject_regex too wide?"
        )
    held = np.zeros(count, bool)
    order = np.random.default_rng(seed).permutation(count)
    held[order[: max(1, round(share * count))]] = True
    return np.flatnonzero(~held[number]), np.flatnonzero(held[number])


@dataclasses.dataclass(frozen=True)
class _Rows:
    """A Grain source of single images."""

    images: ImageStore
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images.take(self.rows[[index]])[0]


def image_batches(
    images: ImageStore, rows: np.ndarray, *, batch: int, seed: int
) -> Batches[np.ndarray]:
    """Shuffled batches uint16 [batch, h, w] without end; every image comes once an epoch."""
    data = grain.MapDataset.source(_Rows(images, rows)).seed(seed).shuffle()
    return cast(Batches, data.repeat(reseed_each_epoch=True).batch(batch))


def batches_by_patient(
    images: ImageStore, *, batch: int, seed: int
) -> tuple[Batches[np.ndarray], Batches[np.ndarray]]:
    """Batches for training and for validation; see `split_by_patient` and `image_batches`."""
    training, validation = (
        image_batches(images, rows, batch=batch, seed=seed)
        for rows in split_by_patient(images, seed=seed)
    )
    return training, validation


def row_batches(rows: np.ndarray, *, batch: int, seed: int) -> Batches[np.ndarray]:
    """Shuffled batches of row numbers int64 [batch] without end; every entry comes once an epoch."""
    data = grain.MapDataset.source(rows.tolist()).seed(seed).shuffle()
    return cast(Batches, data.repeat(reseed_each_epoch=True).batch(batch))


@dataclasses.dataclass(frozen=True)
class PairTable:
    """Pairs with known similarity, in the reference format.

    `keys` are (real, synthetic) as `uid___name`; `rows` [n, 2] their rows in the store; `ssim`
    float32 [n].
    """

    images: ImageStore
    keys: tuple[tuple[str, str], ...]
    rows: np.ndarray
    ssim: np.ndarray

    @classmethod
    def read(cls, table: Path, images: ImageStore, *, split: str) -> "PairTable":
        """The rows of one split ("train", "valid", ...) of a CSV file.

        Raises:
          InputError: a column is missing, a value is no number, or an image is not in the store.
        """
        known = {name: row for row, name in enumerate(images.image_ids)}
        keys, rows, values = [], [], []
        with table.open(newline="", encoding="utf-8") as file:
            names, lines = named_rows(file, table.name)
            missing = [c for c in _COLUMNS if c not in names]
            if missing:
                raise InputError(
                    f"{table.name} has no column {', '.join(missing)}; it needs "
                    f"{', '.join(_COLUMNS)}"
                )
            for number, line in lines:
                if line["split"] != split:
                    continue
                pair = (line["real_key"], line["synth_key"])
                absent = [name for name in _COLUMNS[:2] if line[name] not in known]
                if absent:
                    raise InputError(
                        f"{table.name}, line {number}: its {absent[0]} is not among the images"
                    )
                try:
                    values.append(float(line["ssim"]))
                except ValueError:
                    raise InputError(
                        f"{table.name}, line {number}: its ssim is no number"
                    ) from None
                keys.append(pair)
                rows.append([known[key] for key in pair])
        if not rows:
            raise InputError(f"{table.name} has no row whose split is {split!r}")
        return cls(images, tuple(keys), np.array(rows), np.array(values, np.float32))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray | np.generic]:
        a, b = self.images.take(self.rows[index])
        return {"a": a, "b": b, "ssim": self.ssim[index], "row": np.int64(index)}

    def batches(self, *, batch: int, seed: int) -> Batches[dict[str, np.ndarray]]:
        """Shuffled batches of `a`, `b` uint16 [batch, h, w], `ssim` and `row` [batch]."""
        data = grain.MapDataset.source(self).seed(seed).shuffle()
        return cast(Batches, data.repeat(reseed_each_epoch=True).batch(batch))
