"""Images of the real side that are copies of each other: the same file, turned, mirrored, resized.

Training folders hold them, by augmentation or under other names. A real image whose double lies under
another patient would look like a copy that chance made, and spoil the thresholds; so doubles are
found first, and count as one patient from there on.
"""

import dataclasses

import numpy as np
from scipy import sparse

from deepssim_jax.data.store import ImageStore
from deepssim_jax.scoring.match import Progress, Side, placed_by_points
from deepssim_jax.scoring.points import LocalIndex
from deepssim_jax.workspace import Section

# Nothing short of a copy of the whole image: neighbouring slices and other radiographs of a patient
# stay below at least one of these.
_MIN_EVIDENCE, _MIN_POINTS, _MIN_SCORE = 2.5, 20.0, 0.9
_BLOCK = 128
COLUMNS = (
    "group", "image_id", "subject_id", "closest_double", "verified_score", "local_evidence", "same_file",
)  # fmt: skip
PAIRS = np.dtype([("first", "<i4"), ("second", "<i4"), ("score", "<f4"), ("evidence", "<f4")])


@dataclasses.dataclass(frozen=True)
class Doubles:
    """`pairs` of `PAIRS`, rows of the real side; `subjects` int32 [n], a number for each patient, with
    the patients of doubles made one; `group` int32 [n], from 0, one for each image and its doubles.
    """

    pairs: np.ndarray
    subjects: np.ndarray
    group: np.ndarray

    def rows(self, images: ImageStore) -> tuple[tuple[object, ...], ...]:
        """Rows of `COLUMNS`: every image that has a double, by group, with its closest one."""
        a, b = self.pairs["first"], self.pairs["second"]
        both = np.concatenate([self.pairs, self.pairs])
        both["first"], both["second"] = np.concatenate([a, b]), np.concatenate([b, a])
        order = np.lexsort(
            (both["second"], -both["score"], both["first"], self.group[both["first"]])
        )
        both = both[order]
        names = {group: k for k, group in enumerate(dict.fromkeys(self.group[both["first"]]), 1)}
        out: list[tuple[object, ...]] = []
        for row in both[np.flatnonzero(np.diff(both["first"], prepend=-1))]:
            one, other = int(row["first"]), int(row["second"])
            out.append((
                names[self.group[one]], images.image_ids[one], images.subject_ids[one],
                images.image_ids[other], float(row["score"]), float(row["evidence"]),
                "yes" if images.sha256[one] == images.sha256[other] else "no",
            ))  # fmt: skip
        return tuple(out)


def find_doubles(
    real: Side, images: ImageStore, *, journal: Section, on_progress: Progress
) -> Doubles:
    """Searches the real side against itself.

    Args:
      real: the real side, with local features.
      images: its store, for the files' hashes.
      journal: keeps what is found.
      on_progress: called with (images done, images in all, what).
    """
    same = same_files(images.sha256)
    pairs = np.zeros(0, PAIRS)
    if real.points is not None and len(real) > 1:
        alone = dataclasses.replace(real, groups=np.arange(len(real), dtype=np.int32))
        index: list[LocalIndex] = []

        def block(rows: np.ndarray) -> np.ndarray:
            if not index:
                assert alone.points is not None
                index.append(LocalIndex.build(alone.points, np.arange(len(alone))))
            return _doubles_of(rows, alone, index[0])

        pairs = journal.by_rows(
            "doubles",
            [real.points.geometry, real.embeddings],
            block,
            count=len(real),
            block=_BLOCK,
            on_progress=on_progress,
            what="doubles among the real images",
        )
    pairs = np.concatenate([same, pairs])
    group = connected(pairs["first"], pairs["second"], len(real))
    # Patients are linked by the doubles of their images.
    people = np.arange(len(real)) if real.groups is None else real.groups
    _, first, inverse = np.unique(people, return_index=True, return_inverse=True)
    rows = np.arange(len(real))
    subjects = connected(
        np.concatenate([pairs["first"], rows]),
        np.concatenate([pairs["second"], first[inverse]]),
        len(real),
    )
    return Doubles(pairs, subjects, group)


def _doubles_of(rows: np.ndarray, alone: Side, index: LocalIndex) -> np.ndarray:
    if not len(rows):
        return np.zeros(0, PAIRS)
    part = alone.rows(rows)
    assert part.points is not None
    likely = np.flatnonzero(index.stands_out(part.points, exclude=rows))
    found = placed_by_points(part.rows(likely), alone, index, apart=True)
    found = found[
        (found["evidence"] >= _MIN_EVIDENCE)
        & (found["points"] >= _MIN_POINTS)
        & (found["verified"] >= _MIN_SCORE)
    ]
    out = np.zeros(len(found), PAIRS)
    out["first"], out["second"] = rows[likely[found["query"]]], found["reference"]
    out["score"], out["evidence"] = found["verified"], found["evidence"]
    return out


def same_files(digests: tuple[str, ...]) -> np.ndarray:
    """Pairs of byte-equal files: each with the first of its kind."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    rows = np.flatnonzero(first[inverse] != np.arange(len(digests)))
    out = np.zeros(len(rows), PAIRS)
    out["first"], out["second"], out["score"] = rows, first[inverse][rows], 1.0
    return out


def connected(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """int32 [count]: a number for each connected component."""
    graph = sparse.coo_array((np.ones(len(a)), (a, b)), shape=(count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int32)
