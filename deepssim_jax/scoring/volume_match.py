"""From candidates to measured pairs of volumes: align, then compare at every level.

Contract: candidates come from keypoints (`volume_points`), from a search of all poses
(`volume_poses`), and in place from every level (`volume_search`), the closest few of each; every one
of them is measured at all levels, so that the levels can be compared. A candidate carries the maps
that its searches found into the alignment. The answer is one row a pair, of `pair_dtype`, sorted by
query and reference; finished blocks of queries are journalled.
"""

import dataclasses

import numpy as np

from deepssim_jax.ops import volume_structure as structure
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.volume_measure import (
    MEASURES,
    Alignment,
    MatchSettings,
    brought_together,
    held_in,
    measured,
    pair_dtype,
    starts,
)
from deepssim_jax.scoring.volume_points import Found, VolumeIndex
from deepssim_jax.scoring.volume_search import Level, VolumeSide, search
from deepssim_jax.workspace import Section

_BLOCK = 16


@dataclasses.dataclass(frozen=True)
class Reference:
    """Where volumes are looked up: the side, and its keypoints unless volumes are compared in place."""

    side: VolumeSide
    index: VolumeIndex | None

    @classmethod
    def of(
        cls, side: VolumeSide, *, alignment: Alignment, journal: Section,
        on_progress: Progress = lambda done, total, what: None,
    ) -> "Reference":  # fmt: skip
        """Describes a side once for all that is looked up in it."""
        if alignment is Alignment.NONE:
            return cls(side, None)
        return cls(side, VolumeIndex.build(side, journal=journal, on_progress=on_progress))

    @property
    def own(self) -> np.ndarray:
        """Float32 [n]: the evidence that each volume has for itself, 0 without keypoints."""
        return np.zeros(len(self.side)) if self.index is None else self.index.own.max(1)


def match_volumes(
    queries: VolumeSide,
    references: Reference,
    *,
    settings: MatchSettings,
    journal: Section,
    apart: bool = False,
    on_progress: Progress = lambda done, total, what: None,
    what: str = "comparing",
) -> np.ndarray:
    """Measures each query with the closest references of every level.

    Args:
      queries: what is looked up.
      references: where.
      settings: see `MatchSettings`.
      journal: keeps finished blocks; its inputs must tell both sides.
      apart: leave out references of the query's own group.
      on_progress: called with (queries done, queries in all, what).
      what: the name of this work for the progress line.

    Returns:
      Rows of `pair_dtype`; measures of levels that a side lacks are NaN.
    """
    side = references.side

    def block(rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros(0, pair_dtype(settings.labels))
        part = queries.rows(rows)
        found = None if references.index is None else references.index.vote(part)
        chosen = _candidates(part, side, found, settings, apart)
        pairs = [(i, int(r)) for i, row in enumerate(chosen) for r in row]
        out = measured(pairs, part, side, found, settings)
        out["query"] = rows[out["query"]]
        return out

    return journal.by_rows(
        "volumes",
        [settings, queries.groups, side.groups, apart],
        block,
        count=len(queries),
        block=_BLOCK,
        on_progress=on_progress,
        what=what,
    )


def measure_pairs(
    pairs: list[tuple[int, int]],
    queries: VolumeSide,
    references: Reference,
    *,
    settings: MatchSettings,
    journal: Section,
    on_progress: Progress = lambda done, total, what: None,
    what: str = "comparing",
) -> np.ndarray:
    """Measures the pairs named, (query, reference) each; arguments as for `match_volumes`."""

    def block(rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros(0, pair_dtype(settings.labels))
        chosen = np.unique([pairs[row][0] for row in rows])
        part = queries.rows(chosen)
        found = None if references.index is None else references.index.vote(part)
        named = [(int(np.searchsorted(chosen, pairs[row][0])), pairs[row][1]) for row in rows]
        out = measured(named, part, references.side, found, settings)
        out["query"] = chosen[out["query"]]
        return out

    return journal.by_rows(
        "pairs",
        [settings, pairs],
        block,
        count=len(pairs),
        block=_BLOCK,
        on_progress=on_progress,
        what=what,
    )


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
    found: Found | None,
    settings: MatchSettings,
    apart: bool,
) -> list[np.ndarray]:
    """Rows of the references to measure for each query, rising."""
    k = settings.candidates
    # What lies in place alone needs few candidates where any pose is searched as well.
    in_place = k if found is None else 1
    columns = [
        search(queries, references, level=level, k=in_place, apart=apart)[0]
        for level in queries.levels
        if level is not Level.POINTS and (found is None or level is not Level.VOXEL)
    ]
    if found is not None:
        own = queries.groups[:, None] == references.groups[None] if apart else None
        columns.append(_largest(found.evidence, references.groups, own, k))
        columns.append(_largest(found.posed, references.groups, own, k)[:, :k])
    together = np.concatenate(columns, axis=1)
    return [np.unique(row[row >= 0]) for row in together]


def _largest(scores: np.ndarray, groups: np.ndarray, own: np.ndarray | None, k: int) -> np.ndarray:
    """int [n, k + 1]: the k best references above 0, then the best of another group than the first."""
    scores = scores if own is None else np.where(own, 0.0, scores)
    order = np.argsort(-scores, axis=1, kind="stable")
    out = np.full((len(scores), k + 1), -1)
    for row, ranked in enumerate(order):
        ranked = ranked[scores[row, ranked] > 0]
        out[row, : min(k, len(ranked))] = ranked[:k]
        others = ranked[groups[ranked] != groups[ranked[0]]] if len(ranked) else ranked
        out[row, k] = others[0] if len(others) else -1
    return out


def shown_together(
    queries: VolumeSide,
    references: Reference,
    *,
    query: int,
    reference: int,
    alignment: Alignment,
) -> structure.Alignment:
    """One pair aligned as it was compared, batches of one."""
    part, rows = queries.rows(np.array([query])), np.array([reference])
    found = None if references.index is None else references.index.vote(part)
    first = np.zeros(1, int)
    return brought_together(
        part.take(first),
        references.side.take(rows),
        (held_in(part, first), held_in(references.side, rows)),
        starts(part, references.side, found, first, rows),
        alignment,
    )
