"""One set of images searched against itself by local features.

Contract: the rows are those of a `Side`. A first round looks for each image among all others; further
rounds look beyond its copies that were found, until nothing new comes up, so that a crowd of copies of
one image does not hide its own members. The last rounds look, for a sample, beyond all that is related,
such as other slices of a patient: what is left is what unrelated images reach in this very folder.
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import scipy  # whose parts load when they are first used

from deepssim_jax.ops.batches import even_rows
from deepssim_jax.scoring.match import NO_EVIDENCE, PAIR, Progress, placed_by_points
from deepssim_jax.scoring.points import ADDED, LocalIndex
from deepssim_jax.scoring.side import Side
from deepssim_jax.workspace import Section

_BLOCK = 128
# So many images, evenly spread, are looked at closely whatever they seem to be.
MAX_NULL = 256
# (Evidence, points) from which a pair may be copies, and from which it is related.
_COPIES, _RELATED = (1.0, 20.0), (0.6, 6.0)
# Where an image's seventh to twelfth candidates hold this many of its points, they are copies as well, and
# `_USUAL` points stand for unrelated images.
_CROWD, _USUAL = 8.0, 2.0
# Of the points at a glance, the share that copies hold and unrelated images do not: at most 0.34 of
# nine kinds of picture, and copies from 0.58.
_SHARED = 0.4
_GLANCED = 24
_SAMPLE = 128


@dataclasses.dataclass(frozen=True)
class SelfJoin:
    """What was found: `pairs` of `PAIR`, both rows of the side, each pair once, in the direction that
    says more. `unrelated` float32 [m]: the largest evidence of some images beyond those they resemble.
    """

    pairs: np.ndarray
    unrelated: np.ndarray


def self_join(
    side: Side,
    *,
    journal: Section,
    on_progress: Progress,
    what: str = "images with each other",
    unrelated: int = MAX_NULL,
) -> SelfJoin:
    """Searches a side against itself.

    Args:
      side: with local features; images that are not `comparable` are left out.
      journal: keeps what is found.
      on_progress: called with (images done, images in all, what).
      what: the name of this work for the progress line.
      unrelated: so many images are looked at for what unrelated images reach.
    """
    empty = SelfJoin(np.zeros(0, PAIR), np.zeros(0, np.float32))
    if side.points is None:
        return empty
    rows = np.flatnonzero(side.points.comparable)
    if len(rows) < 2:
        return empty
    part = side.rows(rows)
    content = [part.features.geometry, part.embeddings]
    crowd = np.arange(len(rows), dtype=np.int32)
    drawn = np.zeros(len(rows), bool)
    drawn[even_rows(len(rows), most=unrelated)] = True
    best = np.full(len(rows), np.nan, np.float32)
    todo, found, number = np.arange(len(rows)), np.zeros(0, PAIR), 1
    for level, asked in ((_COPIES, np.ones(len(rows), bool)), (_RELATED, drawn)):
        while len(todo):
            round_ = _Round(dataclasses.replace(part, groups=crowd), todo, drawn)
            new = journal.by_rows(
                "round",
                [content, crowd, todo, drawn],
                round_.found,
                count=len(todo),
                block=_BLOCK,
                on_progress=on_progress,
                what=what if number == 1 else f"{what}, round {number}",
            )
            best[todo] = _largest(new, len(rows))[todo]
            found, number = np.concatenate([found, new]), number + 1
            crowd, todo = _beyond(found, crowd, level)
            todo = todo[asked[todo]]
        crowd, todo = _beyond(found, crowd, _RELATED)
        todo = todo[drawn[todo]]
    found["query"], found["reference"] = rows[found["query"]], rows[found["reference"]]
    return SelfJoin(each_once(found), best[drawn & ~np.isnan(best)])


class _Round:
    """One search of some rows beyond their crowds; the index is built when it is first needed."""

    def __init__(self, side: Side, todo: np.ndarray, drawn: np.ndarray):
        self._side, self._todo, self._drawn = side, todo, drawn

    @functools.cached_property
    def _index(self) -> LocalIndex:
        return build_index(self._side)

    def found(self, block: np.ndarray) -> np.ndarray:
        """Rows of `PAIR` for some of the rows to do."""
        if not len(block):
            return np.zeros(0, PAIR)
        side, groups = self._side.grouped()
        rows, index = self._todo[block], self._index
        glance = index.stands_out(side.features.rows(rows), exclude=groups[rows])
        rows = rows[glance | self._drawn[rows]]
        out = look(side.rows(rows), side, index, apart=True)
        out["query"] = rows[out["query"]]
        return out


def look(
    part: Side, side: Side, index: LocalIndex, *, apart: bool, least_evidence: float = 0.0
) -> np.ndarray:
    """`placed_by_points` of queries whose candidates may all be copies of them.

    Args:
      part: the queries, with groups where `apart`.
      side: the images to look among.
      index: of `build_index`.
      apart: leave out images of the query's own group.
      least_evidence: with which a pair is verified from its pixels.
    """
    out = placed_by_points(part, side, index, apart, least_evidence)
    crowded = _null_points(out) >= _CROWD
    if crowded.any():
        those = np.unique(out["query"][crowded])
        again = placed_by_points(part.rows(those), side, index, apart, least_evidence=NO_EVIDENCE)
        again["evidence"] = np.log((again["points"] + ADDED) / (_USUAL + ADDED))
        again["query"] = those[again["query"]]
        out = np.concatenate([out[~np.isin(out["query"], those)], again])
    return out


def build_index(side: Side) -> LocalIndex:
    """The index of a side with groups, with a sample of images that are no copies of each other.

    Two copies of one image in the sample would make all that they show look common.
    """
    side, groups = side.grouped()
    index = side.local
    first, count = index.first, len(side)
    descriptors = np.asarray(first.tiles).reshape(-1, *first.tiles.shape[2:])
    rows = even_rows(count, most=_SAMPLE)
    alone = LocalIndex.build(side.features.rows(rows), np.arange(len(rows))).first
    nothing = dataclasses.replace(
        alone, sample=jnp.zeros_like(alone.sample[:1]), sample_subjects=jnp.asarray([-3])
    )
    own = np.asarray(alone.tiles).reshape(-1, *alone.tiles.shape[2:])[: len(rows)]
    ranked = nothing.rank(own, count=_GLANCED, exclude=np.arange(len(rows)))
    points = np.maximum((np.abs(own).sum(-1) > 0).sum(1), 1)
    shared = (ranked.images >= 0) & (ranked.scores >= _SHARED * points[:, None])
    kept = np.ones(len(rows), bool)
    for row, others in enumerate(ranked.images):
        if kept[row]:
            kept[others[shared[row]]] = False
            kept[row] = True
    rows = rows[kept]
    first = dataclasses.replace(
        first,
        sample=jnp.asarray(descriptors[rows]),
        sample_subjects=jnp.asarray(groups[rows].astype(np.int32)),
    )
    return dataclasses.replace(index, first=first)


def _null_points(pairs: np.ndarray) -> np.ndarray:
    """What the query's own other candidates hold of its points, as its evidence implies."""
    return (pairs["points"] + ADDED) / np.exp(pairs["evidence"]) - ADDED


def _largest(pairs: np.ndarray, count: int) -> np.ndarray:
    """float32 [count]: the most evidence of each row's pairs; NaN where it has none."""
    out = np.full(count, np.nan, np.float32)
    np.fmax.at(out, pairs["query"], pairs["evidence"])
    return out


def _beyond(
    pairs: np.ndarray, crowd: np.ndarray, level: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """The crowds that pairs of a level make, and the rows whose crowd has grown."""
    there = pairs[(pairs["evidence"] >= level[0]) & (pairs["points"] >= level[1])]
    joined = connected(there["query"], there["reference"], len(crowd))
    grown = np.bincount(joined)[joined] > np.bincount(crowd)[crowd]
    return joined, np.flatnonzero(grown)


def connected(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """int32 [count]: a number for each connected component of the links a[i] to b[i]."""
    graph = scipy.sparse.coo_array((np.ones(len(a)), (a, b)), shape=(count, count))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int32)


def each_once(pairs: np.ndarray) -> np.ndarray:
    """Each pair in the direction of more evidence, then of a higher verified score if there is one, by its
    rows.
    """
    low = np.minimum(pairs["query"], pairs["reference"]).astype(np.int64)
    high = np.maximum(pairs["query"], pairs["reference"])
    # Pairs of volumes have no score yet.
    there = pairs.dtype.fields or {}
    says_more = [-pairs[name] for name in ("verified", "evidence") if name in there]
    order = np.lexsort((pairs["query"], *says_more, high, low))
    key = (low << 32 | high)[order]
    return pairs[order[np.flatnonzero(np.diff(key, prepend=-1))]]
