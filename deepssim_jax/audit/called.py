"""Which pairs of an audit are copies, and by how many kinds of evidence.

Contract: pairs are those of `scoring.match`, rows of `PAIR`.
"""

import numpy as np

from deepssim_jax.audit.result import Thresholds
from deepssim_jax.detection import calls
from deepssim_jax.scoring.evidence import other_images, pair_keys, partial_for_copy


def by_kind(pairs: np.ndarray, thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bool [n]: pairs that are copies by local features, by partial correlations; and those that look like
    two images of one patient.
    """
    placed = pairs["by_points"] & (pairs["verified"] > -1)
    points = placed & (pairs["evidence"] >= thresholds.local)
    loose = placed & other_images(pairs["evidence"], pairs["exact"])

    def reached(partial: np.ndarray) -> np.ndarray:
        return np.any(partial >= np.array(thresholds.partial), axis=1)

    other = loose & (points | reached(pairs["partial"]))
    return points & ~loose, reached(partial_for_copy(pairs)), other


def called(pairs: np.ndarray, thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs, one of each query and reference, in the order in which they explain the query.

    Args:
      pairs: of `match`.
      thresholds: from which a pair counts as a copy.

    Returns:
      By query, copies first, then what looks like another image of the patient, those of the best
      verified score first; and bool, which are copies, and which such other images. What local features
      alone proposed is left out where its evidence is too small: its score is that of an alignment with
      more freedom than that of the other pairs.
    """
    placed = pairs["by_points"]
    points, partial, other = by_kind(pairs, thresholds)
    copy = points | partial
    key = pair_keys(pairs["query"], pairs["reference"])
    # A pair found both ways is a copy by either, with the better alignment and the other's evidence.
    copy, other = (np.isin(key, key[which]) for which in (copy, other))
    other &= ~copy
    order = np.lexsort((pairs["reference"], -pairs["verified"], ~other, ~copy, pairs["query"]))
    order = order[(~placed | copy | other)[order]]
    pairs, copy, other, key = pairs[order], copy[order], other[order], key[order]
    first = np.sort(np.unique(key, return_index=True)[1])
    places = {int(k): row for row, k in enumerate(key) if pairs["by_points"][row]}
    kept = pairs[first]
    for row, k in enumerate(key[first].tolist()):
        if k in places:
            for field in ("points", "evidence", "exact"):
                kept[field][row] = pairs[places[k]][field]
    return kept, copy[first], other[first]


def confirmed(
    pairs: np.ndarray, thresholds: Thresholds, originals: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Bool [n]: which of the pairs `asked` are copies by both kinds of evidence.

    Args:
      pairs: of `match`.
      thresholds: from which a pair counts as a copy.
      originals: int by reference, the same of images that are copies of each other: one kind of evidence
        may have found the one and the other its double.
      asked: those of `called`.
    """
    points, partial, _ = by_kind(pairs, thresholds)
    keys = pair_keys(pairs["query"], originals[pairs["reference"]])
    both = np.intersect1d(keys[points], keys[partial])
    return np.isin(pair_keys(asked["query"], originals[asked["reference"]]), both)


def look_alikes(
    kept: np.ndarray, copy: np.ndarray, confirmed: np.ndarray, originals: np.ndarray
) -> np.ndarray:
    """The queries that look like one real image, as many others do.

    Args:
      kept: pairs of `called`; and bool, which are copies, and by both kinds of evidence.
      copy: likewise.
      confirmed: likewise.
      originals: as for `confirmed`.
    """
    rows = np.flatnonzero(copy)
    rows = rows[np.unique(kept["query"][rows], return_index=True)[1]]
    names = originals[kept["reference"][rows]].tolist()
    found = [calls.Call(*call) for call in zip(names, confirmed[rows].tolist(), strict=True)]
    return kept["query"][rows[np.array(calls.look_alikes(found), bool)]]
