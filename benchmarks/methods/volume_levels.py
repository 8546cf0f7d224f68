"""The best pair of each query, level by level, as a benchmark compares levels."""

import numpy as np

from deepssim_jax.scoring.volume_measure import DECIDING, MEASURES
from deepssim_jax.scoring.volume_search import Level


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
