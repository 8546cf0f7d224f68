"""From candidates to measured pairs of volumes: align, then compare at every level.

Contract: candidates come from `volume_search`, the closest few of each level; every one of them is
measured at all levels, so that the levels can be compared. The answer is one row a pair, of
`pair_dtype`, sorted by query and reference; finished blocks of queries are journalled.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import overlap as overlaps
from deepssim_jax.ops import registration
from deepssim_jax.ops import volume_similarity as similarities
from deepssim_jax.ops.search_rigid import RigidGrid
from deepssim_jax.ops.transform import MotionModel, Transform
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.volume_search import Level, VolumeSide, search, search_posed
from deepssim_jax.typing import Array
from deepssim_jax.workspace import Section

# An eighth of the default grid's time; coarser ones take every tenth head for its mirror image.
GRID = RigidGrid(size=20, rotations=3, max_rotation_deg=8.0)
_BATCH = 8
_BLOCK = 32

# Each level's measures, and whether more of it means more alike; the first one decides.
MEASURES: dict[Level, dict[str, bool]] = {
    Level.VOXEL: similarities.MEASURES,
    Level.FEATURE: {"cosine": True},
    Level.SEGMENTATION: overlaps.MEASURES,
}
DECIDING = {level: next(iter(measures)) for level, measures in MEASURES.items()}


class Alignment(enum.StrEnum):
    """What is done to a synthetic volume before it is compared with a real one."""

    RIGID = "rigid"
    NONE = "none"


@dataclasses.dataclass(frozen=True)
class MatchSettings:
    """How volumes are matched: candidates of each search, the labels that are compared and the
    size of a voxel in mm.
    """

    candidates: int = 2
    alignment: Alignment = Alignment.RIGID
    labels: tuple[int, ...] = ()
    voxel_mm: float = 1.0


def pair_dtype(labels: Sequence[int]) -> np.dtype:
    """A measured pair: rows of both sides, the motion, every measure, and overlap by label."""
    names = [name for measures in MEASURES.values() for name in measures]
    shape = (len(labels), len(overlaps.MEASURES))
    return np.dtype(
        [("query", "<i4"), ("reference", "<i4"), ("mirrored", "<i4"), ("rotation_deg", "<f4")]
        + [("shift_mm", "<f4")]
        + [(name, "<f4") for name in names]
        + [("by_label", "<f4", shape)]
    )


def match_volumes(
    queries: VolumeSide,
    references: VolumeSide,
    *,
    settings: MatchSettings,
    journal: Section,
    apart: bool = False,
    embed: Callable[[np.ndarray], np.ndarray] | None = None,
    on_progress: Progress = lambda done, total, what: None,
    what: str = "comparing",
) -> np.ndarray:
    """Measures each query with the closest references of every level.

    Args:
      queries: what is looked up.
      references: where.
      settings: see `MatchSettings`.
      journal: keeps finished blocks; its inputs must tell both sides and what embeds.
      apart: leave out references of the query's own group.
      embed: makes features of volumes, to embed the aligned ones again; without it the features of
        the sides are compared as they are.
      on_progress: called with (queries done, queries in all, what).
      what: the name of this work for the progress line.

    Returns:
      Rows of `pair_dtype`; measures of levels that a side lacks are NaN.
    """
    candidates = functools.cache(lambda: _candidates(queries, references, settings, journal, apart))

    def block(rows: np.ndarray) -> np.ndarray:
        pairs = [(int(q), int(r)) for q in rows for r in candidates()[q]]
        if not pairs:
            return np.zeros(0, pair_dtype(settings.labels))
        return _measure(pairs, queries, references, settings, embed)

    return journal.by_rows(
        "volumes",
        [settings, queries.groups, references.groups, apart],
        block,
        count=len(queries),
        block=_BLOCK,
        on_progress=on_progress,
        what=what,
    )


def measure_pairs(
    pairs: list[tuple[int, int]],
    queries: VolumeSide,
    references: VolumeSide,
    *,
    settings: MatchSettings,
    journal: Section,
    embed: Callable[[np.ndarray], np.ndarray] | None = None,
    on_progress: Progress = lambda done, total, what: None,
    what: str = "comparing",
) -> np.ndarray:
    """Measures the pairs named, (query, reference) each; arguments as for `match_volumes`."""

    def block(rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros(0, pair_dtype(settings.labels))
        return _measure([pairs[row] for row in rows], queries, references, settings, embed)

    return journal.by_rows(
        "pairs",
        [settings, pairs],
        block,
        count=len(pairs),
        block=_BLOCK,
        on_progress=on_progress,
        what=what,
    )


def best_by_level(pairs: np.ndarray, count: int) -> dict[Level, np.ndarray]:
    """The best pair of each of `count` queries at each level that was measured.

    A query without a pair has reference -1. Ties go to the smaller reference.
    """
    out = {}
    for level, measure in DECIDING.items():
        if not np.isfinite(pairs[measure]).any():
            continue
        order = np.lexsort((pairs["reference"], -pairs[measure], pairs["query"]))
        ordered = pairs[order]
        first = ordered[np.flatnonzero(np.diff(ordered["query"], prepend=-1))]
        best = np.zeros(count, pairs.dtype)
        best["query"], best["reference"] = np.arange(count), -1
        for name in (name for measures in MEASURES.values() for name in measures):
            best[name] = np.nan
        best[first["query"]] = first
        out[level] = best
    return out


def best_by_measure(pairs: np.ndarray, count: int) -> dict[tuple[Level, str], np.ndarray]:
    """How alike each of `count` queries is to the real volume that is closest by each measure.

    float64 [count] by level and measure, larger is more alike (distances are negated). A measure that
    is missing for every pair of a query is left out.
    """
    out = {}
    for level, measures in MEASURES.items():
        for name, more_is_alike in measures.items():
            values = pairs[name].astype(np.float64) * (1 if more_is_alike else -1)
            best = np.full(count, -np.inf)
            np.maximum.at(best, pairs["query"], np.where(np.isnan(values), -np.inf, values))
            if np.isfinite(best).all():
                out[level, name] = best
    return out


def _candidates(
    queries: VolumeSide,
    references: VolumeSide,
    settings: MatchSettings,
    journal: Section,
    apart: bool,
) -> list[np.ndarray]:
    found = []
    for level in queries.levels:
        rows, _ = search(
            queries,
            references,
            level=level,
            k=settings.candidates,
            apart=apart,
            journal=journal.section(f"nearest-{level.value}", level, apart),
        )
        found.append(rows)
    if settings.alignment is Alignment.RIGID:
        found.append(search_posed(queries, references, k=settings.candidates, apart=apart)[0])
    together = np.concatenate(found, axis=1)
    return [np.unique(row[row >= 0]) for row in together]


def _measure(
    pairs: list[tuple[int, int]],
    queries: VolumeSide,
    references: VolumeSide,
    settings: MatchSettings,
    embed: Callable[[np.ndarray], np.ndarray] | None,
) -> np.ndarray:
    out = np.zeros(len(pairs), pair_dtype(settings.labels))
    if not pairs:
        return out
    out["query"], out["reference"] = np.array(pairs, np.int32).T
    for name in ("cosine", *overlaps.MEASURES):
        out[name] = np.nan
    if queries.features is not None:
        out["cosine"] = _cosine(queries.features[out["query"]], references, out["reference"])
    for first in range(0, len(pairs), _BATCH):
        part = out[first : first + _BATCH]
        rows = [np.resize(part[name], _BATCH) for name in ("query", "reference")]  # one shape
        moving, fixed = queries.take(rows[0]), references.take(rows[1])
        aligned, transform = _aligned(moving, fixed, settings.alignment)
        measured = similarities.volume_similarity(aligned, jnp.asarray(fixed, jnp.float32))
        for name in similarities.MEASURES:
            part[name] = np.asarray(getattr(measured, name))[: len(part)]
        if transform is not None and embed is not None and queries.features is not None:
            found = embed(np.asarray(aligned))[: len(part)]
            part["cosine"] = _cosine(found, references, part["reference"])
        if transform is not None:
            part["mirrored"] = np.asarray(transform.flip)[: len(part)]
            part["rotation_deg"] = np.asarray(transform.rotation_deg)[: len(part)]
            shift = np.linalg.norm(np.asarray(transform.shift), axis=1)
            part["shift_mm"] = shift[: len(part)] * settings.voxel_mm
        if queries.labels is not None and references.labels is not None:
            maps = jnp.asarray(queries.labels(rows[0]))
            maps = np.asarray(maps if transform is None else warp_labels(maps, transform))
            _overlap_into(part, maps, references.labels(rows[1]), settings)
    return out


def _cosine(rows: np.ndarray, references: VolumeSide, chosen: np.ndarray) -> np.ndarray:
    if references.features is None:
        raise ValueError(
            "the queries have features and the references have none; give both or neither"
        )
    return np.einsum("nd,nd->n", rows, references.features[chosen]).clip(-1, 1)


def _overlap_into(
    part: np.ndarray, moving: np.ndarray, fixed: np.ndarray, settings: MatchSettings
) -> None:
    names = tuple(overlaps.MEASURES)
    for row, (a, b) in enumerate(zip(moving[: len(part)], fixed[: len(part)], strict=True)):
        if not a.any() or not b.any():
            continue  # no map of one of them: not measured
        found = overlaps.overlap(
            a, b.astype(a.dtype), labels=settings.labels, spacing=(settings.voxel_mm,) * 3
        )
        columns = np.stack([getattr(found, name) for name in names], 1)
        part["by_label"][row] = columns
        # That neither has a haemorrhage says little about whether they are of one person.
        held = np.isin(settings.labels, np.union1d(a, b))
        if held.any():
            for name, value in zip(names, columns[held].mean(0), strict=True):
                part[name][row] = value


_refined = jax.jit(registration.align, static_argnames="model")


def _aligned(
    moving: np.ndarray, fixed: np.ndarray, alignment: Alignment
) -> tuple[Array, Transform | None]:
    """Each moving volume on the frame of its fixed one: of two alignments the one that agrees better.

    One starts from a search of all motions and mirrorings; it now and then takes a head for its
    mirror image. The other starts where the volumes are.
    """
    if alignment is Alignment.NONE:
        return jnp.asarray(moving, jnp.float32), None
    a, b = jnp.asarray(moving, jnp.float32), jnp.asarray(fixed, jnp.float32)
    still = Transform(jnp.zeros(1, jnp.int32), jnp.eye(3)[None], jnp.zeros((1, 3)))
    found = registration.register(a, b, grid=GRID)
    parts = [
        _refined(a[i : i + 1], b[i : i + 1], still, model=MotionModel.RIGID) for i in range(len(a))
    ]
    near = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    better = near.correlation > found.correlation

    def chosen(x: Array, y: Array) -> Array:
        return jnp.where(better.reshape(-1, *(1,) * (x.ndim - 1)), x, y)

    best = jax.tree.map(chosen, near, found)
    return best.aligned, best.transform


def aligned_for_display(
    moving: np.ndarray, fixed: np.ndarray, *, alignment: Alignment
) -> np.ndarray:
    """`moving` [n, d, h, w] on the frame of `fixed`, float32, as it was compared."""
    parts = [
        np.asarray(_aligned(moving[i : i + 1], fixed[i : i + 1], alignment)[0])
        for i in range(len(moving))
    ]
    return np.concatenate(parts)


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
