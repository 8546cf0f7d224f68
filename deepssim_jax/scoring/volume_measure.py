"""One pair of volumes after another: aligned from the maps of the searches, and compared at every level.

Contract: the answer is one row a pair, of `pair_dtype`. A pair starts from the maps that keypoints and
the search of poses found (`volume_points.Found`); where neither did, fields of view are laid on each
other.
"""

import dataclasses
import enum
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import overlap as overlaps
from deepssim_jax.ops import volume_similarity as similarities
from deepssim_jax.ops import volume_structure as structure
from deepssim_jax.ops.transform import Transform
from deepssim_jax.scoring.volume_points import Found
from deepssim_jax.scoring.volume_search import Level, VolumeSide
from deepssim_jax.typing import Array

_BATCH = 4
_GRID = np.stack(np.meshgrid(*[(np.arange(8) + 0.5) / 8 - 0.5] * 3, indexing="ij"), -1).reshape(
    -1, 3
)
_LEAST_COVERED = 0.25  # of a reference: evidence is not divided by less
_LEAST_OWN = 3.0  # evidence of a volume for itself: nor by less

# Each level's measures, and whether more of it means more alike; the first one decides.
MEASURES: dict[Level, dict[str, bool]] = {
    Level.POINTS: {"points": True, "exact": True, "share": True},
    Level.VOXEL: {"structure": True, **similarities.MEASURES},
    Level.FEATURE: {"cosine": True},
    Level.SEGMENTATION: overlaps.MEASURES,
}
DECIDING = {level: next(iter(measures)) for level, measures in MEASURES.items()}


class Alignment(enum.StrEnum):
    """What is done to a synthetic volume before it is compared with a real one.

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.ReplicaSettings(alignment=ds.Alignment.NONE).alignment.value
      'none'
    """

    AFFINE = "affine"
    NONE = "none"


@dataclasses.dataclass(frozen=True)
class MatchSettings:
    """How volumes are matched: candidates of each search and the labels that are compared."""

    candidates: int = 2
    alignment: Alignment = Alignment.AFFINE
    labels: tuple[int, ...] = ()


def pair_dtype(labels: Sequence[int]) -> np.dtype:
    """A measured pair: rows of both sides, the motion, every measure, and overlap by label."""
    names = [name for measures in MEASURES.values() for name in measures]
    shape = (len(labels), len(overlaps.MEASURES))
    return np.dtype(
        [("query", "<i4"), ("reference", "<i4"), ("mirrored", "<i4"), ("rotation_deg", "<f4")]
        + [("shift_mm", "<f4"), ("covered", "<f4")]
        + [(name, "<f4") for name in names]
        + [("by_label", "<f4", shape)]
    )


def measured(
    pairs: list[tuple[int, int]],
    queries: VolumeSide,
    references: VolumeSide,
    found: Found | None,
    settings: MatchSettings,
) -> np.ndarray:
    """Rows of `pair_dtype` of (query, reference) pairs; measures of levels that a side lacks are NaN."""
    out = np.zeros(len(pairs), pair_dtype(settings.labels))
    if not pairs:
        return out
    out["query"], out["reference"] = np.array(pairs, np.int32).T
    for name in (*MEASURES[Level.POINTS], "cosine", *overlaps.MEASURES):
        out[name] = np.nan
    if queries.features is not None:
        out["cosine"] = _cosine(queries.features[out["query"]], references, out["reference"])
    for first in range(0, len(pairs), _BATCH):
        part = out[first : first + _BATCH]
        rows = np.resize(part["query"], _BATCH), np.resize(part["reference"], _BATCH)  # one shape
        moving, fixed = queries.take(rows[0]), references.take(rows[1])
        held = held_in(queries, rows[0]), held_in(references, rows[1])
        maps = starts(queries, references, found, *rows)
        aligned = brought_together(moving, fixed, held, maps, settings.alignment)
        similar = similarities.volume_similarity(aligned.aligned, jnp.asarray(fixed, jnp.float32))
        part["structure"] = np.asarray(aligned.score)[: len(part)]
        for name in similarities.MEASURES:
            part[name] = np.asarray(getattr(similar, name))[: len(part)]
        transform = None if settings.alignment is Alignment.NONE else aligned.transform
        if transform is not None:
            _describe_motion(part, transform, queries, references, found)
        if queries.labels is not None and references.labels is not None:
            label = jnp.asarray(queries.labels(rows[0]))
            label = np.asarray(label if transform is None else warp_labels(label, transform))
            maps_of = label, references.labels(rows[1])
            _overlap_into(part, *maps_of, settings.labels, references.geometry.voxel_mm)
    if settings.alignment is Alignment.NONE:
        out["covered"] = 1.0
    return out


def held_in(side: VolumeSide, rows: np.ndarray) -> Array:
    """Where the cubes of some volumes hold data, float [k, s, s, s]."""
    return structure.boxes(side.shape, jnp.asarray(side.geometry.box[rows]))


def starts(
    queries: VolumeSide,
    references: VolumeSide,
    found: Found | None,
    query: np.ndarray,
    reference: np.ndarray,
) -> list[Transform]:
    """Where alignments of pairs start: where keypoints, and where the search of poses say."""
    n = len(query)
    if found is None:
        matrix = np.broadcast_to(np.eye(3, dtype=np.float32), (n, 3, 3))
        return [structure.proper(jnp.asarray(matrix), jnp.zeros((n, 3)))]
    view = queries.geometry.box[query] / references.geometry.box[reference]
    plain = np.zeros((n, 3, 3), np.float32)
    plain[:, [0, 1, 2], [0, 1, 2]] = view
    none = np.zeros((n, 3), np.float32)
    by_points = found.evidence[query, reference] > 0
    posed = found.posed[query, reference] > 0
    maps = [
        (
            np.where(there[:, None, None], matrix[query, reference], plain),
            np.where(there[:, None], shift[query, reference], none),
        )
        for there, matrix, shift in (
            (by_points, found.matrix, found.shift),
            (posed, found.posed_matrix, found.posed_shift),
        )
    ]
    return [structure.proper(*map(jnp.asarray, pair)) for pair in maps]


def brought_together(
    moving: np.ndarray,
    fixed: np.ndarray,
    held: tuple[Array, Array],
    maps: list[Transform],
    alignment: Alignment,
) -> structure.Alignment:
    """Each moving volume on the frame of its fixed one, from the best of several starts."""
    columns = jnp.asarray(moving), jnp.asarray(fixed), *held
    if alignment is Alignment.NONE:
        return structure.compare(*columns, maps[0])
    return structure.align(*columns, jax.tree.map(lambda *x: jnp.stack(x, 1), *maps))


def _describe_motion(
    part: np.ndarray,
    transform: Transform,
    queries: VolumeSide,
    references: VolumeSide,
    found: Found | None,
) -> None:
    """How the real volume was moved, and the evidence of keypoints by what of it is there."""
    query, reference, n = part["query"], part["reference"], len(part)
    part["mirrored"] = np.asarray(transform.flip)[:n]
    part["rotation_deg"] = np.asarray(transform.rotation_deg)[:n]
    matrix, signs = (np.asarray(x)[:n] for x in (transform.matrix, transform.signs))
    # What the middle of the synthetic volume is away from the real one's: in the real volume's frame,
    # whose millimetres are a scanner's, while a copy may have lost its affine.
    back = np.einsum("nij,nj->ni", np.linalg.pinv(matrix), np.asarray(transform.shift)[:n])
    shift = np.linalg.norm(back, axis=1)
    real_mm, own_mm = references.geometry.voxel_mm[reference], queries.geometry.voxel_mm[query]
    scale = np.abs(np.linalg.det(matrix)) ** (1 / 3)
    part["shift_mm"] = shift * np.where(np.isfinite(real_mm), real_mm, own_mm * scale)
    places = _GRID[None] * references.geometry.box[reference][:, None]
    there = np.einsum("nij,npj->npi", signs[:, :, None] * matrix, places)
    there = there + (signs * np.asarray(transform.shift)[:n])[:, None]
    inside = (np.abs(there) <= queries.geometry.box[query][:, None] / 2).all(-1)
    part["covered"] = inside.mean(1)
    if found is not None:
        evidence = found.evidence[query, reference]
        part["points"] = evidence / np.maximum(part["covered"], _LEAST_COVERED)
        part["exact"] = found.exact[query, reference]
        part["share"] = part["points"] / np.maximum(found.own[query, reference], _LEAST_OWN)


def _cosine(rows: np.ndarray, references: VolumeSide, chosen: np.ndarray) -> np.ndarray:
    if references.features is None:
        raise ValueError(
            "the queries have features and the references have none; give both or neither"
        )
    return np.einsum("nd,nd->n", rows, references.features[chosen]).clip(-1, 1)


def _overlap_into(
    part: np.ndarray,
    moving: np.ndarray,
    fixed: np.ndarray,
    labels: tuple[int, ...],
    voxel_mm: np.ndarray,
) -> None:
    """Distances are in mm of the real volume, in voxels where its spacing is not known."""
    names = tuple(overlaps.MEASURES)
    for row, (a, b) in enumerate(zip(moving[: len(part)], fixed[: len(part)], strict=True)):
        if not a.any() or not b.any():
            continue  # no map of one of them: not measured
        size = float(voxel_mm[part["reference"][row]])
        found = overlaps.overlap(
            a,
            b.astype(a.dtype),
            labels=labels,
            spacing=(size if np.isfinite(size) else 1.0,) * 3,
        )
        columns = np.stack([getattr(found, name) for name in names], 1)
        part["by_label"][row] = columns
        # That neither has a haemorrhage says little about whether they are of one person.
        held = np.isin(labels, np.union1d(a, b))
        if held.any():
            for name, value in zip(names, columns[held].mean(0), strict=True):
                part[name][row] = value


@jax.jit
def warp_labels(maps: Array, transform: Transform) -> Array:
    """Label maps [n, d, h, w] read at the nearest voxel; label 0 outside."""
    shape = maps.shape[1:]
    flat = jnp.zeros(maps.shape, jnp.int32)
    inside = jnp.ones(maps.shape, bool)
    for position, side in zip(transform.positions(shape), shape, strict=True):
        index = jnp.round(position).astype(jnp.int32)
        inside &= (index >= 0) & (index < side)
        flat = flat * side + jnp.clip(index, 0, side - 1)
    n = maps.shape[0]
    values = jnp.take_along_axis(maps.reshape(n, -1), flat.reshape(n, -1), axis=1)
    return jnp.where(inside, values.reshape(maps.shape), 0)
