"""From two sets of images to verified candidate pairs.

Contract: `match` proposes, for every query, the references that look most like it after alignment, where
they lie, by local features and in the encoder's space, then verifies each proposal from the pixels. The
answer is one row a verified pair, of `PAIR`. What was found of a query is kept by its content, so a killed
run goes on where it was, and a run with more queries looks at the new ones alone.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np

from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.transform import FLIP_NAMES, Transform
from deepssim_jax.scoring.aligned import AlignedIndex
from deepssim_jax.scoring.candidates import candidates, groups_of
from deepssim_jax.scoring.detail import BANDS, Common
from deepssim_jax.scoring.points import KEPT, LocalIndex
from deepssim_jax.scoring.retrieval import Proposals, Retrieval
from deepssim_jax.scoring.rows_by_query import gathered, spread
from deepssim_jax.scoring.side import Side
from deepssim_jax.scoring.verify import FEW, VerifiedPairs, verify_from, verify_pairs
from deepssim_jax.workspace import Made, Section, key_of

PAIR = np.dtype(
    [
        ("query", "<i4"),
        ("reference", "<i4"),
        ("embedding", "<f4"),  # cosine
        ("verified", "<f4"),
        ("flip", "<i4"),
        ("rotation_deg", "<f4"),
        ("scale", "<f4"),
        ("shift_y", "<f4"),
        ("shift_x", "<f4"),
        ("matrix", "<f4", (2, 2)),  # of `ops.transform`
        ("negative", "?"),  # bright and dark changed places
        ("by_points", "?"),  # found and placed by local features; the fields below are theirs
        ("points", "<f4"),  # sum of the matches that lie as the real image's do
        ("evidence", "<f4"),  # relative to the query's other candidates
        ("exact", "<f4"),  # how exactly the matches lie, in [0, 1]
        ("partial", "<f4", (BANDS,)),  # of `scoring.detail`, where the pair was looked at so
        ("share", "<f4"),  # of the picture that agrees, likewise
    ]
)
BLOCK = 128
# A sum of matches below this is chance.
_MIN_POINTS = 2.0
NO_EVIDENCE = -5.0

Progress = Callable[[int, int, str], None]


def match(
    queries: Side,
    references: Side,
    *,
    journal: Section,
    proposals: Proposals = Retrieval.BOTH.proposals,
    grid: SearchGrid = SearchGrid(),
    apart: bool = False,
    kind: np.ndarray | None = None,
    on_progress: Progress = lambda done, total, what: None,
    what: str = "matching",
) -> np.ndarray:
    """Verified candidate pairs of every query, best first within each query.

    Args:
      queries: images to explain, for example the synthetic ones.
      references: images they may come from.
      journal: keeps what is found of each query, by its features and those of the references.
      proposals: candidates of each way of searching.
      grid: transformations of the global search.
      apart: leave out references of the query's own group (both sides need groups).
      kind: images [k, s, s] that say what all of their kind share; a sample of the references if None.
      on_progress: called with (queries done, queries in all, what).
      what: the name of this work for the progress line.

    Returns:
      Structured array of `PAIR`, sorted by query, then verified score (falling), then reference.
    """
    groups_of(queries, references, apart)
    groups = references.groups if apart else None
    index = functools.cache(lambda: AlignedIndex.build(references.low, grid=grid, groups=groups))
    common = functools.cache(lambda: references.common if kind is None else Common.of(kind))

    def block(rows: np.ndarray) -> Made:
        part = queries.rows(rows)
        found = verified(
            part,
            references,
            index=index() if proposals.aligned else None,
            proposals=proposals,
            grid=grid,
            apart=apart,
        )
        if references.points is not None and queries.points is not None:
            found = with_evidence(found, part, references, common(), apart=apart)
        else:
            found["partial"] = NO_EVIDENCE
        return Made({"pairs": spread(found, len(rows), most=proposals.most + KEPT)})

    kept = journal.by_content(
        "pairs",
        [proposals, grid, apart, *_content(references), kind],
        block,
        ids=_rows_content(queries, apart=apart),
        block=BLOCK,
        on_progress=on_progress,
        what=what,
    )
    return gathered(kept.field("pairs")) if len(queries) else np.zeros(0, PAIR)


def _content(side: Side) -> tuple[np.ndarray | None, ...]:
    """What tells a side's images apart without fetching them."""
    points = None if side.points is None else side.points.geometry
    return side.low, side.embeddings, side.groups, points


def _rows_content(side: Side, *, apart: bool) -> list[str]:
    """What tells each image of a side apart; its patient counts where that says what it is compared with."""
    low, embeddings, groups, points = _content(side)
    columns = [low, embeddings, groups if apart else None, points]
    return [
        key_of([None if column is None else column[row] for column in columns])
        for row in range(len(side))
    ]


def best_matches(pairs: np.ndarray, count: int) -> np.ndarray:
    """The first (best) pair of each of `count` queries; queries without one get reference -1."""
    best = np.zeros(count, PAIR)
    best["query"], best["reference"], best["verified"] = np.arange(count), -1, -1.0
    first = np.flatnonzero(np.diff(pairs["query"], prepend=-1))
    best[pairs["query"][first]] = pairs[first]
    return best


def verified(
    part: Side,
    references: Side,
    *,
    index: AlignedIndex | None,
    proposals: Proposals,
    grid: SearchGrid = SearchGrid(),
    apart: bool = False,
    enough: float | None = None,
) -> np.ndarray:
    """`match` for few queries, without a journal.

    Args:
      part: the queries, all of whose images are held at once.
      references: images they may come from.
      index: of the references, or None where `proposals` has no aligned ones.
      proposals: candidates of each way of searching.
      grid: transformations of the global search.
      apart: leave out references of the query's own group.
      enough: a query that reaches this score is asked no further. What was not moved comes first, then
        the first proposal of every way, then the others.
    """
    groups_of(part, references, apart)
    search = functools.partial(candidates, references=references, apart=apart)
    verify = functools.partial(_verified, part=part, references=references, grid=grid)
    if not len(part):
        out = verify([])
    elif enough is None:
        out = verify(sorted(search(part, index=index, proposals=proposals)))
    else:
        there = Proposals(aligned=0, likely=0, in_place=proposals.in_place, encoder=0)
        others = dataclasses.replace(proposals, in_place=0)
        out = verify(sorted(search(part, index=None, proposals=there)))
        rows = _below(enough, out, len(part))
        found = search(part.rows(rows), index=index, proposals=others) if len(rows) else {}
        places = {(int(rows[query]), row): place for (query, row), place in found.items()}
        for known in zip(out["query"].tolist(), out["reference"].tolist()):
            places.pop(known, None)
        for first in (True, False):
            rest = set(_below(enough, out, len(part)).tolist())
            keys = [k for k, place in places.items() if k[0] in rest and (place == 0) == first]
            out = np.concatenate([out, verify(sorted(keys))])
    return in_order(out)


def with_evidence(
    found: np.ndarray,
    part: Side,
    references: Side,
    common: Common,
    *,
    apart: bool = False,
) -> np.ndarray:
    """Pairs of `verified`, with those that local features place, and with partial correlations.

    Args:
      found: of `verified`, of these queries.
      part: the queries, with their points.
      references: images they may come from, with their points.
      common: what all images of the kind share.
      apart: leave out references of the query's own group.

    Returns:
      Rows of `PAIR` in the order of `match`. What holds next to nothing agrees with everything of its
      kind; that is no match, and its rows have no evidence.
    """
    found = np.concatenate([found, placed_by_points(part, references, references.local, apart)])
    _fill_partial(found, part, references, common)
    empty = ~part.features.comparable[found["query"]]
    empty |= ~references.features.comparable[found["reference"]]
    found["verified"][empty], found["evidence"][empty] = 0.0, NO_EVIDENCE
    found["partial"][empty] = NO_EVIDENCE
    return in_order(found)


def in_order(pairs: np.ndarray) -> np.ndarray:
    """Pairs by query, then those of the best score first, then by reference."""
    return pairs[np.lexsort((pairs["reference"], -pairs["verified"], pairs["query"]))]


def transform_of(pairs: np.ndarray) -> Transform:
    """The transformations of rows of `PAIR`, in pixels of the images."""
    shift = np.stack([pairs["shift_y"], pairs["shift_x"]], -1)
    return Transform.of(pairs["flip"], pairs["matrix"], shift)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moved:
    """How one image was moved to give another, the real one to give the synthetic; see `ops.transform`.

    `flip` is "none", "horizontal", "vertical" or "both", then come degrees counter-clockwise, pixels of a
    square of the declared size, and the factor by which it was enlarged.
    """

    flip: str = "none"
    rotation_deg: float = 0.0
    shift_y: float = 0.0
    shift_x: float = 0.0
    scale: float = 1.0
    negative: bool = False  # bright and dark changed places
    matrix: tuple[float, ...] = (1.0, 0.0, 0.0, 1.0)  # row by row


class Placement(TypedDict):
    """The fields of `Moved`, and what of the real image agrees with the synthetic one, in plain numbers."""

    verified_score: float
    flip: str
    rotation_deg: float
    shift_y: float
    shift_x: float
    scale: float
    negative: bool
    matrix: tuple[float, ...]
    points: float
    evidence: float
    exact: float


def placement(row: np.void) -> Placement:
    """Of one row of `PAIR`."""
    return Placement(
        verified_score=float(row["verified"]),
        flip=FLIP_NAMES[int(row["flip"])],
        rotation_deg=float(row["rotation_deg"]),
        shift_y=float(row["shift_y"]),
        shift_x=float(row["shift_x"]),
        scale=float(row["scale"]),
        negative=bool(row["negative"]),
        matrix=tuple(float(x) for x in row["matrix"].ravel()),
        points=float(row["points"]),
        evidence=float(row["evidence"]),
        exact=float(row["exact"]),
    )


def placed_by_points(
    part: Side,
    references: Side,
    index: LocalIndex,
    apart: bool = False,
    least_evidence: float = 0.0,
) -> np.ndarray:
    """Rows of `PAIR` for the real images whose local features lie as the query's do.

    Args:
      part: the queries, with their points.
      references: the real images.
      index: of their local features.
      apart: leave out references of the query's own group.
      least_evidence: with which a pair is verified from its pixels.
    """
    found = index.search(part.features, exclude=part.groups if apart else None)
    query, place = np.nonzero(found.reference >= 0)
    out = np.zeros(len(query), PAIR)
    out["query"], out["reference"], out["by_points"] = query, found.reference[query, place], True
    out["points"], out["evidence"] = found.points[query, place], found.evidence[query, place]
    out["exact"], out["negative"] = found.exact[query, place], found.negative[query, place]
    out["verified"] = -1.0
    # What lies so is chance; its evidence says how far chance reaches, and needs no pixels.
    good = np.flatnonzero((out["points"] >= _MIN_POINTS) & (out["evidence"] >= least_evidence))
    if len(good):
        query, place, chosen = query[good], place[good], out[good]
        moving, fixed = part.take(query), references.take(chosen["reference"])
        start = Transform.of(
            found.flip[query, place],
            found.matrix[query, place],
            found.shift[query, place] * moving.shape[-1],
        )
        few = FEW if index.together else None
        placed = verify_from(moving, fixed, start, chosen["negative"], together=few)
        _fill(chosen, placed, part, references)
        out[good] = chosen
    return out


def _fill(out: np.ndarray, found: VerifiedPairs, part: Side, references: Side) -> None:
    """Writes what verification says, and the cosine, into rows of `PAIR`."""
    out["verified"], out["flip"], out["matrix"] = found.score, found.flip, found.matrix
    out["rotation_deg"], out["scale"] = found.rotation_deg, found.scale
    out["shift_y"], out["shift_x"] = found.shift[:, 0], found.shift[:, 1]
    cosine = (part.embeddings[out["query"]] * references.embeddings[out["reference"]]).sum(1)
    out["embedding"] = np.clip(cosine, -1.0, 1.0)


def _fill_partial(out: np.ndarray, part: Side, references: Side, common: Common) -> None:
    """Writes partial correlations into those rows of `PAIR` whose pixels were aligned."""
    out["partial"] = NO_EVIDENCE
    seen = np.flatnonzero(out["verified"] > -1)
    if len(seen):
        rows = out[seen]
        moving, fixed = part.take(rows["query"]), references.take(rows["reference"])
        found = common.correlations(moving, fixed, transform_of(rows), rows["negative"])
        out["partial"][seen], out["share"][seen] = found.partial, found.share


def _below(enough: float, pairs: np.ndarray, count: int) -> np.ndarray:
    """Which of `count` queries have no pair of this score."""
    return np.setdiff1d(np.arange(count), pairs["query"][pairs["verified"] >= enough])


def _verified(
    keys: Sequence[tuple[int, int]], *, part: Side, references: Side, grid: SearchGrid
) -> np.ndarray:
    """Rows of `PAIR`, one for each (query, reference)."""
    out = np.zeros(len(keys), PAIR)
    if not keys:
        return out
    out["query"], out["reference"] = zip(*keys, strict=True)
    # A verified pair's images are fetched once a block: memory stays O(block).
    moving = part.take(np.arange(len(part)))[out["query"]]
    fixed = references.take(out["reference"])
    _fill(out, verify_pairs(moving, fixed, grid=grid), part, references)
    return out
