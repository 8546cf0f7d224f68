"""One kind of picture in memory, at the images' own aspect: what edits are made of.

Contract: images are float32 [h, w] on [0, 1], the longer side at most the one asked for, no side below
what an edit takes. Patients are numbers from 0; those who share an image pixel for pixel count as one.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from deepssim_jax.data.account import Account
from deepssim_jax.data.edits.types import SIDES
from deepssim_jax.data.manifest import InputError, Rejected, Role, read_manifest
from deepssim_jax.data.preprocess import fit_to_size
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.volume import SliceSpec, Unreadable, reason_of

_SLICE = "axial:0.5"


@dataclasses.dataclass(frozen=True)
class Kind:
    """The readable images of one source, in the order of their ids.

    Attributes:
      name: for tables.
      images: float32 [h, w] each, on [0, 1].
      image_ids: of each.
      patients: int32 [n], whose each is.
      rejected: files that were not taken, and why.
      elsewhere: folders of files, see `records.Manifest`.
      account: what became of every file.
    """

    name: str
    images: tuple[np.ndarray, ...]
    image_ids: tuple[str, ...]
    patients: np.ndarray
    rejected: tuple[Rejected, ...]
    elsewhere: frozenset[Path] = frozenset()
    account: Account = Account()

    def __len__(self) -> int:
        return len(self.images)


def read_kind(
    source: str | Path,
    *,
    name: str,
    side: int,
    subject_regex: str | None = None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Kind:
    """Reads a folder, manifest or BIDS root; volumes by their middle axial slice.

    Args:
      source: as for an audit's real side.
      name: of the kind.
      side: pixels; images with a longer side are made smaller, others stay as they are.
      subject_regex: its first group, found in a file's name, is the patient.
      on_progress: called with (files done, files in all, what).

    Raises:
      InputError: it holds no image that can be used.
    """
    manifest = read_manifest(source, role=Role.REAL, subject_regex=subject_regex)
    images, ids, subjects, rejected = [], [], [], list(manifest.rejected)
    for done, record in enumerate(manifest.records, start=1):
        try:
            image = _prepared(read_image(record, spec=SliceSpec.parse(_SLICE)), side)
        except (Unreadable, OSError, MemoryError) as error:
            rejected.append(Rejected(record.image_id, reason_of(error)))
        else:
            images.append(image)
            ids.append(record.image_id)
            subjects.append(record.subject_id)
        on_progress(done, len(manifest.records), f"reading {name} images")
    if not images:
        reason = rejected[0].reason if rejected else "it is empty"
        raise InputError(f"--real, {name}: no image can be used; the first reason: {reason}")
    return Kind(
        name,
        tuple(images),
        tuple(ids),
        _patients(subjects, images),
        tuple(rejected),
        manifest.elsewhere,
        Account.of(manifest, images=len(images), not_read=tuple(rejected)),
    )


def _prepared(image: np.ndarray, side: int) -> np.ndarray:
    factor = min(1.0, side / max(image.shape))
    height, width = (max(1, round(length * factor)) for length in image.shape)
    if min(height, width) < SIDES[0]:
        raise Unreadable(f"has {height} x {width} pixels; edits need {SIDES[0]} a side")
    small = fit_to_size(np.asarray(image, np.float32), size=(height, width))
    low, high = float(small.min()), float(small.max())
    if not high > low:
        raise Unreadable("is constant")
    return np.clip((small - low) / (high - low), 0, 1).astype(np.float32)


def _patients(subjects: list[str | None], images: list[np.ndarray]) -> np.ndarray:
    """An image without a patient is one of its own; equal pixels join patients."""
    names = [s if s is not None else f"\0{i}" for i, s in enumerate(subjects)]
    owner = np.unique(names, return_inverse=True)[1]
    contents = [hashlib.sha256(repr(x.shape).encode() + x.tobytes()).digest() for x in images]
    content = np.unique(contents, return_inverse=True)[1]
    people, pictures = int(owner.max()) + 1, int(content.max()) + 1
    links = coo_array(
        (np.ones(len(owner)), (owner, people + content)), shape=(people + pictures,) * 2
    )
    joined = connected_components(links, directed=False)[1][owner]
    return np.unique(joined, return_inverse=True)[1].astype(np.int32)
