"""Euclidean distances of all pairs of two small sets of rows, in 64 bits on the host.

Contract: rows are floats [n, d]; callers bound memory by giving blocks of them. What searches
millions of pairs is `scoring.pairs`.
"""

import numpy as np


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|x - y|^2 = |x|^2 + |y|^2 - 2 x.y, never below 0.

    Args:
      a: [n, d].
      b: [m, d].

    Returns:
      float64 [n, m].
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0.0)
