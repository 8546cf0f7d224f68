"""From two sets of images to verified candidate pairs.

Contract: a `Side` is a set with what searching needs. `match` proposes, for every query, the
references that look most like it after alignment and those nearest in the encoder's space, then
verifies each proposal from the pixels. The answer is one row a verified pair, of `PAIR`; finished
blocks of queries are journalled, so a killed run goes on where it was.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deepssim_jax.files import write_array
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.scoring.aligned import AlignedIndex
from deepssim_jax.scoring.pairs import nearest
from deepssim_jax.scoring.verify import verify_pairs

PAIR = np.dtype(
    [
        ("query", "<i4"),
        ("reference", "<i4"),
        ("embedding", "<f4"),  # cosine
        ("verified", "<f4"),
        ("start", "<i4"),  # grid index from which the alignment was refined
        ("flip", "<i4"),
        ("rotation_deg", "<f4"),
        ("scale", "<f4"),
        ("shift_y", "<f4"),
        ("shift_x", "<f4"),
    ]
)
BLOCK = 128

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Side:
    """One set of images: n rows in the order of their ids.

    `take(rows)` gives square images [k, s, s] of any real dtype; `low` float32 [n, g, g] are
    their versions for the global search; `embeddings` float32 [n, d] of unit norm; `groups` int
    [n] holds the patient of each, or is None where pairs of one patient are wanted too.
    """

    take: Callable[[np.ndarray], np.ndarray]
    low: np.ndarray
    embeddings: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.low)

    def rows(self, chosen: np.ndarray) -> "Side":
        """The side made of some of its rows."""
        chosen = np.asarray(chosen)
        return Side(
            take=lambda rows: self.take(chosen[rows]),
            low=self.low[chosen],
            embeddings=self.embeddings[chosen],
            groups=None if self.groups is None else self.groups[chosen],
        )


@dataclasses.dataclass(frozen=True)
class Proposals:
    """How many references each way of searching proposes for verification."""

    aligned: int = 4
    encoder: int = 2


def match(
    queries: Side,
    references: Side,
    *,
    journal: Path,
    proposals: Proposals = Proposals(),
    grid: SearchGrid = SearchGrid(),
    apart: bool = False,
    on_progress: Progress = lambda done, total, what: None,
    what: str = "matching",
) -> np.ndarray:
    """Verified candidate pairs of every query, best first within each query.

    Args:
      queries: images to explain, for example the synthetic ones.
      references: images they may come from.
      journal: directory for finished blocks; it must belong to exactly these inputs.
      proposals: candidates of each way of searching.
      grid: transformations of the global search.
      apart: leave out references of the query's own group (both sides need groups).
      on_progress: called with (queries done, queries in all, what).
      what: the name of this work for the progress line.

    Returns:
      Structured array of `PAIR`, sorted by query, then verified score (falling), then reference.
    """
    if apart and (queries.groups is None or references.groups is None):
        raise ValueError("apart=True needs the groups (patients) of both sides")
    journal.mkdir(parents=True, exist_ok=True)
    index: AlignedIndex | None = None
    blocks = []
    for start in range(0, len(queries), BLOCK):
        path = journal / f"pairs-{start // BLOCK:06d}.npy"
        if not path.exists():
            index = index or AlignedIndex.build(
                references.low, grid=grid, groups=references.groups if apart else None
            )
            rows = np.arange(start, min(start + BLOCK, len(queries)))
            write_array(path, _match_block(queries, references, rows, index, proposals, apart))
        blocks.append(np.load(path, allow_pickle=False))
        on_progress(min(start + BLOCK, len(queries)), len(queries), what)
    return np.concatenate(blocks) if blocks else np.zeros(0, PAIR)


def best_matches(pairs: np.ndarray, count: int) -> np.ndarray:
    """The first (best) pair of each of `count` queries; queries without one get reference -1."""
    best = np.zeros(count, PAIR)
    best["query"], best["reference"], best["verified"] = np.arange(count), -1, -1.0
    first = np.flatnonzero(np.diff(pairs["query"], prepend=-1))
    best[pairs["query"][first]] = pairs[first]
    return best


def _match_block(
    queries: Side,
    references: Side,
    rows: np.ndarray,
    index: AlignedIndex,
    proposals: Proposals,
    apart: bool,
) -> np.ndarray:
    part = queries.rows(rows)
    near = _encoder_proposals(part, references, proposals.encoder, apart)
    # One pass over the transformed versions of a query serves both kinds of proposals.
    found = index.search(
        part.low,
        k=proposals.aligned,
        groups=part.groups if apart else None,
        ask=np.maximum(near, 0),
    )
    starts = {(q, int(near[q, i])): int(found.asked[q, i]) for q, i in np.argwhere(near >= 0)}
    starts |= {
        (int(q), int(found.indices[q, i])): int(found.transforms[q, i])
        for q, i in np.argwhere(found.scores > -2.0)
    }
    keys = sorted(starts)
    out = np.zeros(len(keys), PAIR)
    if not keys:
        return out
    local = np.array([q for q, _ in keys])
    out["query"], out["reference"] = rows[local], [r for _, r in keys]
    # A verified pair's images are fetched once a block: memory stays O(block).
    moving = part.take(np.arange(len(rows)))[local]
    fixed = references.take(out["reference"])
    verified = verify_pairs(
        moving, fixed, start=np.array([starts[k] for k in keys]), grid=index.grid
    )
    out["verified"], out["start"], out["flip"] = verified.score, verified.start, verified.flip
    out["rotation_deg"], out["scale"] = verified.rotation_deg, verified.scale
    out["shift_y"], out["shift_x"] = verified.shift[:, 0], verified.shift[:, 1]
    cosine = (part.embeddings[local] * references.embeddings[out["reference"]]).sum(1)
    out["embedding"] = np.clip(cosine, -1.0, 1.0)
    return out[np.lexsort((out["reference"], -out["verified"], out["query"]))]


def _encoder_proposals(part: Side, references: Side, count: int, apart: bool) -> np.ndarray:
    """int [n, count]: references with the nearest embeddings, own group left out if asked.

    -1 stands where there are fewer.
    """
    out = np.full((len(part), count), -1, np.int64)
    if not apart:
        near = nearest(part.embeddings, references.embeddings, k=min(count, len(references)))
        out[:, : near.indices.shape[1]] = near.indices
        return out
    # Own-group references can fill the first places; look past as many as there can be.
    assert part.groups is not None and references.groups is not None
    largest = int(np.bincount(references.groups).max())
    k = min(count + largest, len(references))
    near = nearest(part.embeddings, references.embeddings, k=k)
    for q in range(len(part)):
        others = near.indices[q][references.groups[near.indices[q]] != part.groups[q]][:count]
        out[q, : len(others)] = others
    return out
