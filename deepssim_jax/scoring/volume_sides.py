"""From a folder of volumes to a side that can be searched at three levels; restartable.

Contract: volumes lie in a store (`data.store`) as uint16; embeddings and label maps are kept by the
content of the volumes, and made once. Label maps come from files of the same names
in another folder, or are made here by modality.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from deepssim_jax.data import store
from deepssim_jax.data.label_maps import map_of
from deepssim_jax.data.manifest import InputError, Manifest
from deepssim_jax.data.whole_volume import Content, VolumeSettings
from deepssim_jax.nn.volume_embedding import SLICES
from deepssim_jax.ops import head_labels, label_limits, tissue
from deepssim_jax.ops.volume_grid import Geometry
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.volume_search import VolumeSide, occupancy_of
from deepssim_jax.workspace import Cache, Made, Workspace

_BATCH = 8
# Share by which the field of view of a map may differ: a voxel of a coarse map, and rounding.
_SAME_FIELD = 0.05


class Modality(enum.StrEnum):
    """What the volumes are, which decides how they are segmented where no label maps are given.

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.ReplicaSettings(modality=ds.Modality.CT).modality.window
      (-100.0, 200.0)
    """

    MR = "mr"
    CT = "ct"
    ANGIOGRAPHY = "angiography"
    OTHER = "other"

    @property
    def window(self) -> tuple[float, float] | None:
        """Absolute values that are kept: of CT those that tell bone, blood, brain and air apart."""
        return (-100.0, 200.0) if self is Modality.CT else None

    def contrast(self, stored: np.ndarray, settings: VolumeSettings) -> np.ndarray:
        """What an encoder and people look at: of CT the range of brain and blood."""
        if self is Modality.CT:
            return np.clip(settings.values(stored), *head_labels.BRAIN_WINDOW)
        return stored

    @property
    def label_names(self) -> tuple[str, ...]:
        """What label 1, 2, ... of the segmentation made here are; empty if none is made."""
        names = {
            Modality.MR: tissue.NAMES,
            Modality.CT: head_labels.CT_NAMES,
            Modality.ANGIOGRAPHY: head_labels.VESSEL_NAMES,
        }
        return names.get(self, ())

    def segment(self, stored: np.ndarray, settings: VolumeSettings) -> np.ndarray:
        """Label maps uint8 of stored volumes [n, d, h, w].

        A map that cannot be what it says (`ops.label_limits`) is refused: it is empty.
        """
        kinds = {
            Modality.CT: (label_limits.Segmented.CT_HEAD, head_labels.ct_labels),
            Modality.MR: (label_limits.Segmented.TISSUES, tissue.tissue_labels),
            Modality.ANGIOGRAPHY: (label_limits.Segmented.VESSELS, head_labels.vessel_labels),
        }
        if self in kinds:
            kind, make = kinds[self]
            values = settings.values(stored) if self is Modality.CT else stored
            maps = np.array(make(values), np.uint8)
            for row, volume in zip(maps, values, strict=True):
                if label_limits.implausible(row, volume, kind) is not None:
                    row[...] = 0
            return maps
        raise ValueError(
            f"there is no segmentation of modality {self.value!r}; give label maps, or one of "
            f"{', '.join(m.value for m in Modality if m.label_names)}"
        )


Embed = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class LevelSources:
    """Where the levels beyond the voxels come from.

    `embed` makes embeddings of volumes and `embed_id` names it; `given` is {image id: embedding} from
    a file instead. `segmentations` are label maps as files; without, `modality` makes them.
    """

    modality: Modality = Modality.OTHER
    embed: Embed | None = None
    embed_id: str = ""
    given: dict[str, np.ndarray] | None = None
    segmentations: Manifest | None = None
    labels: tuple[int, ...] = ()


def build_volume_side(
    manifest: Manifest,
    workspace: Workspace,
    *,
    settings: VolumeSettings,
    sources: LevelSources,
    on_progress: Progress = lambda done, total, what: None,
    what: str = "reading",
) -> tuple[VolumeSide, store.ImageStore]:
    """Reads, embeds and segments every volume of a manifest.

    Args:
      manifest: the files.
      workspace: where all that is kept.
      settings: the grid.
      sources: what the feature and the segmentation level are made of.
      on_progress: called with (volumes done, volumes in all, what).
      what: the name of this work for the progress line.

    Returns:
      The side and the store behind it.
    """
    features = _computed_features(workspace, settings, sources)
    segment = _computed_labels(workspace, settings, sources)
    reading = store.Reading.of(manifest, workspace, settings=settings)
    done, total = 0, len(reading)
    for chunk in reading.chunks():
        for computed in (features, segment):
            if computed is not None:
                cache, make = computed
                cache.compute(
                    chunk.keys,
                    lambda places, chunk=chunk, make=make: make(chunk.images[places]),
                    block=settings.chunk,
                )
        done = min(done + reading.at_once, total)
        on_progress(done, total, what)
    for computed in (features, segment):
        if computed is not None:
            computed[0].share()
    images = reading.images()
    if not len(images):
        first = images.rejected[0].reason if images.rejected else "it is empty"
        raise InputError(
            f"--{manifest.role.value}: none of its {total} volumes could be read; the first reason: {first}"
        )
    labels = None
    if sources.segmentations is not None:
        labels = _given_labels(images, sources.segmentations, workspace, settings)
    elif segment is not None:
        maps = segment[0].entries(images.keys)
        labels = functools.partial(maps.take, "labels")
    held = None if features is None else features[0].entries(images.keys).field("features")
    return (
        VolumeSide(
            take=images.take,
            shape=settings.size,
            groups=images.patients(),
            geometry=Geometry(images.geometry[:, :3], images.geometry[:, 3]),
            features=held if sources.given is None else _given(images, sources.given),
            labels=labels,
            occupancy=None if labels is None else occupancies(labels, len(images), sources.labels),
        ),
        images,
    )


_Computed = tuple[Cache, Callable[[np.ndarray], Made]]


def _computed_features(
    workspace: Workspace, settings: VolumeSettings, sources: LevelSources
) -> _Computed | None:
    """Where the embeddings that are made here are kept, and what makes them."""
    embed = sources.embed
    if embed is None or sources.given is not None:
        return None
    key = [settings, sources.modality, sources.embed_id, SLICES]
    cache = workspace.cache("volume-features", key, code=_computed_features)
    return cache, lambda volumes: Made({"features": embed(np.asarray(volumes))})


def _computed_labels(
    workspace: Workspace, settings: VolumeSettings, sources: LevelSources
) -> _Computed | None:
    """Where the label maps that are made here are kept, and what makes them."""
    modality = sources.modality
    if sources.segmentations is not None or not modality.label_names:
        return None
    cache = workspace.cache("labels", [settings, modality], code=_computed_labels)
    return cache, lambda volumes: Made({"labels": modality.segment(np.asarray(volumes), settings)})


def occupancies(
    labels: Callable[[np.ndarray], np.ndarray], count: int, wanted: tuple[int, ...]
) -> np.ndarray:
    """float32 rows of the segmentation level for `count` volumes."""
    out = []
    for first in range(0, count, _BATCH):
        rows = np.resize(np.arange(first, min(first + _BATCH, count)), _BATCH)
        found = occupancy_of(jnp.asarray(labels(rows)), labels=wanted)
        out.append(np.asarray(found)[: min(_BATCH, count - first)])
    return np.concatenate(out)


def _given(images: store.ImageStore, given: Mapping[str, np.ndarray]) -> np.ndarray:
    missing = [i for i in images.image_ids if i not in given]
    if missing:
        raise ValueError(
            f"the file of embeddings lacks {len(missing)} of {len(images)} volumes; its ids must be "
            "the files' paths inside the folder"
        )
    rows = np.stack([given[i] for i in images.image_ids]).astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _given_labels(
    images: store.ImageStore, manifest: Manifest, workspace: Workspace, settings: VolumeSettings
) -> Callable[[np.ndarray], np.ndarray]:
    """Reads the label maps that bear the volumes' names; a volume without one gets zeros.

    A map of another field of view than its volume's is none: its labels lie elsewhere.
    """
    plain = dataclasses.replace(settings, content=Content.LABELS, window=None)
    reading = store.Reading.of(manifest, workspace, settings=plain)
    for _ in reading.chunks():
        pass
    maps = reading.images()
    rows = np.array(map_of(images.image_ids, maps.image_ids))
    if (rows < 0).all():
        raise ValueError(
            f"none of {len(rows)} {manifest.role.value} volumes has a label map of its name among "
            f"{len(maps)}; name the maps as the volumes are named, for example a.nii.gz or "
            "a_synthseg.nii.gz"
        )
    there = np.flatnonzero(rows >= 0)
    rows[there[~_same_field(images.geometry[there], maps.geometry[rows[there]])]] = -1
    if (rows < 0).all():
        raise ValueError(
            f"none of {len(there)} label maps has the field of view of its {manifest.role.value} volume; "
            "give maps that were made of these volumes, not cropped and not brought to another space"
        )

    def take(chosen: np.ndarray) -> np.ndarray:
        found = rows[np.asarray(chosen)]
        out = maps.take(np.maximum(found, 0))
        return np.where((found >= 0)[:, None, None, None], out, 0).astype(np.uint16)

    return take


def _same_field(volumes: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """bool [n]: whether fields of view agree, in mm or, where a spacing is not known, in proportion."""
    boxes = np.stack([volumes[:, :3], maps[:, :3]])
    mm = np.stack([volumes[:, 3], maps[:, 3]])[..., None]
    boxes = np.where(np.isfinite(mm).all(0), boxes * mm, boxes)
    low, high = boxes.min(0), boxes.max(0)
    return (high - low <= _SAME_FIELD * high).all(-1)
