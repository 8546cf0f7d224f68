"""One set of volumes searched against itself: each is looked up among all, each pair is measured once.

Contract: rows are those of a `Reference` that has an index. Of a pair, the direction in which keypoints
say more is noted, with the maps that were found: a part says more of its whole than the whole of its
part. The measures of a noted pair start from those maps.
"""

import dataclasses

import numpy as np

from deepssim_jax.audit.self_join import each_once
from deepssim_jax.ops.transform import Transform
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.volume_match import Reference
from deepssim_jax.scoring.volume_measure import (
    Alignment,
    MatchSettings,
    brought_together,
    held_in,
    measured,
    pair_dtype,
    starts,
)
from deepssim_jax.scoring.volume_points import Found
from deepssim_jax.workspace import Section

# Evidence of keypoints from which a pair is noted.
LEAST_NOTED = 3.0
KEPT = 8  # of what a volume has for others of which nothing is noted
_MAPS = (
    "evidence", "exact", "own", "matrix", "shift", "posed", "posed_matrix", "posed_shift",
)  # of `Found`  # fmt: skip
_LINEAR, _MOVE = ("<f4", (3, 3)), ("<f4", (3,))
NOTED = np.dtype(
    [("query", "<i4"), ("reference", "<i4"), ("evidence", "<f4"), ("exact", "<f4"), ("own", "<f4")]
    + [("matrix", *_LINEAR), ("shift", *_MOVE)]
    + [("posed", "<f4"), ("posed_matrix", *_LINEAR), ("posed_shift", *_MOVE)]
)
_BLOCK, _MEASURED = 32, 16


@dataclasses.dataclass(frozen=True)
class VolumeJoin:
    """`noted` rows of `NOTED` of every volume, so that a pair may stand there in both directions; `rest`
    float32 [n, KEPT], falling, the most evidence that each volume has for others of which nothing is noted.
    """

    noted: np.ndarray
    rest: np.ndarray

    @classmethod
    def nothing(cls, count: int) -> "VolumeJoin":
        """That of as many volumes which nothing is found of."""
        return cls(np.zeros(0, NOTED), np.zeros((count, KEPT), np.float32))

    @classmethod
    def of(
        cls, references: Reference, *, journal: Section, on_progress: Progress, what: str
    ) -> "VolumeJoin":
        """Looks every volume up.

        Args:
          references: the volumes; without an index nothing is found.
          journal: keeps what is found.
          on_progress: called with (volumes done, volumes in all, what).
          what: the name of this work for the progress line.
        """
        side, index = references.side, references.index
        if index is None or len(side) < 2:
            return cls.nothing(len(side))

        def block(rows: np.ndarray) -> dict[str, np.ndarray]:
            found = index.vote(side.rows(rows))
            evidence = found.evidence.copy()
            evidence[np.arange(len(rows)), rows] = 0.0
            enough = evidence >= LEAST_NOTED
            query, reference = np.nonzero(enough)
            noted = np.zeros(len(query), NOTED)
            noted["query"], noted["reference"] = rows[query], reference
            for name in _MAPS:
                noted[name] = getattr(found, name)[query, reference]
            rest = np.pad(np.where(enough, 0.0, evidence), ((0, 0), (0, KEPT)))
            return {"noted": noted, "rest": -np.sort(-rest, axis=1)[:, :KEPT]}

        found = journal.by_rows(
            "join",
            "keypoints",
            block,
            count=len(side),
            block=_BLOCK,
            on_progress=on_progress,
            what=what,
        )
        return cls(np.asarray(found["noted"]), np.asarray(found["rest"]))

    def pairs(self) -> np.ndarray:
        """What is noted, each pair once."""
        return each_once(self.noted)

    def most(self, group: np.ndarray | None = None) -> np.ndarray:
        """Float32 [n, KEPT], falling: of each volume for others, by int `group` [n] of other groups."""
        query, reference = self.noted["query"], self.noted["reference"]
        apart = np.ones(len(query), bool) if group is None else group[query] != group[reference]
        count = len(self.rest)
        whose = np.concatenate([query[apart], np.repeat(np.arange(count), KEPT)])
        evidence = np.concatenate([self.noted["evidence"][apart], self.rest.reshape(-1)])
        order = np.lexsort((-evidence, whose))
        first = np.searchsorted(whose[order], np.arange(count))
        return evidence[order][first[:, None] + np.arange(KEPT)]


def measure_noted(
    noted: np.ndarray,
    references: Reference,
    *,
    settings: MatchSettings,
    journal: Section,
    on_progress: Progress = lambda done, total, what: None,
) -> np.ndarray:
    """Rows of `pair_dtype` of as many rows of `NOTED`, in their order; arguments as for `match_volumes`."""
    side = references.side

    def block(rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros(0, pair_dtype(settings.labels))
        queries, pairs, found = _found(noted[rows], len(side))
        out = measured(pairs, side.rows(queries), side, found, settings)
        out["query"] = queries[out["query"]]
        return out

    return journal.by_rows(
        "measured",
        [settings, noted],
        block,
        count=len(noted),
        block=_MEASURED,
        on_progress=on_progress,
        what="comparing pairs",
    )


def placed_noted(row: np.ndarray, references: Reference) -> Transform:
    """The map by which one pair, a row of `NOTED` as an array of one, was compared."""
    side, reference = references.side, row["reference"]
    queries, _, found = _found(row, len(side))
    part, first = side.rows(queries), np.zeros(1, int)
    return brought_together(
        part.take(first),
        side.take(reference),
        (held_in(part, first), held_in(side, reference)),
        starts(part, side, found, first, reference),
        Alignment.AFFINE,
    ).transform


def _found(noted: np.ndarray, count: int) -> tuple[np.ndarray, list[tuple[int, int]], Found]:
    """The queries of some noted pairs, the pairs by row of these, and what was found of them."""
    queries, place = np.unique(noted["query"], return_inverse=True)
    found = Found.nothing(len(queries), count)
    for name in _MAPS:
        getattr(found, name)[place, noted["reference"]] = noted[name]
    pairs = zip(place.tolist(), noted["reference"].tolist(), strict=True)
    return queries, list(pairs), found
