"""Images of the real side that are copies of each other: the same file, turned, mirrored, resized.

Training folders hold them, by augmentation or under other names. A real image whose double lies under
another patient would look like a copy that chance made, and spoil the thresholds; so doubles are
found first, and count as one patient from there on.
"""

import dataclasses

import numpy as np

from deepssim_jax.audit.self_join import connected, self_join
from deepssim_jax.data.store import ImageStore
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.side import Side
from deepssim_jax.workspace import Section

# Nothing short of a copy of the whole image: neighbouring slices and other radiographs of a patient
# stay below at least one of these.
_MIN_EVIDENCE, _MIN_POINTS, _MIN_SCORE = 1.0, 20.0, 0.9
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

    @classmethod
    def of(cls, pairs: np.ndarray, people: np.ndarray) -> "Doubles":
        """From pairs of `PAIRS` and int [n], each image's patient."""
        count = len(people)
        # Patients are linked by the doubles of their images.
        first = stand_for(people)
        subjects = connected(
            np.concatenate([pairs["first"], np.arange(count)]),
            np.concatenate([pairs["second"], first]),
            count,
        )
        return cls(pairs, subjects, connected(pairs["first"], pairs["second"], count))

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
                "yes" if images.keys[one] == images.keys[other] else "no",
            ))  # fmt: skip
        return tuple(out)


def find_doubles(
    real: Side, images: ImageStore, *, journal: Section, on_progress: Progress
) -> Doubles:
    """Searches the real side against itself.

    Args:
      real: the real side, with local features.
      images: its store, for what is equal as decoded.
      journal: keeps what is found.
      on_progress: called with (images done, images in all, what).
    """
    stands = stand_for(images.decoded())
    rows = np.unique(stands)
    joined = self_join(
        real.rows(rows),
        journal=journal,
        on_progress=on_progress,
        what="duplicates among the real images",
        unrelated=0,
    ).pairs
    joined = joined[are_doubles(joined)]
    found = np.zeros(len(joined), PAIRS)
    found["first"], found["second"] = rows[joined["query"]], rows[joined["reference"]]
    found["score"], found["evidence"] = joined["verified"], joined["evidence"]
    return Doubles.of(np.concatenate([equal_pairs(stands), found]), real.grouped()[1])


def are_doubles(pairs: np.ndarray) -> np.ndarray:
    """Bool [n]: which rows of `PAIR`, placed by local features, are nothing short of the whole image."""
    return (
        pairs["by_points"]
        & (pairs["evidence"] >= _MIN_EVIDENCE)
        & (pairs["points"] >= _MIN_POINTS)
        & (pairs["verified"] >= _MIN_SCORE)
    )


def stand_for(contents: np.ndarray) -> np.ndarray:
    """int64 [n]: the first row with the same content as each, such as `ImageStore.decoded`.

    Files are not asked: one file can hold many images.
    """
    _, first, inverse = np.unique(contents, axis=0, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


def equal_pairs(stands: np.ndarray) -> np.ndarray:
    """`PAIRS` of images that equal an earlier one, with that one."""
    rows = np.flatnonzero(stands != np.arange(len(stands)))
    out = np.zeros(len(rows), PAIRS)
    out["first"], out["second"], out["score"] = rows, stands[rows], 1.0
    return out
